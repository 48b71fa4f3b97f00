//! One volume that is ours: its key, its layers, its size.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use casemate_config::{DiskFormat, KeySource, Size};
use casemate_host::durable;
use casemate_host::lock::Lock;
use nix::libc;

use crate::error::{VolumeError, VolumeId, files};
use crate::key::{self, KeyError, Unlock};
use crate::luks::{self, LuksError};
use crate::qcow2;
use crate::record::{KeyKind, Record};
use crate::secret::VolumeKey;

/// The lock of a volume's folder.
pub(crate) const LOCK: &str = "lock";
/// What is true of the volume.
pub(crate) const RECORD: &str = "volume.json";
/// The LUKS2 header, which no guest sees.
pub(crate) const HEADER: &str = "header.luks";

/// A volume nobody else can take until this is dropped.
#[derive(Debug)]
pub struct LockedVolume {
    pub(crate) id: VolumeId,
    pub(crate) folder: PathBuf,
    pub(crate) record: Record,
    pub(crate) lock: Lock,
}

/// A file the guest's disk is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its format, never to be probed. The headers name no backing file: each layer stands on the
    /// one before, and whoever opens it must be told so.
    pub format: DiskFormat,
    /// All but the last are only read.
    pub read_only: bool,
}

impl LockedVolume {
    pub(crate) fn open(id: VolumeId, folder: PathBuf, lock: Lock) -> Result<Self, VolumeError> {
        let record: Option<Record> = durable::load(&folder.join(RECORD))?;
        let damaged = |why| VolumeError::Damaged { id: id.clone(), why };
        let record = record.ok_or_else(|| damaged("its volume.json is missing"))?;
        record.check().map_err(damaged)?;
        let mut volume = Self { id, folder, record, lock };
        volume.settle()?;
        volume.remove_leftovers()?;
        // Growing that was killed is finished; if it cannot be now, the guest sees the old size.
        let _ = volume.grow_active();
        Ok(volume)
    }

    /// Which it is.
    pub fn id(&self) -> &VolumeId {
        &self.id
    }

    /// Bytes offered to the guest.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Whether it must be formatted before it can be mounted: told by the host, because a guest
    /// that guesses from what it reads could format over data it failed to read.
    pub fn is_blank(&self) -> bool {
        self.record.blank
    }

    /// Keeps that there is a file system in it now.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn set_formatted(&mut self) -> Result<(), VolumeError> {
        if !self.record.blank {
            return Ok(());
        }
        self.change(|record| record.blank = false)
    }

    /// The key of its data. `source` is what the configuration says opens it.
    ///
    /// # Errors
    /// [`VolumeError::is_wrong_passphrase`] tells what asking again can help against.
    pub fn open_key(
        &self,
        source: &KeySource,
        unlock: &Unlock<'_>,
    ) -> Result<VolumeKey, VolumeError> {
        let asked = KeyKind::from(source);
        if !asked.is_like(&self.record.key) {
            let made = self.record.key.clone();
            return Err(VolumeError::OtherKind { id: self.id.clone(), asked, made });
        }
        let secret = key::fetch(source, unlock, &self.folder)?;
        luks::key(&self.folder.join(HEADER), &secret).map_err(|error| match (error, source) {
            (LuksError::Wrong(_), KeySource::Passphrase) => {
                KeyError::Wrong(self.folder.clone()).into()
            }
            (LuksError::Wrong(_), _) => VolumeError::OtherKey(self.id.clone()),
            (other, _) => other.into(),
        })
    }

    /// The files the guest's disk is made of, from the lowest up; the headers have been checked.
    ///
    /// # Errors
    /// A layer is missing, or was tampered with.
    pub fn layers(&self) -> Result<Vec<LayerFile>, VolumeError> {
        self.branch(self.record.active)
    }

    /// Grows it to `size`; the file system in it is the guest's to grow. A VM that has it open must
    /// be told (`block_resize`).
    ///
    /// # Errors
    /// [`VolumeError::Shrink`], or the disk is full; it has its old size then.
    pub fn resize(&mut self, size: Size) -> Result<(), VolumeError> {
        let (from, to) = (self.record.size, size.bytes());
        if to < from {
            return Err(VolumeError::Shrink { id: self.id.clone(), from, to });
        }
        if to == from {
            return Ok(());
        }
        let grown = Record { size: to, ..self.record.clone() };
        grown.check().map_err(|_| VolumeError::BadSize(self.id.clone(), size))?;
        self.change(|record| record.size = to)?;
        if let Err(error) = self.grow_active() {
            self.change(|record| record.size = from)?;
            return Err(error);
        }
        Ok(())
    }

    /// A layer and all it stands on, from the lowest up, checked.
    pub(crate) fn branch(&self, top: u32) -> Result<Vec<LayerFile>, VolumeError> {
        let mut layers = Vec::new();
        for number in self.record.branch(top) {
            let path = self.file(number);
            let format = if number == 0 { DiskFormat::Raw } else { DiskFormat::Qcow2 };
            match format {
                DiskFormat::Qcow2 => drop(qcow2::check(&path, self.record.size)?),
                _ => drop(self.raw_length(&path)?),
            }
            layers.push(LayerFile { path, format, read_only: number != top });
        }
        Ok(layers)
    }

    /// Changes what is true of it, on the disk first.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), VolumeError> {
        let mut record = self.record.clone();
        change(&mut record);
        debug_assert_eq!(record.check(), Ok(()));
        durable::store(&self.folder.join(RECORD), &record)?;
        self.record = record;
        Ok(())
    }

    /// The file of a layer.
    pub(crate) fn file(&self, number: u32) -> PathBuf {
        self.folder.join(Record::file(number))
    }

    /// Removes layers that are not in the record, and files that were being written.
    pub(crate) fn remove_leftovers(&self) -> Result<(), VolumeError> {
        let prepared = self.record.prepared.as_ref().map(|_| &self.record.next);
        let numbers = self.record.layers.keys().chain(prepared);
        let known: HashSet<String> = numbers.map(|number| Record::file(*number)).collect();
        for entry in fs::read_dir(&self.folder).map_err(files("read", &self.folder))? {
            let entry = entry.map_err(files("read", &self.folder))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let layer =
                name.strip_suffix(".qcow2").is_some_and(|number| number.parse::<u32>().is_ok());
            if name.starts_with(".new-") || (layer && !known.contains(name.as_ref())) {
                let path = entry.path();
                fs::remove_file(&path).map_err(files("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Makes the active layer as large as the volume.
    pub(crate) fn grow_active(&self) -> Result<(), VolumeError> {
        let (path, size) = (self.file(self.record.active), self.record.size);
        if self.record.active != 0 {
            return match qcow2::check(&path, size)?.size < size {
                true => Ok(qcow2::grow(&path, size, &self.lock)?),
                false => Ok(()),
            };
        }
        if self.raw_length(&path)? >= size {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        options
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .and_then(|file| file.set_len(size).and_then(|()| file.sync_all()))
            .map_err(files("grow", &path))
    }

    fn raw_length(&self, path: &Path) -> Result<u64, VolumeError> {
        let found = fs::symlink_metadata(path).map_err(files("look at", path))?;
        match found.is_file() {
            true => Ok(found.len()),
            false => Err(files("use", path)(io::ErrorKind::InvalidInput.into())),
        }
    }
}
