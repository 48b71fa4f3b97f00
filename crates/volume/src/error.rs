//! Why something could not be done with a volume.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use casemate_config::{CompartmentName, Size, VolumeName};
use casemate_host::durable::DurableError;
use casemate_host::lock::Holder;

use crate::archive::ArchiveError;
use crate::key::KeyError;
use crate::luks::LuksError;
use crate::name::SnapshotName;
use crate::qcow2::LayerError;
use crate::record::{KeyKind, MOST_LAYERS};
use crate::tool::ToolError;

/// A volume, as `COMPARTMENT/VOLUME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeId {
    /// Whose it is.
    pub compartment: CompartmentName,
    /// Its name.
    pub volume: VolumeName,
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.compartment, self.volume)
    }
}

/// Why something could not be done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none.
    #[error("could not find the volume {0}")]
    NotThere(VolumeId),
    /// There is one already.
    #[error("could not make the volume {0}: there is one of this name")]
    Exists(VolumeId),
    /// Somebody has it.
    #[error(
        "could not take the volume {id}: process {} has it",
        holder.map_or("unknown".into(), |holder| holder.pid.to_string())
    )]
    InUse {
        /// Which.
        id: VolumeId,
        /// Who, if that could be read.
        holder: Option<Holder>,
    },
    /// What is written about it cannot be true.
    #[error("could not use the volume {id}: {why}")]
    Damaged {
        /// Which.
        id: VolumeId,
        /// What is wrong.
        why: &'static str,
    },
    /// It was made with another kind of key than the one asked for.
    #[error("could not open the volume {id} with {asked}: it was made with {made}")]
    OtherKind {
        /// Which.
        id: VolumeId,
        /// What the configuration says.
        asked: KeyKind,
        /// What it was made with.
        made: KeyKind,
    },
    /// The key was found, and is not this volume's.
    #[error("could not open the volume {0}: its header belongs to another key")]
    OtherKey(VolumeId),
    /// Volumes only grow.
    #[error(
        "could not shrink the volume {id} from {from} to {to} bytes: what the guest has at its end \
         would be lost, and only the guest knows whether there is anything"
    )]
    Shrink {
        /// Which.
        id: VolumeId,
        /// Its size in bytes.
        from: u64,
        /// The size asked for.
        to: u64,
    },
    /// No volume can have this size.
    #[error("could not give the volume {0} this size: the most is 64 TiB")]
    BadSize(VolumeId, Size),
    /// There is no such snapshot.
    #[error("could not find the snapshot {name} of the volume {id}")]
    NoSnapshot {
        /// Of which volume.
        id: VolumeId,
        /// Which.
        name: SnapshotName,
    },
    /// There is one of this name.
    #[error("could not take the snapshot {name} of the volume {id}: there is one of this name")]
    SnapshotExists {
        /// Of which volume.
        id: VolumeId,
        /// Which.
        name: SnapshotName,
    },
    /// The one before is neither taken nor not.
    #[error("could not take a snapshot of the volume {0}: the one before is not finished")]
    SnapshotUnfinished(VolumeId),
    /// There are as many as there can be.
    #[error("could not take a snapshot of the volume {0}: it has {MOST_LAYERS} layers already")]
    TooManyLayers(VolumeId),
    /// What opens it could not be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its header could not be made or used.
    #[error(transparent)]
    Header(#[from] LuksError),
    /// One of its layers could not be made or used.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// What is written about it could not be read or written.
    #[error(transparent)]
    Record(#[from] DurableError),
    /// Two of its layers could not be made one.
    #[error("could not merge {upper} into {lower}; nothing is lost, and it is tried again")]
    Merge {
        /// The layer that was to go.
        upper: PathBuf,
        /// The layer that was to take its content.
        lower: PathBuf,
        /// Why not.
        #[source]
        source: ToolError,
    },
    /// The archive could not be written or used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is a memory of this name.
    #[error("could not keep the memory of the guest as {0}: there is one of this name")]
    MemoryExists(SnapshotName),
    /// A kept memory is not as long as what was written.
    #[error("could not use {path}: it has {bytes} bytes, and {expected} were written")]
    MemoryDamaged {
        /// The encrypted file.
        path: PathBuf,
        /// Bytes it has.
        bytes: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// The file system refused.
    #[error("could not {verb} {path}")]
    Files {
        /// What was to be done.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not: [`io::ErrorKind::StorageFull`] tells a full disk.
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    /// Whether asking for the passphrase again can help. How often is the caller's to bound.
    pub fn is_wrong_passphrase(&self) -> bool {
        matches!(self, Self::Key(KeyError::Wrong(_)))
    }

    /// Whether it is missing a passphrase that nobody gave.
    pub fn needs_passphrase(&self) -> bool {
        matches!(self, Self::Key(KeyError::PassphraseNeeded(_)))
    }
}

/// Makes a [`VolumeError::Files`].
pub(crate) fn files(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Files { verb, path, source }
}
