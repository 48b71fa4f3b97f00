//! The folder of all volumes: making, finding, listing and removing them.
//!
//! A volume is a folder `COMPARTMENT/VOLUME`. It is made under a name beginning with `.new-` and
//! renamed when all of it is on the disk; it is removed by renaming it to `.deleted-…` first.
//! Whoever next makes or removes a volume finishes what a killed predecessor left of either: such a
//! folder is a leftover when nobody has its lock.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use casemate_config::{CompartmentName, Volume, VolumeName};
use casemate_host::durable;
use casemate_host::lock::{self, Holder};
use nix::fcntl::{Flock, FlockArg};

use crate::error::{VolumeError, VolumeId, files};
use crate::folder::{erase, finish, names, private_file, scratch, synced, take};
use crate::key::{self, Unlock};
use crate::luks;
use crate::protection::Protection;
use crate::record::{KeyKind, Record, Snapshot};
use crate::volume::{HEADER, LOCK, LockedVolume, RECORD};

/// Names of folders that are becoming volumes begin so.
const NEW: &str = ".new-";
/// Names of folders that were volumes begin so.
const DELETED: &str = ".deleted-";

/// All volumes of a user, or of the system.
#[derive(Debug, Clone)]
pub struct Volumes {
    directory: PathBuf,
}

/// A volume that was found.
#[derive(Debug)]
pub struct Listed {
    /// Which.
    pub id: VolumeId,
    /// What is known of it, or why nothing is.
    pub state: Result<Summary, VolumeError>,
}

/// What is known of a volume without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Bytes offered to the guest.
    pub size: u64,
    /// Bytes it takes on the disk, snapshots included.
    pub allocated: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// What opens it.
    pub key: KeyKind,
    /// From whom that protects it; none when that could not be told.
    pub protection: Option<Protection>,
    /// Who has it, if anybody.
    pub holder: Option<Holder>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
}

impl Volumes {
    /// Those in the folder `volumes` of this data directory. Makes and looks at nothing yet.
    pub fn at(data: &Path) -> Self {
        Self { directory: data.join("volumes") }
    }

    /// Makes a volume with nothing in it; takes no space but its header's. What opens it is made
    /// too where it is not there (`unlock` says how).
    ///
    /// # Errors
    /// See [`VolumeError`]; there is no part of a volume then.
    pub fn create(
        &self,
        compartment: &CompartmentName,
        volume: &Volume,
        unlock: &Unlock<'_>,
    ) -> Result<(), VolumeError> {
        let id = VolumeId { compartment: compartment.clone(), volume: volume.name.clone() };
        self.build(&id, |folder| {
            let size = volume.size.bytes();
            let record = Record::new(size, now(), KeyKind::from(&volume.key));
            record.check().map_err(|_| VolumeError::BadSize(id.clone(), volume.size))?;
            let payload = folder.join(Record::file(0));
            private_file(&payload)
                .and_then(|file| file.set_len(size).and_then(|()| file.sync_all()))
                .map_err(files("make", &payload))?;
            let (secret, stretching) = key::make(&volume.key, unlock, folder)?;
            let header = folder.join(HEADER);
            luks::format(&header, &payload, &secret, stretching)?;
            synced(&header)?;
            Ok(durable::store(&folder.join(RECORD), &record)?)
        })
    }

    /// Takes a volume: nobody else can until the result is dropped, or the process ends. Removes
    /// what a killed operation left in it.
    ///
    /// # Errors
    /// [`VolumeError::NotThere`], [`VolumeError::InUse`], or it is damaged.
    pub fn lock(
        &self,
        compartment: &CompartmentName,
        volume: &VolumeName,
    ) -> Result<LockedVolume, VolumeError> {
        let id = VolumeId { compartment: compartment.clone(), volume: volume.clone() };
        let folder = self.folder(&id);
        let lock = take(&id, &folder)?;
        LockedVolume::open(id, folder, lock)
    }

    /// All volumes, sorted. Takes none of them. `identity` is the file with the age identity.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self, identity: &Path) -> Result<Vec<Listed>, VolumeError> {
        let mut listed = Vec::new();
        for compartment in names::<CompartmentName>(&self.directory)? {
            for volume in names::<VolumeName>(&self.directory.join(compartment.as_str()))? {
                let id = VolumeId { compartment: compartment.clone(), volume };
                let state = self.summary(&id, identity);
                listed.push(Listed { id, state });
            }
        }
        listed.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(listed)
    }

    /// Removes a volume and its snapshots. The key goes first: the header is overwritten, and on
    /// the disk so, before anything else is removed. Works for a damaged volume too.
    ///
    /// # Errors
    /// [`VolumeError::NotThere`], [`VolumeError::InUse`], or a file cannot be removed; the rest is
    /// removed at the next attempt to make or remove any volume.
    pub fn delete(
        &self,
        compartment: &CompartmentName,
        volume: &VolumeName,
    ) -> Result<(), VolumeError> {
        let id = VolumeId { compartment: compartment.clone(), volume: volume.clone() };
        let folder = self.folder(&id);
        let _changing = self.changing()?;
        self.finish_killed();
        let _lock = take(&id, &folder)?;
        let parent = self.directory.join(compartment.as_str());
        let grave = scratch(&parent, DELETED)?.keep();
        fs::rename(&folder, &grave).map_err(files("remove", &folder))?;
        synced(&parent)?;
        erase(&grave)?;
        // Only when it was the last one.
        let _ = fs::remove_dir(&parent);
        Ok(())
    }

    /// Finishes what killed operations left of making and removing volumes; returns how many
    /// folders that were. [`Self::create`] and [`Self::delete`] do the same.
    ///
    /// # Errors
    /// The folder cannot be locked.
    pub fn sweep(&self) -> Result<usize, VolumeError> {
        let _changing = self.changing()?;
        Ok(self.finish_killed())
    }

    /// Makes a folder, lets `fill` fill it, and gives it its name when all of it is on the disk.
    pub(crate) fn build(
        &self,
        id: &VolumeId,
        fill: impl FnOnce(&Path) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let (folder, parent) = (self.folder(id), self.directory.join(id.compartment.as_str()));
        let changing = self.changing()?;
        self.finish_killed();
        if folder.symlink_metadata().is_ok() {
            return Err(VolumeError::Exists(id.clone()));
        }
        let made = DirBuilder::new().mode(0o700).create(&parent);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(files("make", &parent)(error));
            }
            _ => {}
        }
        let new = scratch(&parent, NEW)?;
        let _lock = take(id, new.path())?;
        drop(changing);
        let filled = fill(new.path()).and_then(|()| synced(new.path())).and_then(|()| {
            fs::rename(new.path(), &folder).map_err(|error| match error.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                    VolumeError::Exists(id.clone())
                }
                _ => files("make", &folder)(error),
            })
        });
        if let Err(error) = filled {
            drop(new);
            let _ = fs::remove_dir(&parent);
            return Err(error);
        }
        // It is a volume now, and not to be removed with its old name.
        let _ = new.keep();
        synced(&parent)
    }

    fn folder(&self, id: &VolumeId) -> PathBuf {
        self.directory.join(id.compartment.as_str()).join(id.volume.as_str())
    }

    /// Waits until nobody else makes or removes a folder; they take milliseconds.
    fn changing(&self) -> Result<Flock<File>, VolumeError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.directory).map_err(files("make", &self.directory))?;
        let path = self.directory.join(".lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(files("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| files("lock", &path)(errno.into()))
    }

    /// Removes leftovers whose lock nobody has. What cannot be removed now stays for the next time:
    /// it must not keep volumes from being made.
    fn finish_killed(&self) -> usize {
        let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        let mut count = 0;
        for entry in folders(&self.directory).flat_map(|entry| folders(&entry.path())) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with(NEW) && !name.starts_with(DELETED) {
                continue;
            }
            let path = entry.path();
            count += usize::from(finish(&path));
        }
        count
    }

    fn summary(&self, id: &VolumeId, identity: &Path) -> Result<Summary, VolumeError> {
        let folder = self.folder(id);
        let path = folder.join(RECORD);
        let record: Option<Record> = durable::load(&path)?;
        let damaged = |why| VolumeError::Damaged { id: id.clone(), why };
        let record = record.ok_or_else(|| damaged("its volume.json is missing"))?;
        record.check().map_err(damaged)?;
        let mut allocated = 0;
        for name in record.layers.keys().map(|number| Record::file(*number)).chain([HEADER.into()])
        {
            let path = folder.join(name);
            let found = fs::symlink_metadata(&path).map_err(files("look at", &path))?;
            allocated += found.blocks() * 512;
        }
        let lock = folder.join(LOCK);
        let mut snapshots: Vec<_> =
            record.snapshots().map(|(_, snapshot)| snapshot.clone()).collect();
        snapshots.sort_by_key(|snapshot| snapshot.taken);
        Ok(Summary {
            size: record.size,
            allocated,
            created: record.created,
            protection: Protection::of(&record.key, identity, &folder).ok(),
            key: record.key,
            holder: lock::holder(&lock).map_err(files("look at", &lock))?,
            snapshots,
        })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    casemate_host::clock::now_ns() / 1_000_000_000
}
