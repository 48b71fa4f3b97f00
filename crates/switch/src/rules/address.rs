//! MAC addresses.

use std::fmt;
use std::str::FromStr;

/// A MAC address: the lower 48 bits, the first byte on the wire highest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mac(u64);

/// Why a text is no MAC address of a port.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MacError {
    /// Not six pairs of hexadecimal digits with colons.
    #[error("`{0}` is no MAC address like 52:54:00:12:34:56")]
    Form(String),
    /// Multicast, or all zeroes.
    #[error("`{0}` is no address of a single port")]
    Group(String),
}

impl Mac {
    /// By its lower 48 bits.
    #[inline(always)]
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & 0xffff_ffff_ffff)
    }

    /// Its 48 bits.
    #[inline(always)]
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// As it is on the wire.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        let [_, _, bytes @ ..] = self.0.to_be_bytes();
        bytes
    }

    /// Whether it is for more than one: multicast or broadcast.
    #[inline(always)]
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0 >> 40 & 1 == 1
    }
}

impl From<[u8; 6]> for Mac {
    fn from([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.bytes();
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(form)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(form());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        let mac = Self::from(bytes);
        match parts.next() {
            Some(_) => Err(form()),
            None if mac.is_group() || mac.0 == 0 => Err(MacError::Group(text.to_owned())),
            None => Ok(mac),
        }
    }
}
