//! What opens a volume's header, from wherever the configuration says it is.

use std::io;
use std::path::{Path, PathBuf};

use casemate_config::KeySource;

use crate::luks::Stretching;
use crate::secret::Secret;
use crate::tool::ToolError;
use crate::{age, tpm};

/// Bytes of the longest passphrase: as many as cryptsetup takes at a terminal, so that the header
/// can be opened by hand too.
const LONGEST: usize = 512;

/// What the caller has to open volumes with.
#[derive(Debug, Clone, Copy)]
pub struct Unlock<'a> {
    /// What the user typed: the volume's passphrase, or, for a key encrypted with age, that of an
    /// identity which has one.
    pub passphrase: Option<&'a Secret>,
    /// File with the age identity. Made, unprotected, when a key is first encrypted and it is not
    /// there.
    pub identity: &'a Path,
}

/// Why what opens a volume could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nobody gave the passphrase.
    #[error("could not open {0} without a passphrase")]
    PassphraseNeeded(PathBuf),
    /// The passphrase is wrong. The caller may ask again, and counts how often.
    #[error("could not open {0}: the passphrase is wrong")]
    Wrong(PathBuf),
    /// Nothing can be protected by this passphrase.
    #[error("could not take this passphrase: it is empty, or longer than {LONGEST} bytes")]
    Unfit,
    /// There is no identity.
    #[error("could not find the age identity {0}")]
    NoIdentity(PathBuf),
    /// The key is encrypted to somebody else.
    #[error("could not open {path}: it is not encrypted to the age identity in {identity}")]
    WrongIdentity {
        /// The encrypted key.
        path: PathBuf,
        /// The identity tried.
        identity: PathBuf,
    },
    /// The key is no key.
    #[error("could not use the key in {0}: it is too short or too long")]
    BadLength(PathBuf),
    /// The TPM did not do it.
    #[error("could not have the TPM seal or open a key")]
    Tpm(#[source] ToolError),
    /// A file could not be used.
    #[error("could not {verb} {path}")]
    Files {
        /// What was to be done.
        verb: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// Makes a [`KeyError::Files`].
pub(crate) fn files(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Files { verb, path, source }
}

/// Makes what shall open a new volume, whose files are in `directory`.
pub(crate) fn make(
    source: &KeySource,
    unlock: &Unlock<'_>,
    directory: &Path,
) -> Result<(Secret, Stretching), KeyError> {
    match source {
        KeySource::Passphrase => {
            let typed = fetch(source, unlock, directory)?;
            if typed.bytes().is_empty() || typed.bytes().len() > LONGEST {
                return Err(KeyError::Unfit);
            }
            Ok((typed, Stretching::Passphrase))
        }
        KeySource::Age(path) => {
            age::make(path, unlock)?;
            // Read back: what cannot be opened now would not be later.
            Ok((age::open(path, unlock)?, Stretching::Random))
        }
        KeySource::Tpm2 => Ok((tpm::make(directory)?, Stretching::Random)),
    }
}

/// What opens the volume whose files are in `directory`.
pub(crate) fn fetch(
    source: &KeySource,
    unlock: &Unlock<'_>,
    directory: &Path,
) -> Result<Secret, KeyError> {
    match source {
        KeySource::Passphrase => match unlock.passphrase {
            // Longer than any that was taken: wrong without asking, and never cut off.
            Some(typed) if typed.bytes().len() > LONGEST => Err(KeyError::Wrong(directory.into())),
            Some(typed) => Ok(Secret::copied(typed.bytes())),
            None => Err(KeyError::PassphraseNeeded(directory.into())),
        },
        KeySource::Age(path) => age::open(path, unlock),
        KeySource::Tpm2 => tpm::open(directory),
    }
}
