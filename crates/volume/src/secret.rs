//! Bytes nobody else may see: kept in memory that is locked and overwritten at its end, and never
//! printed.

use std::fmt;

use casemate_host::secret::Locked;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a passphrase or key.
pub struct Secret(Locked);

impl Secret {
    /// Takes the bytes over. Copies the caller keeps are the caller's to wipe.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let secret = Self::copied(&bytes);
        bytes.zeroize();
        secret
    }

    /// A copy of the bytes.
    pub fn copied(bytes: &[u8]) -> Self {
        Self(Locked::copied(bytes))
    }

    /// As many random bytes as open a volume when no passphrase does: 256 bits.
    ///
    /// # Errors
    /// The kernel gives none.
    pub(crate) fn random() -> std::io::Result<Self> {
        let seed = Zeroizing::new(casemate_host::random::seed()?);
        Ok(Self::copied(&seed[..RANDOM_LENGTH]))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes of a random key that opens a volume.
pub(crate) const RANDOM_LENGTH: usize = 32;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The key a volume's data is encrypted with, and what else dm-crypt must be told.
///
/// The table in the guest is `0 SECTORS crypt aes-xts-plain64 KEY 0 DEVICE 0 2 allow_discards
/// sector_size:SECTOR` (the kernel's admin-guide/device-mapper/dm-crypt): the payload begins at
/// the disk's first byte.
pub struct VolumeKey {
    key: Secret,
    sector_size: u32,
}

impl VolumeKey {
    /// Bytes of the key: two of 256 bits, as XTS takes them.
    pub const LENGTH: usize = 64;
    /// The cipher's name for dm-crypt.
    pub const CIPHER: &'static str = "aes-xts-plain64";

    /// None when the key has not [`Self::LENGTH`] bytes.
    pub(crate) fn new(key: Secret, sector_size: u32) -> Option<Self> {
        (key.bytes().len() == Self::LENGTH).then_some(Self { key, sector_size })
    }

    /// The key.
    pub fn bytes(&self) -> &[u8] {
        self.key.bytes()
    }

    /// Bytes encrypted as one, 512 or 4096.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }
}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_is_printed() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret");
        let key = VolumeKey::new(Secret::new(vec![7; 64]), 4096).expect("64 bytes");
        assert_eq!(format!("{key:?}"), "VolumeKey");
        assert!(VolumeKey::new(secret, 4096).is_none());
    }
}
