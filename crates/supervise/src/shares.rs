//! A look at the folders of the host that a compartment shares, before they are handed out.
//!
//! Each is opened once, without reading, and stays open: what was looked at is what is shared
//! (`casemate-jail` compares), and its number is given to no other folder meanwhile.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use casemate_config::{Compartment, Settings, Share};
use casemate_plan::ShareParts;
use casemate_plan::jail::Inode;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{AccessFlags, access, geteuid};

/// Links followed on the way to a folder; as many as the kernel, path_resolution(7).
const MOST_LINKS: u32 = 40;

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
        "could not share {} with compartment `{name}`: a symbolic link on the way to it lies in {}, \
         which a guest may write to",
        path.display(), within.display()
    )]
    Planted {
        /// The compartment.
        name: String,
        /// The folder.
        path: PathBuf,
        /// The writable share the link lies in.
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
fn writable(settings: &Settings) -> Vec<PathBuf> {
    let shares = settings.compartments.values().flat_map(|compartment| &compartment.shares);
    shares
        .filter(|share| !share.read_only)
        // One that is not there is nobody's to write to.
        .filter_map(|share| fs::canonicalize(&share.source).ok())
        .collect()
}

fn open_one(
    compartment: &Compartment,
    share: &Share,
    writable: &[PathBuf],
) -> Result<OpenShare, ShareError> {
    let name = || compartment.name.to_string();
    let path = share.source.clone();
    let failed = |source| ShareError::Open { name: name(), path: path.clone(), source };
    let place = match resolve(&path, writable).map_err(failed)? {
        Place::At(place) => place,
        Place::Planted(within) => return Err(ShareError::Planted { name: name(), path, within }),
    };
    // A link that was made since is not followed either.
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let folder = match openat2(AT_FDCWD, &place, how) {
        Err(Errno::ENOTDIR) => return Err(ShareError::Kind { name: name(), path }),
        other => other.map_err(|errno| failed(errno.into()))?,
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

/// Where a path leads.
enum Place {
    /// There, by a path without links.
    At(PathBuf),
    /// Through a link in this folder, which a guest may write to.
    Planted(PathBuf),
}

/// Follows a path, and no link that lies in one of the folders that guests may write to.
fn resolve(path: &Path, writable: &[PathBuf]) -> io::Result<Place> {
    let mut links = 0;
    let mut at = PathBuf::from("/");
    let mut ahead = vec![path.to_owned()];
    while let Some(next) = ahead.pop() {
        let mut components = next.components();
        let Some(component) = components.next() else { continue };
        ahead.push(components.as_path().to_owned());
        let name = match component {
            Component::RootDir | Component::Prefix(_) => {
                at = PathBuf::from("/");
                continue;
            }
            Component::CurDir => continue,
            Component::ParentDir => {
                at.pop();
                continue;
            }
            Component::Normal(name) => at.join(name),
        };
        if !fs::symlink_metadata(&name)?.is_symlink() {
            at = name;
            continue;
        }
        if let Some(within) = writable.iter().find(|within| at.starts_with(within)) {
            return Ok(Place::Planted(within.clone()));
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        ahead.push(fs::read_link(&name)?);
    }
    Ok(Place::At(at))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_the_user_are_followed_and_those_of_guests_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = fs::canonicalize(directory.path()).expect("there");
        let path = |name: &str| root.join(name);
        for name in ["guest/inner", "mine/inner"] {
            fs::create_dir_all(path(name)).expect("made");
        }
        symlink("mine", path("link")).expect("made");
        symlink(path("guest"), path("to-guest")).expect("made");
        symlink("../mine", path("guest/planted")).expect("made");
        symlink("loop", path("loop")).expect("made");
        let writable = [path("guest")];
        let place = |name: &str| match resolve(&path(name), &writable) {
            Ok(Place::At(place)) => place,
            Ok(Place::Planted(within)) => panic!("{name}: planted in {}", within.display()),
            Err(error) => panic!("{name}: {error}"),
        };
        assert_eq!(place("link/inner/../inner"), path("mine/inner"));
        assert_eq!(place("to-guest/./inner"), path("guest/inner"));
        for name in ["guest/planted", "guest/planted/inner", "to-guest/planted/inner"] {
            let found = resolve(&path(name), &writable);
            assert!(
                matches!(found, Ok(Place::Planted(within)) if within == path("guest")),
                "{name}"
            );
        }
        assert!(resolve(&path("guest/planted"), &[]).is_ok(), "if no guest writes there");
        assert!(resolve(&path("loop"), &[]).is_err());
        assert!(resolve(&path("nothing"), &[]).is_err());
    }
}
