//! The secrets of one start: files encrypted with age, opened into memory.

use std::io;
use std::path::{Path, PathBuf};

use casemate_config::{Compartment, SecretName};
use casemate_volume::{KeyError, Secret, Unlock, age};

use crate::prepare::{PrepareError, World};
use crate::volumes::{PassphraseNeeded, Passphrases};

/// Bytes of all secrets of a compartment together: they are part of one message to its agent.
const MOST: usize = 256 * 1024;

/// Stands for the age identity among the volumes whose passphrases are asked for; no volume can be
/// called so.
pub const IDENTITY: &str = "@identity";

/// The same for what opens the secrets of a compartment that has an identity of its own for them.
pub const SECRETS: &str = "@secrets";

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file is not there.
    #[error("could not open the secret `{name}` of `{compartment}`: there is no file {}", path.display())]
    Missing {
        /// The secret.
        name: SecretName,
        /// Whose it is.
        compartment: String,
        /// The file the configuration names.
        path: PathBuf,
    },
    /// It cannot be decrypted.
    #[error("could not open the secret `{name}` of `{compartment}`")]
    Closed {
        /// The secret.
        name: SecretName,
        /// Whose it is.
        compartment: String,
        /// Why.
        source: KeyError,
    },
    /// All together are too long.
    #[error("the secrets of `{0}` are longer than {limit} KiB together", limit = MOST / 1024)]
    TooLong(String),
}

impl SecretError {
    /// What the user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { name, compartment, .. } => {
                format!("write it: casemate secret set {compartment}/{name}")
            }
            Self::Closed { source: KeyError::WrongIdentity { .. }, name, compartment } => format!(
                "write it anew (casemate secret set {compartment}/{name}), or, with the identity it was \
                 encrypted to: casemate secret rekey --from FILE {compartment}"
            ),
            Self::Closed { source: KeyError::NoIdentity(_), .. } => {
                "put the identity it was encrypted to there; age-keygen makes new ones".into()
            }
            Self::Closed { .. } => "it must be a file that `age --decrypt` opens".into(),
            Self::TooLong(_) => "give large files by a share or a volume".into(),
        }
    }
}

/// A secret of a start.
#[derive(Debug)]
pub(crate) struct OpenSecret {
    /// Its name in the guest.
    pub(crate) name: SecretName,
    /// What it is.
    pub(crate) content: Secret,
}

impl World {
    /// The file with what opens a compartment's secrets, and as what its passphrase is asked for.
    ///
    /// # Errors
    /// There is no place for the user's own.
    pub fn secrets_identity(
        &self,
        compartment: &Compartment,
    ) -> Result<(PathBuf, &'static str), PrepareError> {
        match &compartment.secrets_identity {
            Some(own) => Ok((own.clone(), SECRETS)),
            None => Ok((self.identity()?, IDENTITY)),
        }
    }

    /// Opens the secrets of a compartment.
    pub(crate) fn open_secrets(
        &self,
        compartment: &Compartment,
        passphrases: &Passphrases,
    ) -> Result<Vec<OpenSecret>, PrepareError> {
        if compartment.secrets.is_empty() {
            return Ok(Vec::new());
        }
        let (identity, asked_as) = self.secrets_identity(compartment)?;
        let typed = passphrases.of(asked_as);
        let unlock = Unlock { passphrase: typed.as_ref(), identity: &identity };
        let mut length = 0;
        let mut opened = Vec::new();
        for (name, secret) in &compartment.secrets {
            let content = open(compartment, name, &secret.file, &unlock, asked_as)?;
            length += content.bytes().len();
            if length > MOST {
                return Err(SecretError::TooLong(compartment.name.to_string()).into());
            }
            opened.push(OpenSecret { name: name.clone(), content });
        }
        Ok(opened)
    }
}

fn open(
    compartment: &Compartment,
    name: &SecretName,
    path: &Path,
    unlock: &Unlock<'_>,
    asked_as: &'static str,
) -> Result<Secret, PrepareError> {
    let compartment = compartment.name.to_string();
    let missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    if path.symlink_metadata().is_err_and(missing) {
        return Err(
            SecretError::Missing { name: name.clone(), compartment, path: path.into() }.into()
        );
    }
    let asks = |wrong| {
        let volume = asked_as.to_owned();
        PrepareError::Passphrase(PassphraseNeeded { volume, new: false, wrong })
    };
    age::decrypt(path, unlock).map_err(|error| match error {
        KeyError::PassphraseNeeded(_) => asks(false),
        KeyError::Wrong(_) => asks(true),
        source => SecretError::Closed { name: name.clone(), compartment, source }.into(),
    })
}
