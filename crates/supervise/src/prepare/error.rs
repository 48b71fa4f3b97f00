//! Why a compartment cannot be prepared, what its user can do about it, and the exit code for it.

use std::path::PathBuf;

use casemate_host::durable::DurableError;
use casemate_host::places::PlacesError;
use casemate_host::programs::ProgramsError;
use casemate_plan::Refusal;
use casemate_plan::identity::FRESH_SLOTS;
use casemate_volume::VolumeError;

use super::LONGEST_FILE;
use crate::configuration::ConfigurationError;
use crate::disks::DiskError;
use crate::memory::MemoryError;
use crate::secrets::SecretError;
use crate::shares::ShareError;
use crate::volumes::PassphraseNeeded;

/// Why a compartment cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// Something in it concerns this compartment; the text is rendered for a person.
    #[error("the configuration of `{name}` has errors\n{rendered}")]
    Invalid {
        /// The compartment.
        name: String,
        /// The diagnostics.
        rendered: String,
    },
    /// No such compartment.
    #[error("there is no compartment `{name}`")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What the user can do.
        hint: String,
    },
    /// No such image.
    #[error("there is no image `{name}`")]
    UnknownImage {
        /// What was asked for.
        name: String,
        /// Those there are.
        declared: String,
    },
    /// A fresh disposable of what is no template for it.
    #[error("`{0}` is no template for disposables")]
    NoTemplate(String),
    /// The ids given to compartments cannot be kept.
    #[error("could not assign ids to the compartments")]
    Ids(#[from] DurableError),
    /// There is no id left; rendered for a person.
    #[error("could not assign ids to the compartments\n{0}")]
    NoIds(String),
    /// Its id has no subordinate user.
    #[error("compartment `{name}` has the id {id}, too large for a user of its own")]
    LargeId {
        /// The compartment.
        name: String,
        /// Its id.
        id: u32,
    },
    /// A directory cannot be had.
    #[error(transparent)]
    Places(#[from] PlacesError),
    /// NixOS makes its `/etc` by its own init.
    #[error("compartment `{name}` starts the NixOS image `{image}` without its init")]
    NixosWithoutSystemd {
        /// The compartment.
        name: String,
        /// Its image.
        image: String,
    },
    /// Programs are added to images of Debian packages only.
    #[error(
        "compartment `{name}` adds `programs` to the image `{image}`, which is not from debian"
    )]
    NoPrograms {
        /// The compartment.
        name: String,
        /// Its image.
        image: String,
    },
    /// Nobody vouches for its image.
    #[error(transparent)]
    Signature(#[from] casemate_image::SignatureError),
    /// The store of images.
    #[error("could not use the image `{name}`")]
    Image {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image is not built.
    #[error("the image `{0}` is not built")]
    NoImage(String),
    /// A volume cannot be opened without somebody typing.
    #[error("could not open {} without {} passphrase", .0.what(), if .0.wrong { "the right" } else { "its" })]
    Passphrase(PassphraseNeeded),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A kept memory does not go on here.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What names a kept memory is no name of a snapshot.
    #[error("could not understand which memory is meant by {}", .0.display())]
    Unreadable(PathBuf),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file for the guest cannot be read.
    #[error("could not read {} for `guest.files`", path.display())]
    GuestFile {
        /// The file of the host.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// One of its disks cannot be handed in.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// One of the folders it shares cannot be.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// casemate is not whole.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The plan is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl PrepareError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Configuration(ConfigurationError::Missing(_)) => {
                Some("give the path of a file that is there with --config".into())
            }
            Self::Unknown { hint, .. } => Some(hint.clone()),
            Self::UnknownImage { declared, .. } => Some(format!("declared are: {declared}")),
            Self::NoTemplate(name) => {
                Some(format!("set `disposable-template = true` in [compartment.{name}]"))
            }
            Self::Passphrase(_) => Some("start it where there is a terminal to ask at".into()),
            Self::Volume(VolumeError::InUse { .. }) => {
                Some("stop the compartment that has it, then start this one again".into())
            }
            Self::Volume(VolumeError::MemoryDamaged { .. }) => {
                Some("go back without it: casemate snapshot revert --without-memory".into())
            }
            Self::GuestFile { .. } => {
                Some(format!("correct its `source`; at most {} KiB each", LONGEST_FILE / 1024))
            }
            Self::Secret(error) => Some(error.hint()),
            Self::Memory(error) => error.hint(),
            Self::Disk(error) => Some(error.hint().into()),
            Self::Share(error) => Some(error.hint().into()),
            Self::NoPrograms { .. } => {
                Some("leave `programs` out, or use an image with source = \"debian\"".into())
            }
            Self::Signature(_) => {
                Some("sign manifest.json with minisign, or correct `public-key`".into())
            }
            Self::NoImage(name) => Some(format!("run: casemate image build {name}")),
            Self::Refused(refusal) => Some(refusal.hint()),
            Self::LargeId { .. } => Some(format!("set `id` below {}", 2 * FRESH_SLOTS)),
            Self::Programs(_) => Some("build all of them: cargo xtask build".into()),
            Self::NixosWithoutSystemd { name, .. } => {
                Some(format!("set init = \"systemd\" in [compartment.{name}.guest]"))
            }
            Self::Places(error) => places_hint(error),
            Self::Ids(error) => storage_hint(error),
            _ => None,
        }
    }

    /// The exit code for it: 3 configuration, 4 host not ready, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_)
            | Self::Invalid { .. }
            | Self::Unknown { .. }
            | Self::UnknownImage { .. }
            | Self::NoTemplate(_)
            | Self::NoIds(_)
            | Self::LargeId { .. }
            | Self::NixosWithoutSystemd { .. }
            | Self::NoPrograms { .. }
            | Self::Refused(Refusal::NotAvailableYet { .. }) => 3,
            Self::Refused(Refusal::HostNotReady { .. }) | Self::Places(_) | Self::Programs(_) => 4,
            _ => 1,
        }
    }
}

fn places_hint(error: &PlacesError) -> Option<String> {
    match error {
        PlacesError::NoHome { variable, .. } => {
            Some(format!("set HOME or {variable} to a directory that can be written"))
        }
        PlacesError::Make { .. } => {
            Some("make its parent writable, or set the XDG_… variable for it elsewhere".into())
        }
        PlacesError::Unsafe { .. } => Some("remove it, or set XDG_RUNTIME_DIR".into()),
    }
}

fn storage_hint(error: &DurableError) -> Option<String> {
    let DurableError::Write { source, .. } = error else { return None };
    match source.kind() {
        std::io::ErrorKind::StorageFull => Some("make room on that file system".into()),
        std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
            Some("set XDG_STATE_HOME to a directory that can be written".into())
        }
        _ => None,
    }
}
