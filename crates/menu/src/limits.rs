//! Numbers that a guest's word is held against.

/// Applications of a guest. A desktop with everything has two hundred.
pub const MAX_APPLICATIONS: u32 = 512;

/// Bytes of an id: what `casemate.StartApp` takes in a guest.
pub const MAX_ID: usize = 128;

/// Bytes of a desktop file. With all translations a large one has 60 KiB.
pub const MAX_FILE: usize = 256 * 1024;

/// Bytes of a line that is looked at; longer ones, which lists of types are, are as if not there.
pub const MAX_LINE: usize = 1024;

/// Characters of a name; the rest is cut off.
pub const MAX_NAME: usize = 64;

/// Characters of a comment; the rest is cut off.
pub const MAX_COMMENT: usize = 160;

/// Bytes of all names and comments of an application. Translations that find no room are left out.
pub const MAX_TEXTS: usize = 32 * 1024;

/// Translations of one name. Desktops are translated into some hundred languages.
pub const MAX_LOCALES: usize = 160;

/// Categories of an application.
pub const MAX_CATEGORIES: usize = 16;

/// Bytes of an icon's file.
pub const MAX_ICON: usize = 1024 * 1024;

/// Width and height of an icon, in pixels.
pub const MAX_SIDE: u32 = 1024;

/// Bytes of everything that a guest sends.
pub const MAX_TOTAL: u64 = 64 * 1024 * 1024;
