//! Snapshots of one volume.
//!
//! Taking one, and going back to one, puts a new empty layer on top: milliseconds, whatever the
//! size. Deleting one merges it with the layer above when that is the only one. `volume.json` is
//! replaced once in each operation, and that is when it happens: before it, a new layer is a
//! leftover; after it, an old one is. A merge changes nothing that is seen through the upper
//! layer, so that a killed one is begun again.
//!
//! While a VM has the volume, snapshots are taken as [`crate::together`] says, and nothing else is
//! done here.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use casemate_config::DiskFormat;
use serde_json::{Value, json};

use crate::error::{VolumeError, files};
use crate::folder::synced;
use crate::name::SnapshotName;
use crate::qcow2;
use crate::record::{Layer, MOST_LAYERS, Snapshot};
use crate::retention::Retention;
use crate::store::now;
use crate::tool::{QEMU_IMG, ToolError};
use crate::volume::{LayerFile, LockedVolume};

impl LockedVolume {
    /// The snapshots, oldest first.
    pub fn snapshots(&self) -> Vec<&Snapshot> {
        let mut snapshots: Vec<_> = self.record.snapshots().collect();
        snapshots.sort_by_key(|(number, snapshot)| (snapshot.taken, *number));
        snapshots.into_iter().map(|(_, snapshot)| snapshot).collect()
    }

    /// Takes a snapshot: the active layer stays as it is, the guest goes on in a new one.
    /// `automatic` marks those a [`Retention`] rule may delete.
    ///
    /// # Errors
    /// There is one of this name, there are too many, or the disk is full.
    pub fn take_snapshot(
        &mut self,
        name: &SnapshotName,
        automatic: bool,
    ) -> Result<(), VolumeError> {
        if self.record.find(name).is_some() {
            let (id, name) = (self.id.clone(), name.clone());
            return Err(VolumeError::SnapshotExists { id, name });
        }
        self.make_next_layer()?;
        let blank = self.record.blank;
        let snapshot = Snapshot { name: name.clone(), taken: now(), automatic, blank };
        let done = synced(&self.file(self.record.active)).and_then(|()| {
            self.change(|record| {
                let active = record.active;
                if let Some(layer) = record.layers.get_mut(&active) {
                    layer.snapshot = Some(snapshot);
                }
                record.put_layer(active);
            })
        });
        self.tidied(done)
    }

    /// Goes back to a snapshot. What was written since the last one taken is lost; all snapshots
    /// stay, those taken later too. The size stays what it is.
    ///
    /// # Errors
    /// There is no such snapshot, or the disk is full.
    pub fn revert(&mut self, name: &SnapshotName) -> Result<(), VolumeError> {
        let number = self.find(name)?;
        self.make_next_layer()?;
        let done = self.change(|record| {
            let of = |layer: &Layer| layer.snapshot.as_ref().is_some_and(|old| old.blank);
            record.blank = record.layers.get(&number).is_some_and(of);
            record.put_layer(number);
            record.prune();
        });
        self.tidied(done)
    }

    /// Deletes a snapshot; those before and after it and the present state stay. Takes as long as
    /// copying what was written between it and the next.
    ///
    /// # Errors
    /// There is no such snapshot. [`VolumeError::Merge`]: the snapshot is gone, its space is freed
    /// by the next [`Self::merge`].
    pub fn delete_snapshot(&mut self, name: &SnapshotName) -> Result<(), VolumeError> {
        let number = self.find(name)?;
        self.forget(&[number])?;
        self.merge()
    }

    /// Deletes those automatic snapshots the rule does not keep; returns their names.
    ///
    /// # Errors
    /// As [`Self::delete_snapshot`].
    pub fn expire(&mut self, rule: &Retention) -> Result<Vec<SnapshotName>, VolumeError> {
        let automatic: Vec<(u32, SnapshotName, u64)> = self
            .record
            .snapshots()
            .filter(|(_, snapshot)| snapshot.automatic)
            .map(|(number, snapshot)| (number, snapshot.name.clone(), snapshot.taken))
            .collect();
        let dates: Vec<u64> = automatic.iter().map(|(.., taken)| *taken).collect();
        let gone = rule.to_delete(&dates);
        if !gone.is_empty() {
            let numbers: Vec<u32> = gone.iter().map(|index| automatic[*index].0).collect();
            self.forget(&numbers)?;
            self.merge()?;
        }
        Ok(gone.into_iter().map(|index| automatic[index].1.clone()).collect())
    }

    /// Bytes on the disk that were written in the present state since it parted from the snapshot.
    /// An empty layer counts some 200 KiB.
    ///
    /// # Errors
    /// There is no such snapshot, or a layer is missing.
    pub fn diff_size(&self, name: &SnapshotName) -> Result<u64, VolumeError> {
        let common = self.record.branch(self.find(name)?);
        let mut bytes = 0;
        for number in self.record.branch(self.record.active) {
            if !common.contains(&number) {
                let path = self.file(number);
                let found = fs::symlink_metadata(&path).map_err(files("look at", &path))?;
                bytes += found.blocks() * 512;
            }
        }
        Ok(bytes)
    }

    /// Merges what deleted snapshots left, as far as that is possible.
    ///
    /// # Errors
    /// [`VolumeError::Merge`], such as for a full disk: nothing is lost.
    pub fn merge(&mut self) -> Result<(), VolumeError> {
        while let Some((lower, upper)) = self.record.mergeable() {
            let branch = self.branch(upper)?;
            let chain = chain(&branch).ok_or_else(|| {
                files("use", &self.folder)(std::io::ErrorKind::InvalidFilename.into())
            })?;
            let arguments = ["commit", "-q", "-d"].map(str::to_owned);
            let arguments = arguments.into_iter().chain([format!("json:{chain}")]);
            let merged = QEMU_IMG.run_confined(arguments, &self.folder, &self.lock);
            let merged = merged.map_err(|source: ToolError| {
                let (upper, lower) = (self.file(upper), self.file(lower));
                VolumeError::Merge { upper, lower, source }
            });
            merged?;
            synced(&self.file(lower))?;
            self.change(|record| record.merged(lower, upper))?;
            self.remove_leftovers()?;
        }
        Ok(())
    }

    fn find(&self, name: &SnapshotName) -> Result<u32, VolumeError> {
        let missing = || VolumeError::NoSnapshot { id: self.id.clone(), name: name.clone() };
        self.record.find(name).ok_or_else(missing)
    }

    /// Lets layers be no snapshots any more, and removes those on which nothing stands.
    fn forget(&mut self, numbers: &[u32]) -> Result<(), VolumeError> {
        self.change(|record| {
            for number in numbers {
                if let Some(layer) = record.layers.get_mut(number) {
                    layer.snapshot = None;
                }
            }
            record.prune();
        })?;
        self.remove_leftovers()
    }

    /// Makes the file of the layer that [`Record::put_layer`] adds next.
    pub(crate) fn make_next_layer(&self) -> Result<(), VolumeError> {
        if self.record.layers.len() >= MOST_LAYERS {
            return Err(VolumeError::TooManyLayers(self.id.clone()));
        }
        let path = self.file(self.record.next);
        let made = qcow2::create(&path, self.record.size, &self.lock)
            .map_err(VolumeError::from)
            .and_then(|()| {
                fs::set_permissions(&path, Permissions::from_mode(0o600))
                    .map_err(files("make", &path))
            })
            .and_then(|()| synced(&self.folder));
        self.tidied(made)
    }

    /// Removes what the operation left, whatever came of it.
    fn tidied(&self, result: Result<(), VolumeError>) -> Result<(), VolumeError> {
        let tidied = match &result {
            // A layer just made is in no record yet.
            Ok(()) if self.file(self.record.next).exists() => Ok(()),
            _ => self.remove_leftovers(),
        };
        result.and(tidied)
    }
}

/// A branch as QEMU's block layer is told of it, without believing any header; none when a path is
/// no UTF-8, which JSON cannot say.
fn chain(branch: &[LayerFile]) -> Option<Value> {
    branch.iter().try_fold(Value::Null, |below, layer| {
        let driver = if layer.format == DiskFormat::Raw { "raw" } else { "qcow2" };
        let path = layer.path.to_str()?;
        let mut node = json!({ "driver": driver, "file": { "driver": "file", "filename": path } });
        if !below.is_null() {
            node["backing"] = below;
        }
        Some(node)
    })
}
