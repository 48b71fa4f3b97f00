//! Small files that must survive: replaced as a whole or not at all, and changed under a lock.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a file could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// It cannot be written: the source tells a full disk ([`io::ErrorKind::StorageFull`]) from a
    /// read-only file system and from a missing permission.
    #[error("could not write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be read.
    #[error("could not read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("could not understand {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Its lock cannot be had.
    #[error("could not lock {path}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Replaces a file by `content` with mode `mode`. After a crash there is the old one or the new
/// one: written aside, synced, renamed, and the directory synced. The directory must exist.
///
/// # Errors
/// [`DurableError::Write`]; the old file is untouched.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), DurableError> {
    let write = || -> io::Result<()> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut aside = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory)?;
        aside.write_all(content)?;
        aside.as_file().sync_all()?;
        aside.persist(path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| DurableError::Write { path: path.into(), source })
}

/// Reads a JSON file; none when there is none.
///
/// # Errors
/// [`DurableError::Read`], [`DurableError::Parse`].
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DurableError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| DurableError::Parse { path: path.into(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DurableError::Read { path: path.into(), source }),
    }
}

/// Changes a JSON file while nobody else does: reads it (the default when there is none), lets
/// `change` change it, and writes it back, mode 0600, if it changed. Returns what `change` returns.
///
/// Everybody who changes it must come this way: the lock is `PATH.lock` beside it, which stays.
///
/// # Errors
/// See [`DurableError`]; the file is untouched.
pub fn update<T, R>(path: &Path, change: impl FnOnce(&mut T) -> R) -> Result<R, DurableError>
where
    T: DeserializeOwned + Serialize + Default + PartialEq + Clone,
{
    let _lock = lock(path)?;
    let before: T = load(path)?.unwrap_or_default();
    let mut value = before.clone();
    let result = change(&mut value);
    if value != before || !path.exists() {
        store(path, &value)?;
    }
    Ok(result)
}

/// Replaces a file by a value as JSON, mode 0600.
///
/// # Errors
/// [`DurableError::Write`].
pub fn store<T: Serialize>(path: &Path, value: &T) -> Result<(), DurableError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| DurableError::Write { path: path.into(), source: error.into() })?;
    text.push(b'\n');
    replace(path, &text, 0o600)
}

/// Waits for the lock of a file and takes it. Holders keep it for milliseconds.
fn lock(path: &Path) -> Result<Flock<File>, DurableError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let error = |source| DurableError::Lock { path: name.clone(), source };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&name);
    Flock::lock(file.map_err(error)?, FlockArg::LockExclusive)
        .map_err(|(_, errno)| error(errno.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix::mount::MsFlags;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    type Ids = BTreeMap<String, u32>;

    #[test]
    fn changes_from_many_threads_are_all_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ids.json");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for turn in 0..10 {
                        let name = format!("{thread}-{turn}");
                        update(path, |ids: &mut Ids| {
                            let next = ids.len() as u32 + 1;
                            *ids.entry(name).or_insert(next)
                        })
                        .expect("updated");
                    }
                });
            }
        });
        let ids: Ids = load(&path).expect("read").expect("there");
        let mut numbers: Vec<u32> = ids.into_values().collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=40).collect::<Vec<u32>>());
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left = fs::read_dir(directory.path()).expect("listed").count();
        assert_eq!(left, 2, "the file and its lock");
    }

    #[test]
    fn damaged_file_is_named_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ids.json");
        fs::write(&path, "{").expect("written");
        let error = update(&path, |ids: &mut Ids| ids.clear()).expect_err("damaged");
        assert_eq!(error.to_string(), format!("could not understand {}", path.display()));
        assert_eq!(fs::read_to_string(&path).expect("read"), "{");
    }

    #[test]
    fn full_and_read_only_disks_are_told_apart_and_keep_the_old_file() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: mounting a small file system needs root");
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ids.json");
        let mount = |flags: MsFlags, options: Option<&str>| {
            let none = None::<&str>;
            nix::mount::mount(none, directory.path(), Some("tmpfs"), flags, options)
                .expect("mounted");
        };
        // The mounts are this thread's alone.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
        mount(MsFlags::empty(), Some("size=16k"));
        replace(&path, b"old", 0o600).expect("written");

        let kind = |error: DurableError| match error {
            DurableError::Write { source, .. } => source.kind(),
            other => panic!("{other}"),
        };
        let full = replace(&path, &[b'x'; 1 << 16], 0o600).expect_err("full");
        assert_eq!(kind(full), io::ErrorKind::StorageFull);
        mount(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None);
        let read_only = replace(&path, b"new", 0o600).expect_err("read-only");
        assert_eq!(kind(read_only), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(fs::read(&path).expect("read"), b"old");
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }
}
