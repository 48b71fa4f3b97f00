//! The folder in which files arrive: `~/Incoming/SOURCE`, and in it, for as long as something is on its
//! way, a folder of that receiver's own.
//!
//! What has come as a whole is renamed into place, never over something. What a receiver leaves that was
//! killed has no lock any more, and the next one removes it.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, RenameFlags, renameat2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, unlinkat};

use crate::entry;
use crate::limits::{MAX_DEPTH, MAX_ENTRIES};
use crate::name::numbered;

/// How the names of folders begin that hold what is not whole yet.
pub(crate) const STAGING: &str = ".incoming-";

/// Folder of everything that arrives, in a home.
const INCOMING: &str = "Incoming";

/// Leftovers that are looked at in one go.
const MAX_LEFTOVERS: usize = 100_000;

/// Names that are tried for a folder of one's own.
const ATTEMPTS: u32 = 1000;

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("could not use the folder {}", .path.display())]
pub struct PlaceError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Where files of one source arrive.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    folder: OwnedFd,
}

impl Place {
    /// Opens `Incoming/SOURCE` in this home, and makes it if it is not there. `Incoming` may be a link of
    /// the user's own, the folder in it may not.
    ///
    /// # Errors
    /// It cannot be made or is no folder.
    pub fn open(home: &Path, source: &str) -> Result<Self, PlaceError> {
        let path = home.join(INCOMING).join(source);
        let failed = |source: io::Error| PlaceError { path: path.clone(), source };
        // A compartment's name, as it is checked elsewhere: nothing that leads away.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if source.is_empty() || !source.bytes().all(plain) {
            return Err(failed(io::Error::other("it would be named after no compartment")));
        }
        match DirBuilder::new().mode(0o700).create(home.join(INCOMING)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let incoming = std::fs::File::open(home.join(INCOMING)).map_err(failed)?;
        match mkdirat(&incoming, source, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let folder = entry::open_folder(&incoming, source).map_err(|error| failed(error.into()))?;
        Ok(Self { path, folder })
    }

    /// A folder that is there already.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn at(path: &Path) -> Result<Self, PlaceError> {
        let failed = |source: io::Error| PlaceError { path: path.into(), source };
        let folder = std::fs::File::open(path).map_err(failed)?;
        Ok(Self { path: path.into(), folder: folder.into() })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what receivers left that were killed.
    pub(crate) fn clean(&self) {
        let Ok(names) = entry::names(&self.folder, MAX_LEFTOVERS) else { return };
        for name in names.iter().filter(|name| name.to_bytes().starts_with(STAGING.as_bytes())) {
            if let Ok(left) = entry::open_folder(&self.folder, name.as_c_str())
                && let Ok(lock) = Flock::lock(left, FlockArg::LockExclusiveNonblock)
            {
                // What cannot be removed is tried again next time.
                let _ = empty(&lock, 0);
                let _ = unlinkat(&self.folder, name.as_c_str(), UnlinkatFlags::RemoveDir);
            }
        }
    }

    /// A folder in it for what is on its way.
    pub(crate) fn stage(&self) -> io::Result<Stage<'_>> {
        for attempt in 0..ATTEMPTS {
            let name = format!("{STAGING}{}-{attempt}", std::process::id());
            match mkdirat(&self.folder, name.as_str(), Mode::S_IRWXU) {
                Err(Errno::EEXIST) => continue,
                made => made?,
            }
            let opened = entry::open_folder(&self.folder, name.as_str());
            // Another may take it for a leftover until the lock is there.
            let Ok(folder) = opened else { continue };
            let Ok(lock) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) else { continue };
            if fstat(lock.as_fd())?.st_nlink == 0 {
                continue;
            }
            return Ok(Stage { place: self, name, lock });
        }
        Err(io::Error::other("no name was free"))
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// The folder of one receiver; gone with it.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    place: &'a Place,
    name: String,
    lock: Flock<OwnedFd>,
}

impl Stage<'_> {
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Puts what lies here under `name` into its place, under that name or with a number; the name.
    pub(crate) fn publish(&self, name: &str) -> io::Result<String> {
        for number in 1.. {
            let Some(free) = numbered(name, number) else { break };
            match put(self.folder(), name, self.place.as_fd(), &free) {
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(free),
            }
        }
        Err(io::Error::other("its name is taken, with every number"))
    }

    /// Removes what lies here.
    pub(crate) fn empty(&self) {
        // What cannot be removed is tried again by the next receiver.
        let _ = empty(&self.lock, 0);
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.empty();
        let _ = unlinkat(&self.place.folder, self.name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

/// Removes everything in a folder. Nothing is followed, and what is deeper than a copy can be stays.
fn empty(folder: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH + 1 {
        return Ok(());
    }
    let names: Vec<CString> = entry::names(folder, MAX_ENTRIES as usize)?;
    for name in &names {
        match unlinkat(folder, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => {
                empty(&entry::open_folder(folder, name.as_c_str())?, depth + 1)?;
                unlinkat(folder, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// A file that is not there yet, in this folder.
pub(crate) fn create(folder: BorrowedFd<'_>, name: &str, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    entry::open_beneath(folder, name, flags, mode)
}

/// A folder that is not there yet, in this folder.
pub(crate) fn create_folder(folder: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    mkdirat(folder, name, Mode::from_bits_truncate(0o777))?;
    entry::open_folder(folder, name)
}

/// Gives what lies in one folder under `name` a free name in another.
///
/// # Errors
/// The kernel's; `EEXIST` where the name is taken.
pub(crate) fn put(
    from: BorrowedFd<'_>,
    name: &str,
    to: BorrowedFd<'_>,
    free: &str,
) -> Result<(), Errno> {
    match renameat2(from, name, to, free, RenameFlags::RENAME_NOREPLACE) {
        // A file system that cannot; a link does the same for files.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            linkat(from, name, to, free, LinkatFlags::empty())?;
            unlinkat(from, name, UnlinkatFlags::NoRemoveDir)
        }
        other => other,
    }
}
