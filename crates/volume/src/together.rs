//! A snapshot of several volumes that is of one moment, and of all of them or none, whatever is
//! killed when; also while a VM has them.
//!
//! [`prepare`] makes the new layer of each volume and writes it into `volume.json` as *prepared*.
//! Then the VM, if there is one, goes over to all prepared layers at once. [`keep_prepared`] writes
//! down in one volume after the other that the snapshot is taken: with the first it is.
//!
//! In between, a VM may or may not have gone over. [`LockedVolume::settle`] finds out when the
//! volume is taken the next time: the snapshot is taken if any of its volumes says so, or if
//! anything was written to any of its prepared layers; then all of them will find the same, in
//! whatever order they are taken. Otherwise the prepared layers are empty, and removing them
//! removes nothing.

use std::io;
use std::path::{Path, PathBuf};

use casemate_host::durable;

use crate::error::{VolumeError, files};
use crate::folder::synced;
use crate::name::SnapshotName;
use crate::qcow2::{self, LayerError};
use crate::record::{Prepared, Record, Snapshot};
use crate::store::now;
use crate::volume::{LockedVolume, RECORD};

/// Prepares a snapshot of volumes of one compartment. Returns the new layers, in the order of the
/// volumes: qcow2 files that name no backing file.
///
/// # Errors
/// As [`LockedVolume::take_snapshot`], and [`VolumeError::SnapshotUnfinished`]; nothing is prepared
/// then.
pub fn prepare(
    volumes: &mut [&mut LockedVolume],
    name: &SnapshotName,
    automatic: bool,
) -> Result<Vec<PathBuf>, VolumeError> {
    if let Some(volume) = volumes.iter().find(|volume| volume.record.prepared.is_some()) {
        return Err(VolumeError::SnapshotUnfinished(volume.id.clone()));
    }
    let names: Vec<String> = volumes.iter().map(|volume| volume.id.volume.to_string()).collect();
    let taken = now();
    let mut layers = Vec::with_capacity(volumes.len());
    for index in 0..volumes.len() {
        let blank = volumes[index].record.blank;
        let snapshot = Snapshot { name: name.clone(), taken, automatic, blank };
        let with = names.iter().filter(|other| **other != names[index]).cloned().collect();
        match volumes[index].prepare(Prepared { snapshot, with }) {
            Ok(layer) => layers.push(layer),
            Err(error) => {
                // What cannot be dropped now is empty, and dropped when the volume is next taken.
                let _ = drop_prepared(&mut volumes[..index]);
                return Err(error);
            }
        }
    }
    Ok(layers)
}

/// When the prepared snapshot was, in seconds since 1970; none when nothing is prepared.
pub fn prepared_at(volumes: &[&mut LockedVolume]) -> Option<u64> {
    Some(volumes.first()?.record.prepared.as_ref()?.snapshot.taken)
}

/// Keeps what was prepared: the guest writes to the new layers now. Call it only when it does.
///
/// # Errors
/// It could not be written down for any of them; that is done when they are next taken.
pub fn keep_prepared(volumes: &mut [&mut LockedVolume]) -> Result<(), VolumeError> {
    let mut kept = false;
    for volume in volumes {
        let done = synced(&volume.file(volume.record.active))
            .and_then(|()| volume.change(Record::keep_prepared));
        match done {
            Ok(()) => kept = true,
            // The snapshot is taken all the same: the others find it in the one that was kept.
            Err(_) if kept => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Drops what was prepared, where anything is. Call it only when no VM writes to the new layers.
///
/// # Errors
/// It could not be written down, which is then done when they are next taken; or
/// [`VolumeError::SnapshotUnfinished`]: somebody has written to a new layer, which stays.
pub fn drop_prepared(volumes: &mut [&mut LockedVolume]) -> Result<(), VolumeError> {
    let mut result = Ok(());
    for volume in volumes {
        if volume.record.prepared.is_none() {
            continue;
        }
        let layer = volume.file(volume.record.next);
        let dropped = match is_written(&layer, volume.record.size) {
            Ok(false) => {
                volume.change(Record::drop_prepared).and_then(|()| volume.remove_leftovers())
            }
            Ok(true) => Err(VolumeError::SnapshotUnfinished(volume.id.clone())),
            Err(error) => Err(files("read", &layer)(error)),
        };
        result = result.and(dropped);
    }
    result
}

/// Takes a snapshot of volumes that no VM has.
///
/// # Errors
/// As [`prepare`].
pub fn take_together(
    volumes: &mut [&mut LockedVolume],
    name: &SnapshotName,
    automatic: bool,
) -> Result<(), VolumeError> {
    prepare(volumes, name, automatic)?;
    keep_prepared(volumes).inspect_err(|_| {
        // The first could not be kept, so none is.
        let _ = drop_prepared(volumes);
    })
}

impl LockedVolume {
    /// Decides what became of a prepared snapshot. No VM may have the volume any more.
    ///
    /// # Errors
    /// A layer or `volume.json` cannot be read or written.
    pub fn settle(&mut self) -> Result<(), VolumeError> {
        let Some(prepared) = &self.record.prepared else { return Ok(()) };
        if self.was_taken(prepared)? {
            self.change(Record::keep_prepared)
        } else {
            self.change(Record::drop_prepared)?;
            self.remove_leftovers()
        }
    }

    fn prepare(&mut self, prepared: Prepared) -> Result<PathBuf, VolumeError> {
        if self.record.find(&prepared.snapshot.name).is_some() {
            let (id, name) = (self.id.clone(), prepared.snapshot.name);
            return Err(VolumeError::SnapshotExists { id, name });
        }
        self.make_next_layer()?;
        let layer = self.file(self.record.next);
        if let Err(error) = self.change(|record| record.prepared = Some(prepared)) {
            let _ = self.remove_leftovers();
            return Err(error);
        }
        Ok(layer)
    }

    fn was_taken(&self, prepared: &Prepared) -> Result<bool, VolumeError> {
        let layer = self.file(self.record.next);
        if is_written(&layer, self.record.size).map_err(files("read", &layer))? {
            return Ok(true);
        }
        let compartment = self.folder.parent().unwrap_or(&self.folder);
        Ok(prepared.with.iter().any(|name| {
            let folder = compartment.join(name);
            // One that is gone or damaged tells nothing.
            let Ok(Some(other)) = durable::load::<Record>(&folder.join(RECORD)) else {
                return false;
            };
            let is_this = |other: &Snapshot| {
                other.name == prepared.snapshot.name && other.taken == prepared.snapshot.taken
            };
            let waits = other.prepared.as_ref().is_some_and(|other| is_this(&other.snapshot));
            other.snapshots().any(|(_, snapshot)| is_this(snapshot))
                || waits
                    && is_written(&folder.join(Record::file(other.next)), other.size)
                        .unwrap_or(false)
        }))
    }
}

/// Whether a prepared layer may have been written to. One whose header is not ours was, by a VMM
/// that was taken over; one that is not there any more may have been.
fn is_written(layer: &Path, size: u64) -> io::Result<bool> {
    match qcow2::is_empty(layer, size) {
        Ok(empty) => Ok(!empty),
        Err(LayerError::Read { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
            Err(source)
        }
        Err(_) => Ok(true),
    }
}
