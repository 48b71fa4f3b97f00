//! A look at the folders of the host that a compartment shares, before they are handed out.
//!
//! Each is opened once, without reading, and stays open: what was looked at is what is shared
//! (`casemate-jail` compares), and its number is given to no other folder meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use casemate_config::{Compartment, Settings, Share};
use casemate_plan::ShareParts;
use casemate_plan::jail::Inode;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::unistd::{AccessFlags, access, geteuid};

/// A folder that cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// It is not there, or may not be reached.
    #[error("could not share {} with compartment `{name}`", path.display())]
    Open {
        /// The compartment.
        name: String,
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a file, a socket, ….
    #[error("could not share {} with compartment `{name}`: it is no folder", path.display())]
    Kind {
        /// The compartment.
        name: String,
        /// What was given.
        path: PathBuf,
    },
    /// Whoever serves it may not use it.
    #[error(
        "could not share {} with compartment `{name}`: {who} may not {what} it",
        path.display()
    )]
    Permission {
        /// The compartment.
        name: String,
        /// The folder.
        path: PathBuf,
        /// Whoever serves it.
        who: String,
        /// What is missing.
        what: &'static str,
    },
    /// A guest may have put a link there.
    #[error(
        "could not share {} with compartment `{name}`: it lies in {}, which a guest may write to, \
         and a symbolic link leads to it",
        path.display(), within.display()
    )]
    Planted {
        /// The compartment.
        name: String,
        /// The folder.
        path: PathBuf,
        /// The writable share it lies in.
        within: PathBuf,
    },
}

impl ShareError {
    /// What the user can do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "make the folder, or correct its `source`"
            }
            Self::Open { .. } | Self::Permission { .. } => {
                "correct its `source`, or its owner and permissions"
            }
            Self::Kind { .. } => "give the path of a folder; single files are not shared",
            Self::Planted { .. } => "give the path the link leads to, if that is what you want",
        }
    }
}

/// A folder that is shared for as long as this is there.
#[derive(Debug)]
pub(crate) struct OpenShare {
    /// What the plan needs to know.
    pub(crate) parts: ShareParts,
    /// Keeps its number from being given to another.
    _folder: OwnedFd,
}

/// Opens the folder of each share of a compartment.
///
/// # Errors
/// One cannot be shared.
pub(crate) fn open(
    compartment: &Compartment,
    settings: &Settings,
) -> Result<Vec<OpenShare>, ShareError> {
    let writable = writable(settings);
    compartment.shares.iter().map(|share| open_one(compartment, share, &writable)).collect()
}

/// Folders that guests may write to, of whatever compartment.
fn writable(settings: &Settings) -> BTreeMap<&Path, OwnedFd> {
    let shares = settings.compartments.values().flat_map(|compartment| &compartment.shares);
    shares
        .filter(|share| !share.read_only)
        // One that cannot be opened is nobody's to write to.
        .filter_map(|share| Some((share.source.as_path(), path_only(&share.source).ok()?)))
        .collect()
}

fn open_one(
    compartment: &Compartment,
    share: &Share,
    writable: &BTreeMap<&Path, OwnedFd>,
) -> Result<OpenShare, ShareError> {
    let name = || compartment.name.to_string();
    let path = share.source.clone();
    let failed = |source| match source {
        source if io::Error::kind(&source) == io::ErrorKind::NotADirectory && path.exists() => {
            ShareError::Kind { name: name(), path: path.clone() }
        }
        source => ShareError::Open { name: name(), path: path.clone(), source },
    };
    let within = writable.iter().find_map(|(within, folder)| {
        let rest = path.strip_prefix(within).ok().filter(|rest| *rest != Path::new(""))?;
        Some((within, folder, rest))
    });
    let folder = match within {
        None => path_only(&path).map_err(failed)?,
        Some((within, folder, rest)) => {
            let how = OpenHow::new()
                .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
            match openat2(folder, rest, how) {
                Err(nix::errno::Errno::ELOOP) => {
                    let within = within.to_path_buf();
                    return Err(ShareError::Planted { name: name(), path, within });
                }
                other => other.map_err(|errno| failed(errno.into()))?,
            }
        }
    };
    let folder = File::from(folder);
    let metadata = folder.metadata().map_err(failed)?;
    let own = format!("/proc/self/fd/{}", folder.as_raw_fd());
    if let Some((who, what)) = missing(&own, &metadata, share.read_only) {
        return Err(ShareError::Permission { name: name(), path, who, what });
    }
    let parts = ShareParts {
        folder: fs::read_link(own).map_err(failed)?,
        inode: Inode { device: metadata.dev(), number: metadata.ino() },
        owner: (metadata.uid(), metadata.gid()),
    };
    Ok(OpenShare { parts, _folder: folder.into() })
}

fn path_only(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    Ok(File::options().read(true).custom_flags(flags).open(path)?.into())
}

/// Who may not do what with the folder. Its server is the caller, or for root the folder's owner.
fn missing(own: &str, metadata: &fs::Metadata, read_only: bool) -> Option<(String, &'static str)> {
    let (read, write) = if geteuid().is_root() {
        let mode = metadata.mode();
        (mode & 0o500 == 0o500, mode & 0o200 != 0)
    } else {
        let may = |what| access(own, what).is_ok();
        (may(AccessFlags::R_OK | AccessFlags::X_OK), may(AccessFlags::W_OK))
    };
    let who = || match geteuid().is_root() {
        true => format!("its owner (user {})", metadata.uid()),
        false => "you".into(),
    };
    match (read, write) {
        (false, _) => Some((who(), "read")),
        (true, false) if !read_only => Some((who(), "write to")),
        _ => None,
    }
}
