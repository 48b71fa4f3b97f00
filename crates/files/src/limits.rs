//! Every limit of a copy, in one place. Both ends hold to them, and neither believes that the other does.

/// Longest name of a file or folder, in bytes: `NAME_MAX` of Linux.
pub const MAX_NAME: usize = 255;

/// Folders inside each other. The receiver has a descriptor open for each.
pub const MAX_DEPTH: usize = 64;

/// Longest path within a copy, in bytes: `PATH_MAX` of Linux less the folder it arrives in.
pub const MAX_PATH: usize = 3072;

/// Files and folders in one copy. A checked-out kernel has 90 000.
pub const MAX_ENTRIES: u32 = 500_000;

/// Longest piece of a file in one record, in bytes: as much as the pipes of a session hold.
pub const MAX_PIECE: usize = 256 * 1024;

/// Longest reason for an end before the end, in bytes.
pub const MAX_REASON: usize = 512;

/// Longest web address, in bytes: what browsers and servers take in practice.
pub const MAX_URL: usize = 8192;

/// Longest notice, in bytes; what is longer is cut.
pub const MAX_NOTICE: usize = 1024;

/// Numbers that are tried behind a name which is taken.
pub const MAX_NUMBER: u32 = 999;
