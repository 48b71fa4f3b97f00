//! Who vouches for an image: minisign signatures (Ed25519) of manifests.
//!
//! The signature stands beside the manifest, as `minisign -S -m manifest.json` writes it, and does
//! not belong to the image: its digest is the same with and without, and with another one.

use std::fs;
use std::path::PathBuf;

use minisign_verify::{PublicKey, Signature};

use crate::error::{Attempt, FileError};
use crate::image::{Image, MANIFEST};

/// The signature's file beside the manifest.
pub(crate) const SIGNATURE: &str = "manifest.json.minisig";
/// Longest signature file; minisign's own have about 300 bytes.
pub(crate) const LONGEST: u64 = 4096;

/// An image that nobody the configuration names vouches for.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature.
    #[error("could not trust image {image}: it is not signed, and `public-key` asks for that")]
    Unsigned {
        /// The image.
        image: crate::Digest,
    },
    /// It is somebody else's, or of something else.
    #[error("could not trust image {image}: its signature is not by the key of `public-key`")]
    Wrong {
        /// The image.
        image: crate::Digest,
        /// What is wrong with it.
        #[source]
        source: minisign_verify::Error,
    },
    /// The key is none.
    #[error("could not use `public-key`: {key} is no minisign public key")]
    Key {
        /// As configured.
        key: String,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Image {
    /// Where its signature is, if there is one.
    pub fn signature(&self) -> PathBuf {
        self.directory.join(SIGNATURE)
    }

    /// Checks that the owner of this key (base64, as in minisign's files) signed the manifest.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn check_signature(&self, key: &str) -> Result<(), SignatureError> {
        let parsed = PublicKey::from_base64(key);
        let parsed = parsed.map_err(|_| SignatureError::Key { key: key.to_owned() })?;
        let wrong = |source| SignatureError::Wrong { image: self.digest, source };
        let path = self.signature();
        let text = match fs::read(&path).attempt("read", &path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => {
                return Err(SignatureError::Unsigned { image: self.digest });
            }
            Err(error) => return Err(error.into()),
        };
        let text = String::from_utf8_lossy(&text);
        let signature = Signature::decode(&text).map_err(wrong)?;
        let path = self.directory.join(MANIFEST);
        let manifest = fs::read(&path).attempt("read", &path)?;
        // Both forms, hashed before it is signed or not, are minisign's own.
        parsed.verify(&manifest, &signature, true).map_err(wrong)
    }
}
