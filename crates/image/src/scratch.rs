//! Temporary places of builds, and the removal of those whose build is gone.
//!
//! Each has a lock file beside it, held while its build lives; one whose lock can be taken is
//! dead. Besides a folder in the store, which is renamed into place at the end, a build has a
//! work folder: mmdebstrap runs as a subordinate user, who cannot enter a private home, so the
//! folder is elsewhere then, and a link in the scratch folder says where.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::command;
use crate::error::{Attempt, FileError};
use crate::names::{Lock, open_lock, try_lock};

/// Folders tried for the work, after the store itself.
const ELSEWHERE: [&str; 2] = ["/var/tmp", "/tmp"];
/// Beginning of the names of work folders elsewhere.
const WORK_PREFIX: &str = "casemate-build-";
/// Name of the link to a work folder elsewhere.
const WORK_LINK: &str = "work";
/// Permission to pass through a folder, for those who are neither owner nor group.
const OTHERS_PASS: u32 = 0o001;

/// The temporary places of one build, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: Lock,
}

impl Scratch {
    /// Makes a scratch folder in `parent`.
    pub(crate) fn new(parent: &Path) -> Result<Self, FileError> {
        loop {
            let lock_path = tempfile::Builder::new()
                .prefix("build-")
                .suffix(".lock")
                .tempfile_in(parent)
                .attempt("create a file in", parent)?
                .into_temp_path()
                .keep()
                .attempt("create a file in", parent)?;
            let file = open_lock(&lock_path)?;
            // While the file was not locked, another process may have removed it as dead.
            let Ok(lock) = try_lock(file) else { continue };
            if lock.metadata().attempt("inspect", &lock_path)?.nlink() == 0 {
                continue;
            }
            let scratch = Self { folder: lock_path.with_extension(""), lock_path, _lock: lock };
            create_passable(&scratch.folder)?;
            create_passable(&scratch.image())?;
            return Ok(scratch);
        }
    }

    /// The folder that becomes the image.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    /// Where something can be moved to be removed with this folder.
    pub(crate) fn aside(&self) -> PathBuf {
        self.folder.join("aside")
    }

    /// Makes the work folder: in the store where others may pass, otherwise elsewhere.
    pub(crate) fn work(&self) -> Result<PathBuf, FileError> {
        let link = self.folder.join(WORK_LINK);
        if nix::unistd::geteuid().is_root() || others_pass(&self.folder) {
            create_passable(&link)?;
            return Ok(link);
        }
        let parent = ELSEWHERE.map(Path::new).into_iter().find(|p| others_pass(p));
        let parent = parent.unwrap_or(Path::new(ELSEWHERE[0]));
        let id = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let id = id.trim_start_matches("build-");
        let folder = parent.join(format!("{WORK_PREFIX}{id}"));
        // The link first: a folder nobody knows of would never be removed.
        symlink(&folder, &link).attempt("create", &link)?;
        create_passable(&folder)?;
        Ok(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder);
        // The lock file last: it is what makes leftovers be found.
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Removes the scratch folders in `parent` whose build is gone. What cannot be removed now is
/// tried again next time.
pub(crate) fn remove_dead(parent: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(parent).attempt("list", parent)? {
        let path = entry.attempt("list", parent)?.path();
        let is_lock = path.extension().is_some_and(|extension| extension == "lock");
        if !is_lock {
            if !path.with_extension("lock").exists() {
                remove(&path);
            }
            continue;
        }
        let Ok(file) = fs::File::open(&path) else {
            continue;
        };
        if let Ok(_lock) = try_lock(file) {
            remove(&path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Removes a scratch folder and the work folder it links to. The link goes after the folder it
/// leads to, which would otherwise be forgotten.
fn remove(folder: &Path) {
    if let Ok(target) = fs::read_link(folder.join(WORK_LINK)) {
        let name = target.file_name().unwrap_or_default();
        let ours = name.to_string_lossy().starts_with(WORK_PREFIX) && is_own(&target);
        if ours && !remove_tree(&target) {
            return;
        }
    }
    if is_own(folder) {
        remove_tree(folder);
    }
}

/// Removes a tree, parts of which may belong to our subordinate users; says whether it is gone.
fn remove_tree(folder: &Path) -> bool {
    if fs::remove_dir_all(folder).is_ok() {
        return true;
    }
    command::remove_in_namespace(folder);
    fs::remove_dir_all(folder).is_ok()
}

fn is_own(folder: &Path) -> bool {
    let owner = fs::symlink_metadata(folder).map(|metadata| metadata.uid());
    owner.is_ok_and(|owner| owner == nix::unistd::geteuid().as_raw())
}

/// Makes a folder everybody may pass through and only we may write to.
fn create_passable(folder: &Path) -> Result<(), FileError> {
    fs::create_dir(folder).attempt("create", folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o755)).attempt("create", folder)
}

fn others_pass(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else {
        return false;
    };
    folder
        .ancestors()
        .all(|folder| fs::metadata(folder).is_ok_and(|metadata| metadata.mode() & OTHERS_PASS != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_scratch_folder_goes_with_its_value() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        let work = scratch.work().unwrap();
        fs::write(work.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!work.exists());
        assert_eq!(entries(parent.path()), 0);
    }

    #[test]
    fn a_living_build_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        remove_dead(parent.path()).unwrap();
        assert!(scratch.image().exists());
    }

    #[test]
    fn what_a_killed_build_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let work = elsewhere.path().join(format!("{WORK_PREFIX}x"));
        let dead = parent.path().join("build-x");
        fs::create_dir_all(dead.join("image")).unwrap();
        fs::create_dir_all(work.join("root")).unwrap();
        symlink(&work, dead.join(WORK_LINK)).unwrap();
        fs::write(dead.with_extension("lock"), "").unwrap();
        fs::create_dir(parent.path().join("build-without-lock")).unwrap();
        remove_dead(parent.path()).unwrap();
        assert_eq!(entries(parent.path()), 0);
        assert!(!work.exists());
    }

    #[test]
    fn a_link_to_somewhere_else_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let precious = tempfile::tempdir().unwrap();
        let dead = parent.path().join("build-x");
        fs::create_dir(&dead).unwrap();
        symlink(precious.path(), dead.join(WORK_LINK)).unwrap();
        remove_dead(parent.path()).unwrap();
        assert!(precious.path().exists());
        assert!(!dead.exists());
    }
}
