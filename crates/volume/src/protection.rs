//! What the key of a volume is worth to somebody who has the disk.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::age::{self, Identity};
use crate::record::KeyKind;

/// From whom a volume's encryption protects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Whoever does not know the passphrase cannot read it.
    Passphrase,
    /// It cannot be read outside of this machine.
    Machine,
    /// Whoever has neither the token nor the place where the age identity lies cannot read it.
    Apart,
    /// The age identity lies unprotected on the same file system: who has the disk can read the
    /// volume. The key still serves to delete it at once.
    DeletionOnly,
    /// The age identity is not there: nobody can read it here.
    IdentityMissing,
}

impl Protection {
    /// What somebody with a volume's files in `directory` lacks to read it, when the age identity
    /// is in the file `identity`.
    ///
    /// A different file system counts as a different place, though it may be on the same disk.
    ///
    /// # Errors
    /// The identity or the volume cannot be looked at.
    pub fn of(key: &KeyKind, identity: &Path, directory: &Path) -> io::Result<Self> {
        let KeyKind::Age(_) = key else {
            return Ok(if *key == KeyKind::Tpm2 { Self::Machine } else { Self::Passphrase });
        };
        Ok(match age::identity(identity)? {
            None => Self::IdentityMissing,
            Some(Identity::Protected | Identity::ProtectedSsh) => Self::Passphrase,
            Some(Identity::Elsewhere) => Self::Apart,
            Some(Identity::Plain) if age::together(identity, directory)? => Self::DeletionOnly,
            Some(Identity::Plain) => Self::Apart,
        })
    }

    /// A warning for whoever lists volumes, where there is something to warn of.
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::DeletionOnly => Some(
                "the age identity lies unprotected beside the volume: \
                 this protects nothing but deletion",
            ),
            Self::IdentityMissing => Some("the age identity is missing: it cannot be opened"),
            Self::Passphrase | Self::Machine | Self::Apart => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_beside_the_volume_protects_nothing_but_deletion() {
        let directory = tempfile::tempdir().expect("a directory");
        let identity = directory.path().join("identity.txt");
        let of = |key: KeyKind| Protection::of(&key, &identity, directory.path()).expect("looked");
        let age = || KeyKind::Age("/keys/home.age".into());
        assert_eq!(of(age()), Protection::IdentityMissing);
        std::fs::write(&identity, "AGE-SECRET-KEY-1X\n").expect("written");
        assert_eq!(of(age()), Protection::DeletionOnly);
        assert!(of(age()).warning().expect("one").contains("nothing but deletion"));
        let other = Protection::of(&age(), &identity, Path::new("/proc")).expect("looked");
        assert_eq!(other, Protection::Apart);
        std::fs::write(&identity, "age-encryption.org/v1\n").expect("written");
        assert_eq!(of(age()), Protection::Passphrase);
        assert_eq!(of(KeyKind::Tpm2), Protection::Machine);
        assert_eq!(of(KeyKind::Passphrase).warning(), None);
    }
}
