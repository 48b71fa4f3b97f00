//! Amounts of memory and disk.
//!
//! A bare number counts MiB, as memory has always been written; with a unit it is text. Units are
//! powers of 1024 whether written `G`, `GB` or `GiB`: what vendors sell in powers of 1000 is never
//! what is meant by the size of a virtual machine.

use crate::flaw::Flaw;

/// Bytes in one MiB.
pub const MIB: u64 = 1 << 20;

/// An amount of bytes that is a whole, positive number of MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    mib: std::num::NonZeroU64,
}

impl Size {
    /// The smallest size there is.
    pub const ONE_MIB: Self = Self { mib: std::num::NonZeroU64::MIN };

    /// `None` for zero and for what would overflow when counted in bytes.
    pub const fn from_mib(mib: u64) -> Option<Self> {
        if mib > u64::MAX / MIB {
            return None;
        }
        match std::num::NonZeroU64::new(mib) {
            Some(mib) => Some(Self { mib }),
            None => None,
        }
    }

    /// In MiB.
    pub const fn mib(self) -> u64 {
        self.mib.get()
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.mib.get() * MIB
    }
}

impl std::str::FromStr for Size {
    type Err = Flaw;
    fn from_str(text: &str) -> Result<Self, Flaw> {
        let wrong = || {
            Flaw::new(format!("`{text}` is not a size")).hint(
                "a number of MiB (1024), or a number with a unit: \"512MiB\", \"4GiB\", \"1T\"",
            )
        };
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim_start();
        let letter = unit.as_bytes().first().map(u8::to_ascii_uppercase);
        let ending = unit.get(1..).unwrap_or_default();
        if !(ending.is_empty() || ending == "iB" || ending == "B" || ending == "b") {
            return Err(wrong());
        }
        let mib = match letter {
            None => Some(number),
            Some(b'M') => Some(number),
            Some(b'G') => number.checked_mul(1 << 10),
            Some(b'T') => number.checked_mul(1 << 20),
            Some(b'K') if number.is_multiple_of(1024) => Some(number / 1024),
            Some(b'K') => {
                return Err(Flaw::new(format!("`{text}` is not a whole number of MiB"))
                    .hint("sizes are counted in MiB of 1024 KiB"));
            }
            Some(_) => return Err(wrong()),
        };
        mib.and_then(Self::from_mib).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mib() {
            mib if mib % (1 << 20) == 0 => write!(f, "{}TiB", mib >> 20),
            mib if mib % (1 << 10) == 0 => write!(f, "{}GiB", mib >> 10),
            mib => write!(f, "{mib}MiB"),
        }
    }
}

/// Memory of a compartment, from [`MemorySize::MIN_MIB`] to [`MemorySize::MAX_MIB`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemorySize(Size);

impl MemorySize {
    /// A Linux kernel with an initrd does not boot reliably in less.
    pub const MIN_MIB: u64 = 64;
    /// 4 TiB: what 42 bits address, more than any machine this is meant for.
    pub const MAX_MIB: u64 = 4 << 20;

    /// `None` outside the limits.
    pub const fn from_mib(mib: u64) -> Option<Self> {
        if mib < Self::MIN_MIB || mib > Self::MAX_MIB {
            return None;
        }
        match Size::from_mib(mib) {
            Some(size) => Some(Self(size)),
            None => None,
        }
    }

    /// In MiB.
    pub const fn mib(self) -> u64 {
        self.0.mib()
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0.bytes()
    }
}

impl std::fmt::Display for MemorySize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
