//! What lasts of a compartment, on the host: encrypted volumes, what opens them, their snapshots.
//!
//! A volume is a folder `COMPARTMENT/VOLUME`:
//! ```text
//! header.luks       LUKS2 header with the key; the guest never sees it
//! data.raw          what the guest's disk holds, encrypted; sparse
//! 1.qcow2 …         what was written since a snapshot
//! volume.json       what is true: size, layers, snapshots, kind of key; a file not in it is a leftover
//! tpm2.pub, .priv   the sealed key, where the TPM opens it
//! lock              held by whoever uses the volume
//! ```
//! Beside them are the memories kept with snapshots ([`memory`]).
//!
//! [`Volumes`] makes, lists and removes them; [`Volumes::lock`] gives a [`LockedVolume`], which
//! tells the key ([`LockedVolume::open_key`]) and the files of the disk ([`LockedVolume::layers`]).
//! The guest is given the disk and the 64 bytes of the key, and sets dm-crypt up itself.
//!
//! **Invariant:** no secret is an argument of a program or, unencrypted, in a file; no program
//! opens a layer whose header has not been checked here.

pub mod age;
mod archive;
mod confine;
mod error;
mod folder;
mod key;
mod luks;
pub mod memory;
mod name;
mod protection;
mod qcow2;
mod record;
mod retention;
mod secret;
mod snapshot;
mod store;
mod together;
mod tool;
mod tpm;
mod transfer;
mod volume;

pub use crate::archive::ArchiveError;
pub use crate::error::{VolumeError, VolumeId};
pub use crate::key::{KeyError, Unlock};
pub use crate::luks::LuksError;
pub use crate::memory::Memories;
pub use crate::name::{BadSnapshotName, SnapshotName};
pub use crate::protection::Protection;
pub use crate::qcow2::LayerError;
pub use crate::record::{KeyKind, Snapshot};
pub use crate::retention::{BadRetention, Retention};
pub use crate::secret::{Secret, VolumeKey};
pub use crate::store::{Listed, Summary, Volumes};
pub use crate::together::{drop_prepared, keep_prepared, prepare, prepared_at, take_together};
pub use crate::tool::{Streaming, ToolError};
pub use crate::volume::{LayerFile, LockedVolume};
