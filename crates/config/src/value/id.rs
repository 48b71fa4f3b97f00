//! The number of a compartment.

/// An odd number from 3 on: the guest's address within `[network] cidr`, and its vsock context id.
///
/// Odd because address `id - 1` is the host's end of the same /31 (RFC 3021); 3 is the first
/// context id that vsock(7) leaves to guests.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct CompartmentId(u32);

impl CompartmentId {
    /// The smallest id.
    pub const MIN: Self = Self(3);
    /// The largest id any `[network] cidr` can hold (a /8).
    pub const MAX: Self = Self((1 << 24) - 1);

    /// `None` when the number is even, below 3 or above [`CompartmentId::MAX`].
    pub const fn new(number: u32) -> Option<Self> {
        if number % 2 == 1 && number >= Self::MIN.0 && number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for CompartmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<CompartmentId> for u32 {
    fn from(id: CompartmentId) -> Self {
        id.0
    }
}

impl TryFrom<u32> for CompartmentId {
    type Error = crate::Flaw;
    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::new(number).ok_or_else(|| {
            crate::Flaw::new(format!("{number} is no compartment id"))
                .hint("an id is an odd number from 3 on")
        })
    }
}
