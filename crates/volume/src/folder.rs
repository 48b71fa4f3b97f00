//! Folders of volumes and the files in them: locked, made private, on the disk for certain, erased.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use casemate_host::lock::{Holder, Lock, Taking};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::error::{VolumeError, VolumeId, files};
use crate::volume::{HEADER, LOCK};
use crate::{luks, tpm};

/// How long programs of a process that was killed may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// Takes the lock of a volume. A program that a killed process was running may keep it for the
/// moment it takes to end: that is waited for.
pub(crate) fn take(id: &VolumeId, folder: &Path) -> Result<Lock, VolumeError> {
    let path = folder.join(LOCK);
    let deadline = Instant::now() + ENDING;
    let mut lock = loop {
        match Lock::take(&path) {
            Ok(Taking::Ours(lock)) => break lock,
            Ok(Taking::Theirs(holder)) if lives(holder) || Instant::now() > deadline => {
                return Err(VolumeError::InUse { id: id.clone(), holder });
            }
            Ok(Taking::Theirs(_)) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::NotThere(id.clone()));
            }
            Err(error) => return Err(files("lock", &path)(error)),
        }
    };
    lock.sign().map_err(files("write", &path))?;
    Ok(lock)
}

/// Whether the process that signed a lock may be alive; one that has not signed yet is.
fn lives(holder: Option<Holder>) -> bool {
    let pid = holder.and_then(|holder| i32::try_from(holder.pid).ok());
    pid.is_none_or(|pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}

/// A private folder whose name begins with `prefix`; removed when dropped.
pub(crate) fn scratch(parent: &Path, prefix: &str) -> Result<tempfile::TempDir, VolumeError> {
    let private = Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix(prefix).permissions(private).tempdir_in(parent);
    folder.map_err(files("make a folder in", parent))
}

/// Erases a folder that somebody was making or removing, unless he lives; whether it is gone. A
/// program of his may still be writing files there while it ends.
pub(crate) fn finish(folder: &Path) -> bool {
    let deadline = Instant::now() + ENDING;
    loop {
        match Lock::take(&folder.join(LOCK)) {
            Ok(Taking::Ours(_lock)) if erase(folder).is_ok() => return true,
            Ok(Taking::Theirs(holder)) if lives(holder) => return false,
            Ok(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Ok(_) | Err(_) => return false,
        }
    }
}

/// Destroys the keys in a folder, then removes it.
pub(crate) fn erase(folder: &Path) -> Result<(), VolumeError> {
    for name in [HEADER, tpm::PRIVATE, tpm::PUBLIC] {
        let path = folder.join(name);
        luks::destroy(&path).map_err(files("overwrite", &path))?;
    }
    fs::remove_dir_all(folder).map_err(files("remove", folder))?;
    folder.parent().map_or(Ok(()), synced)
}

/// The names in a folder that can be of this kind.
pub(crate) fn names<T: std::str::FromStr>(folder: &Path) -> Result<Vec<T>, VolumeError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(files("read", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(files("read", folder))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()));
        }
    }
    Ok(names)
}

/// Makes a file that is not there, mode 0600.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Waits until the file or folder is on the disk.
pub(crate) fn synced(path: &Path) -> Result<(), VolumeError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(files("write", path))
}
