//! Memories of guests that were kept with snapshots: files encrypted with age, and what each is of.
//!
//! ```text
//! memory/COMPARTMENT/SNAPSHOT.age     what QEMU writes, encrypted on its way; never plain on a disk
//!                    SNAPSHOT.json    whose it is, and of which machine
//!                    .new-…           becoming one; a leftover when nobody makes it
//! ```
//! A memory is there when its `.age` file is: that is renamed into place when it is whole and on the
//! disk, after its `.json`. It counts only together with the snapshots of the volumes that were taken
//! at the same moment ([`Record::is_whole`]): a memory whose volumes do not have them was being kept
//! when something was killed, and is none.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use casemate_config::CompartmentName;
use casemate_host::durable;
use nix::libc;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::error::{VolumeError, files};
use crate::folder::synced;
use crate::name::SnapshotName;
use crate::protection::Protection;
use crate::record::KeyKind;
use crate::volume::LockedVolume;

/// Bytes at the beginning of an encrypted file that hold its key: without them nobody can decrypt the
/// rest. One recipient takes some 200.
const HEAD: usize = 4096;

/// Names of files that are becoming memories begin so.
const NEW: &str = ".new-";

/// What a memory is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// When the snapshot was taken, in seconds since 1970; those of the volumes have the same.
    pub taken: u64,
    /// Bytes of the encrypted file.
    pub bytes: u64,
    /// Names of the volumes whose snapshots were taken with it.
    pub volumes: Vec<String>,
    /// The machine whose memory it is: what has to be the same for it to go on, by name.
    pub machine: Vec<(String, String)>,
}

impl Record {
    /// Whether the snapshots taken with it are there: `has` tells whether a volume has one of this
    /// time.
    pub fn is_whole(&self, has: impl Fn(&str, u64) -> bool) -> bool {
        self.volumes.iter().all(|volume| has(volume, self.taken))
    }

    /// The same, for volumes that the caller has.
    pub fn is_whole_with(&self, name: &SnapshotName, volumes: &[&LockedVolume]) -> bool {
        self.is_whole(|volume, taken| {
            let found = volumes.iter().find(|one| one.id().volume.as_str() == volume);
            found.is_some_and(|one| {
                one.snapshots().iter().any(|one| one.name == *name && one.taken == taken)
            })
        })
    }
}

/// The kept memories of one compartment.
#[derive(Clone, Debug)]
pub struct Memories {
    folder: PathBuf,
}

/// A memory that is being kept. Dropping it removes what there is of it.
#[derive(Debug)]
pub struct NewMemory {
    memories: Memories,
    name: SnapshotName,
    file: NamedTempFile,
}

impl Memories {
    /// Those in the folder `memory` of this data directory. Makes and looks at nothing yet.
    pub fn of(data: &Path, compartment: &CompartmentName) -> Self {
        Self { folder: data.join("memory").join(compartment.as_str()) }
    }

    /// The encrypted file of a snapshot's memory.
    pub fn file(&self, name: &SnapshotName) -> PathBuf {
        self.folder.join(format!("{name}.age"))
    }

    /// What their encryption is worth to somebody who has the disk, when the age identity is in the
    /// file `identity`.
    ///
    /// # Errors
    /// The identity or the folder cannot be looked at.
    pub fn protection(&self, identity: &Path) -> io::Result<Protection> {
        Protection::of(&KeyKind::Age(identity.into()), identity, &self.folder)
    }

    fn record_file(&self, name: &SnapshotName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// Begins to keep one.
    ///
    /// # Errors
    /// There is one of this name, or no file can be made.
    pub fn begin(&self, name: &SnapshotName) -> Result<NewMemory, VolumeError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.folder);
        made.map_err(files("make", &self.folder))?;
        self.sweep();
        if self.file(name).symlink_metadata().is_ok() {
            return Err(VolumeError::MemoryExists(name.clone()));
        }
        let file = tempfile::Builder::new()
            .prefix(NEW)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)
            .map_err(files("make a file in", &self.folder))?;
        Ok(NewMemory { memories: self.clone(), name: name.clone(), file })
    }

    /// The memory kept with this snapshot; none when there is none.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn find(&self, name: &SnapshotName) -> Result<Option<Record>, VolumeError> {
        let path = self.file(name);
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(files("look at", &path))?,
        };
        let record = self.record_file(name);
        let found = durable::load(&record)?;
        found.map(Some).ok_or(io::ErrorKind::NotFound.into()).map_err(files("read", &record))
    }

    /// All that are there.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<(SnapshotName, Record)>, VolumeError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(files("read", &self.folder))?,
        };
        let name = |entry: fs::DirEntry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(".age")?.parse::<SnapshotName>().ok()
        };
        let mut found = Vec::new();
        for name in entries.flatten().filter_map(name) {
            if let Some(record) = self.find(&name)? {
                found.push((name, record));
            }
        }
        found.sort_by_key(|(name, record)| (record.taken, name.clone()));
        Ok(found)
    }

    /// Opens the encrypted file.
    ///
    /// # Errors
    /// It cannot be read, or is shorter or longer than what was written.
    pub fn open(&self, name: &SnapshotName, record: &Record) -> Result<File, VolumeError> {
        let path = self.file(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = file.map_err(files("open", &path))?;
        let bytes = file.metadata().map_err(files("look at", &path))?.len();
        if bytes != record.bytes {
            return Err(VolumeError::MemoryDamaged { path, bytes, expected: record.bytes });
        }
        Ok(file)
    }

    /// Removes a memory. What it can be decrypted with is overwritten first.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub fn delete(&self, name: &SnapshotName) -> Result<(), VolumeError> {
        let path = self.file(name);
        let mut options = OpenOptions::new();
        match options.write(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => {
                let overwrite = |mut file: File| {
                    let length = file.metadata()?.len().min(HEAD as u64) as usize;
                    file.write_all(&[0; HEAD][..length])?;
                    file.sync_all()
                };
                opened.and_then(overwrite).map_err(files("overwrite", &path))?;
                fs::remove_file(&path).map_err(files("remove", &path))?;
            }
        }
        match fs::remove_file(self.record_file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(files("remove", &self.record_file(name))(error));
            }
            _ => {}
        }
        // Only when it was the last one.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }

    /// Removes what killed operations have left. Only who has the compartment may call it.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let alone = name
                .strip_suffix(".json")
                .is_some_and(|name| !self.folder.join(format!("{name}.age")).exists());
            if name.starts_with(NEW) || alone {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Asks the next start to go back to this snapshot and go on from its memory.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn want(&self, name: &SnapshotName) -> Result<(), VolumeError> {
        Ok(durable::store(&self.wish(), name)?)
    }

    /// What the next start is asked for.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn wanted(&self) -> Result<Option<SnapshotName>, VolumeError> {
        Ok(durable::load(&self.wish())?)
    }

    /// The next start is asked for nothing any more.
    ///
    /// # Errors
    /// The wish cannot be removed.
    pub fn forget_wish(&self) -> Result<(), VolumeError> {
        match fs::remove_file(self.wish()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(files("remove", &self.wish())(error))
            }
            Err(_) => Ok(()),
            Ok(()) => synced(&self.folder),
        }
    }

    fn wish(&self) -> PathBuf {
        // No snapshot can be called so.
        self.folder.join(".revert")
    }
}

impl NewMemory {
    /// The file the encrypted memory is written to.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn output(&self) -> io::Result<File> {
        self.file.as_file().try_clone()
    }

    /// Makes sure of what was written, before the volumes go over. Returns its length in bytes.
    ///
    /// # Errors
    /// It cannot be written to the disk.
    pub fn sync(&self) -> Result<u64, VolumeError> {
        let file = self.file.as_file();
        let synced = file.sync_all().and_then(|()| file.metadata());
        Ok(synced.map_err(files("write", self.file.path()))?.len())
    }

    /// The memory is there from now on.
    ///
    /// # Errors
    /// It cannot be given its name; nothing is left of it then.
    pub fn keep(
        self,
        taken: u64,
        volumes: Vec<String>,
        machine: Vec<(String, String)>,
    ) -> Result<(), VolumeError> {
        let record = Record { taken, bytes: self.sync()?, volumes, machine };
        let path = self.memories.file(&self.name);
        durable::store(&self.memories.record_file(&self.name), &record)?;
        if let Err(error) = self.file.persist_noclobber(&path) {
            let _ = fs::remove_file(self.memories.record_file(&self.name));
            return Err(files("write", &path)(error.error));
        }
        synced(&self.memories.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memories() -> (tempfile::TempDir, Memories) {
        let data = tempfile::tempdir().expect("a directory");
        let memories = Memories::of(data.path(), &"work".parse().expect("a name"));
        (data, memories)
    }

    fn name() -> SnapshotName {
        "before".parse().expect("a name")
    }

    #[test]
    fn a_memory_is_there_when_it_is_kept_and_not_before() {
        let (_data, memories) = memories();
        let new = memories.begin(&name()).expect("begun");
        new.output().expect("a file").write_all(b"secret").expect("written");
        assert!(memories.list().expect("listed").is_empty());
        let machine = vec![("qemu".to_owned(), "7.2.0".to_owned())];
        new.keep(17, vec!["data".into()], machine.clone()).expect("kept");
        let record = memories.find(&name()).expect("read").expect("there");
        assert_eq!((record.bytes, &record.machine), (6, &machine));
        assert!(record.is_whole(|volume, taken| (volume, taken) == ("data", 17)));
        assert!(!record.is_whole(|_, taken| taken == 18));
        let mode = fs::metadata(memories.file(&name())).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(memories.begin(&name()), Err(VolumeError::MemoryExists(_))));
        assert_eq!(memories.list().expect("listed").len(), 1);
        memories.delete(&name()).expect("deleted");
        assert_eq!(memories.find(&name()).expect("looked"), None);
        assert!(!memories.folder.exists());
    }

    #[test]
    fn what_a_kill_left_goes_with_the_next() {
        let (_data, memories) = memories();
        let new = memories.begin(&name()).expect("begun");
        let (_, path) = new.file.keep().expect("as after a kill");
        fs::write(memories.record_file(&name()), "{}").expect("written");
        assert_eq!(memories.find(&name()).expect("looked"), None);
        drop(memories.begin(&name()).expect("begun"));
        assert!(!path.exists() && !memories.record_file(&name()).exists());
        assert_eq!(fs::read_dir(&memories.folder).expect("listed").count(), 0);
    }

    #[test]
    fn a_file_that_was_cut_is_not_opened() {
        let (_data, memories) = memories();
        let new = memories.begin(&name()).expect("begun");
        new.output().expect("a file").write_all(&[1; 100]).expect("written");
        new.keep(17, vec![], vec![]).expect("kept");
        let record = memories.find(&name()).expect("read").expect("there");
        assert!(memories.open(&name(), &record).is_ok());
        let file = OpenOptions::new().write(true).open(memories.file(&name())).expect("there");
        file.set_len(99).expect("cut");
        let error = memories.open(&name(), &record).expect_err("cut").to_string();
        assert!(error.contains("99") && error.contains("100"), "{error}");
    }

    #[test]
    fn a_wish_is_kept_until_it_is_forgotten() {
        let (_data, memories) = memories();
        assert_eq!(memories.wanted().expect("looked"), None);
        drop(memories.begin(&name()).expect("begun"));
        memories.want(&name()).expect("written");
        assert_eq!(memories.wanted().expect("read"), Some(name()));
        memories.sweep();
        memories.forget_wish().expect("removed");
        memories.forget_wish().expect("nothing to remove");
        assert_eq!(memories.wanted().expect("looked"), None);
    }
}
