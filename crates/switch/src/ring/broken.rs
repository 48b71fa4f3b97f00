//! What a driver must not do.

/// Why a ring is not used any more, until it is set up anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Broken {
    /// The size is no power of two up to [`super::MAX_SIZE`].
    #[error("a ring of {size} entries")]
    Size {
        /// As stated.
        size: u16,
    },
    /// A part of the ring is not in memory, or not aligned.
    #[error("the {part} at {address:#x} is outside the memory or not aligned")]
    Part {
        /// Which.
        part: &'static str,
        /// Where it should be, in the front-end's addresses.
        address: u64,
    },
    /// More entries were made available than there are.
    #[error("the available index jumped by {pending} in a ring of {size}")]
    Jump {
        /// Entries, by the driver's index.
        pending: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// An entry of the available ring is no descriptor.
    #[error("head {head} in a ring of {size}")]
    Head {
        /// As stated.
        head: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// A chain goes on with what is no descriptor.
    #[error("descriptor {index} in a table of {size}")]
    Next {
        /// As stated.
        index: u16,
        /// Entries of the table.
        size: u16,
    },
    /// A chain loops, or is longer than any driver needs.
    #[error("a chain of more than {} descriptors", super::MAX_CHAIN)]
    Chain,
    /// A buffer is outside the memory, or in two regions.
    #[error("a buffer of {length} bytes at {address:#x} is outside the memory")]
    Outside {
        /// Its guest address.
        address: u64,
        /// Its length.
        length: u32,
    },
    /// A buffer that is to be read is said to be written, or the reverse.
    #[error("a buffer of the wrong direction in the chain of {head}")]
    Direction {
        /// The chain's first descriptor.
        head: u16,
    },
    /// An indirect table that was not agreed on, is empty, odd, too long, nested, or goes on.
    #[error("an indirect table of {length} bytes where none may be")]
    Indirect {
        /// Its length.
        length: u32,
    },
}
