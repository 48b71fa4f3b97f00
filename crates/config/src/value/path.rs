//! Paths: of the host, resolved against the file they stand in, and of the guest.

use std::path::{Component, Path, PathBuf};

use crate::flaw::Flaw;
use crate::value::text::{quoted, text_type, textual};

/// A path of the host made absolute by the configuration file's place or the home directory.
///
/// `.` and `..` are resolved by text alone, as no file may be looked at here.
pub(crate) fn resolve(text: &str, folder: &Path, home: Option<&Path>) -> Result<PathBuf, Flaw> {
    if text.is_empty() || text.contains('\0') {
        return Err(Flaw::new(format!("{} is not a path", quoted(text)))
            .hint("absolute, relative to this file, or beginning with `~/`"));
    }
    let joined = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            home.map(|home| home.join(rest.trim_start_matches('/'))).ok_or_else(|| {
                Flaw::new("`~` stands for nothing here: no home directory is known")
                    .hint("write an absolute path")
            })?
        }
        Some(_) => {
            return Err(Flaw::new(format!(
                "{}: another user's home is not looked up",
                quoted(text)
            ))
            .hint("write the absolute path"));
        }
        None => folder.join(text),
    };
    let mut clean = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::CurDir => {}
            // Above a relative start `..` must stay; above the root there is only the root.
            Component::ParentDir => match clean.components().next_back() {
                Some(Component::Normal(_)) => {
                    clean.pop();
                }
                Some(Component::RootDir) => {}
                _ => clean.push(".."),
            },
            other => clean.push(other),
        }
    }
    if clean.as_os_str().is_empty() {
        clean.push(".");
    }
    Ok(clean)
}

text_type! {
    /// An absolute path in the guest, without `.`, `..` or empty parts.
    GuestPath: "an absolute path in the guest",
    "begins with `/`, without `..`", Some("^/([^/]+(/[^/]+)*)?$"), "/srv/data",
    |text| text == "/" || (text.len() <= 4095 && !text.chars().any(char::is_control)
        && text.strip_prefix('/').is_some_and(|rest| rest.split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)))
}

impl GuestPath {
    /// As a path.
    pub fn as_path(&self) -> &Path {
        Path::new(self.as_str())
    }
}

/// Where a disk or folder appears in the guest: never a place the guest's system lives on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountPoint(GuestPath);

impl MountPoint {
    /// The path.
    pub fn path(&self) -> &GuestPath {
        &self.0
    }
}

impl std::str::FromStr for MountPoint {
    type Err = Flaw;
    fn from_str(text: &str) -> Result<Self, Flaw> {
        let path: GuestPath = text.parse()?;
        let system = ["/dev", "/proc", "/sys", "/run/casemate"];
        let taken = ["/", "/boot", "/etc", "/run", "/tmp", "/usr"].contains(&text)
            || system.iter().any(|place| path.as_path().starts_with(place));
        if taken {
            return Err(Flaw::new(format!("nothing can be mounted on `{text}`"))
                .hint("the guest's own system lives there; use a folder such as \"/home/user\" or \"/srv/data\""));
        }
        Ok(Self(path))
    }
}

impl std::fmt::Display for MountPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

textual!(MountPoint, "a mount point in the guest", Some("^/[^/]+(/[^/]+)*$"), "/home/user");

/// A program: an absolute path, or a name looked up in the search path when it is started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program(PathBuf);

impl Program {
    /// The path or name.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl std::str::FromStr for Program {
    type Err = Flaw;
    fn from_str(text: &str) -> Result<Self, Flaw> {
        let plain = !text.is_empty() && !text.chars().any(char::is_control);
        if plain && (text.starts_with('/') || !text.contains('/')) && !text.starts_with('-') {
            Ok(Self(PathBuf::from(text)))
        } else {
            Err(Flaw::new(format!("{} is not a program", quoted(text)))
                .hint("an absolute path, or a bare name that is looked up in PATH"))
        }
    }
}

textual!(Program, "a program", Some("^(/.+|[^/-][^/]*)$"), "/usr/bin/qemu-system-x86_64");

/// Permission bits of a file, at most 0o777: no set-user-id, set-group-id or sticky bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileMode(u16);

impl FileMode {
    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }
}

impl std::str::FromStr for FileMode {
    type Err = Flaw;
    fn from_str(text: &str) -> Result<Self, Flaw> {
        let digits =
            (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let bits = if digits { u16::from_str_radix(text, 8).ok() } else { None };
        bits.filter(|bits| *bits <= 0o777).map(Self).ok_or_else(|| {
            Flaw::new(format!("{} is not a file mode", quoted(text)))
                .hint("three octal digits, as for chmod, for example \"0640\"")
        })
    }
}

impl std::fmt::Display for FileMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

textual!(FileMode, "a file mode", Some("^0?[0-7]{3}$"), "0640");
