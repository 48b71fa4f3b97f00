//! Memory of this process that is used as a guest's: for tests, fuzzers and valgrind.

use std::ptr::NonNull;

use super::{Memory, Span};

/// One region of zeroes, for which guest and front-end have the same addresses.
#[derive(Debug)]
pub struct PlainMemory {
    /// Kept as pointer: spans write through it while others exist.
    start: NonNull<[u64]>,
    address: u64,
    /// In bytes.
    length: usize,
}

impl PlainMemory {
    /// `length` bytes that begin at `address`.
    #[must_use]
    pub fn new(address: u64, length: usize) -> Self {
        let words = vec![0_u64; length.div_ceil(8)].into_boxed_slice();
        // A box is not null.
        let start = NonNull::from(Box::leak(words));
        Self { start, address, length }
    }
}

impl Memory for PlainMemory {
    fn guest(&self, address: u64, length: u64) -> Option<Span<'_>> {
        let offset = address.checked_sub(self.address)?;
        let all = self.length as u64;
        if offset > all || length > all - offset {
            return None;
        }
        // SAFETY: offset and offset + length are within the allocation, which lives as long as
        // `self`, and to which nobody makes a reference.
        Some(unsafe { Span::new(self.start.cast::<u8>().add(offset as usize), length as usize) })
    }

    fn front_end(&self, address: u64, length: u64) -> Option<Span<'_>> {
        self.guest(address, length)
    }
}

impl Drop for PlainMemory {
    fn drop(&mut self) {
        // SAFETY: the box that `new` has leaked, once.
        drop(unsafe { Box::from_raw(self.start.as_ptr()) });
    }
}
