//! The directory of one running compartment: private, locked by its supervisor for as long as that
//! lives, cleared of what a killed predecessor left.
//!
//! The lock is the file `lock` ([`crate::lock`]), which says who holds it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

pub use crate::lock::Holder;
use crate::lock::{self, Lock, Taking};

/// The name of the lock file.
const LOCK: &str = "lock";

/// A locked directory of a running compartment.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    /// Held until it is dropped.
    lock: Lock,
}

/// What a supervisor that did not end in order left behind. It has been removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    /// Whose it was, if that could be read.
    pub holder: Option<Holder>,
    /// The names of the files, sorted.
    pub files: Vec<String>,
}

/// Why the directory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another supervisor has it.
    #[error("could not lock {path}: process {} has it", holder.map_or("unknown".into(), |holder| holder.pid.to_string()))]
    Taken {
        /// The directory.
        path: PathBuf,
        /// Who.
        holder: Option<Holder>,
    },
    /// The directory is somebody else's.
    #[error("could not use {0}: it is somebody else's, or no directory")]
    NotOurs(PathBuf),
    /// The file system refused.
    #[error("could not {verb} {path}")]
    Files {
        /// What was to be done.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl RunDirectory {
    /// Makes the directory (mode 0700) if it is not there, locks it and clears it.
    ///
    /// # Errors
    /// See [`RunDirError`].
    pub fn claim(path: &Path) -> Result<(Self, Option<Leftovers>), RunDirError> {
        let error = |verb| move |source| RunDirError::Files { verb, path: path.into(), source };
        loop {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error("make")(source));
                }
                _ => {}
            }
            let found = match fs::symlink_metadata(path) {
                // Its holder has just removed it.
                Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(error("look at"))?,
            };
            if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
                return Err(RunDirError::NotOurs(path.into()));
            }
            let lock = match Lock::take(&path.join(LOCK)) {
                // The holder removed the directory between the two calls.
                Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(error("lock"))?,
            };
            let lock = match lock {
                Taking::Ours(lock) => lock,
                Taking::Theirs(holder) => {
                    return Err(RunDirError::Taken { path: path.into(), holder });
                }
            };
            let before = lock.previous();
            let mut claimed = Self { path: path.into(), lock };
            let files = claimed.clear().map_err(error("clear"))?;
            claimed.lock.sign().map_err(error("sign the lock of"))?;
            let left = before.is_some() || !files.is_empty();
            return Ok((claimed, left.then_some(Leftovers { holder: before, files })));
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory with everything in it, and lets go of the lock.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn remove(mut self) -> Result<(), RunDirError> {
        let path = self.path.clone();
        let error = |source| RunDirError::Files { verb: "remove", path: path.clone(), source };
        self.clear().and_then(|_| fs::remove_file(self.path.join(LOCK))).map_err(&error)?;
        match fs::remove_dir(&self.path) {
            // The next one claims it already.
            Err(source) if source.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other.map_err(error),
        }
    }

    /// Removes everything but the lock and returns the names.
    fn clear(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() == LOCK {
                continue;
            }
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

/// Who runs the compartment with this directory; none when nobody does. Takes nothing.
///
/// # Errors
/// The lock is there and cannot be looked at.
pub fn holder(path: &Path) -> Result<Option<Holder>, RunDirError> {
    let error =
        |source| RunDirError::Files { verb: "look at the lock of", path: path.into(), source };
    lock::holder(&path.join(LOCK)).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets;

    #[test]
    fn directory_is_locked_and_leaves_nothing() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("banking");
        assert_eq!(holder(&path).expect("asked"), None);
        let (claimed, left) = RunDirectory::claim(&path).expect("claimed");
        assert_eq!(left, None);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
        sockets::listen(&path.join("control")).expect("listening");

        let holder = holder(&path).expect("asked").expect("held");
        assert_eq!(holder.pid, std::process::id());
        match RunDirectory::claim(&path) {
            Err(RunDirError::Taken { holder: Some(other), .. }) => assert_eq!(other, holder),
            other => panic!("{other:?}"),
        }
        claimed.remove().expect("removed");
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_supervisor_left_is_removed_and_told() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("banking");
        let (claimed, _) = RunDirectory::claim(&path).expect("claimed");
        sockets::listen(&path.join("control")).expect("listening");
        fs::create_dir(path.join("sub")).expect("made");
        fs::write(path.join("sub/file"), "x").expect("written");
        // As kill -9 would: the descriptor goes, the files stay.
        drop(claimed);
        assert_eq!(holder(&path).expect("asked"), None);

        let (_claimed, left) = RunDirectory::claim(&path).expect("claimed");
        let left = left.expect("told");
        assert_eq!(left.holder.expect("read").pid, std::process::id());
        assert_eq!(left.files, ["control", "sub"]);
        assert!(!path.join("control").exists());
    }

    #[test]
    fn of_many_claims_one_wins() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("banking");
        for _ in 0..50 {
            let claims: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| RunDirectory::claim(&path))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            let mut won: Vec<_> = claims.into_iter().filter_map(Result::ok).collect();
            assert_eq!(won.len(), 1);
            won.remove(0).0.remove().expect("removed");
        }
    }
}
