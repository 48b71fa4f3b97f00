//! The three parts of a ring in shared memory, and nothing but accesses to their fields.
//!
//! Indices and flags are atomics, descriptors and used elements are read and written as a whole.
//! All of it is little-endian; casemate runs on little-endian machines only.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use super::{Broken, Layout, MAX_SIZE};
use crate::memory::{Memory, Span};

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR: usize = 16;
/// The chain goes on.
pub(super) const NEXT: u16 = 1;
/// The device writes.
pub(super) const WRITE: u16 = 2;
/// The buffer holds descriptors.
pub(super) const INDIRECT: u16 = 4;

/// `VRING_AVAIL_F_NO_INTERRUPT` and `VRING_USED_F_NO_NOTIFY`.
const QUIET: u16 = 1;

#[cfg(target_endian = "big")]
compile_error!("rings are read as little-endian");

/// A descriptor's private copy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Descriptor {
    /// Guest address of the buffer.
    pub(super) address: u64,
    /// Its length.
    pub(super) length: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub(super) flags: u16,
    /// Index of the next one.
    pub(super) next: u16,
}

impl Descriptor {
    #[inline(always)]
    pub(super) fn decode(bytes: [u8; DESCRIPTOR]) -> Self {
        let all = u128::from_le_bytes(bytes);
        Self {
            address: all as u64,
            length: (all >> 64) as u32,
            flags: (all >> 96) as u16,
            next: (all >> 112) as u16,
        }
    }
}

/// A span without its lifetime, to be kept beside the memory it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    start: NonNull<u8>,
    length: usize,
}

impl Bytes {
    #[inline(always)]
    pub(super) fn of(span: Span<'_>) -> Self {
        Self { start: span.start(), length: span.len() }
    }

    /// # Safety
    /// The memory that this was found in lives as long as `'m`.
    #[inline(always)]
    pub(super) unsafe fn span<'m>(self) -> Span<'m> {
        // SAFETY: it was a span of that memory.
        unsafe { Span::from_parts(self.start, self.length) }
    }
}

/// Where the parts of a ring are. Valid as long as the memory they were found in.
#[derive(Debug)]
pub(super) struct Shared {
    descriptors: NonNull<u8>,
    available: NonNull<u8>,
    used: NonNull<u8>,
    /// Entries, less one.
    mask: u16,
}

impl Shared {
    pub(super) fn new(
        memory: &impl Memory,
        layout: Layout,
        event_index: bool,
    ) -> Result<Self, Broken> {
        let Layout { size, descriptors, available, used, .. } = layout;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(Broken::Size { size });
        }
        let entries = u64::from(size);
        let event = if event_index { 2 } else { 0 };
        let find = |part, address: u64, length, alignment: usize| {
            let span = memory.front_end(address, length);
            let start = span.map(|span| span.start());
            start
                .filter(|start| start.as_ptr().addr().is_multiple_of(alignment))
                .ok_or(Broken::Part { part, address })
        };
        Ok(Self {
            descriptors: find("descriptor table", descriptors, entries * 16, 16)?,
            available: find("available ring", available, 4 + entries * 2 + event, 2)?,
            // Its elements are written as eight bytes each, at 4 + 8n: four bytes of alignment.
            used: find("used ring", used, 4 + entries * 8 + event, 4)?,
            mask: size - 1,
        })
    }

    #[inline(always)]
    pub(super) fn size(&self) -> u16 {
        self.mask + 1
    }

    #[inline(always)]
    pub(super) fn prefetch_descriptor(&self, index: u16) {
        let at = usize::from(index & self.mask) * DESCRIPTOR;
        // SAFETY: the table has more than `mask` descriptors, found in memory.
        let start = unsafe { self.descriptors.add(at) };
        crate::memory::prefetch(start);
    }

    #[inline(always)]
    pub(super) fn descriptor(&self, index: u16) -> Descriptor {
        let at = usize::from(index & self.mask) * DESCRIPTOR;
        // SAFETY: as above, and the table is aligned to 16.
        let low = unsafe { AtomicU64::from_ptr(self.descriptors.add(at).cast().as_ptr()) };
        // SAFETY: the second half of the same descriptor.
        let high = unsafe { AtomicU64::from_ptr(self.descriptors.add(at + 8).cast().as_ptr()) };
        let high = high.load(Ordering::Relaxed);
        Descriptor {
            address: low.load(Ordering::Relaxed),
            length: high as u32,
            flags: (high >> 32) as u16,
            next: (high >> 48) as u16,
        }
    }

    /// A field of two bytes, `at` bytes into a part; `at` must be even and within it.
    #[inline(always)]
    fn field(part: NonNull<u8>, at: usize) -> &'static AtomicU16 {
        // SAFETY: the callers pass offsets of fields that `new` has found in memory, and use the
        // reference at once, while the memory is there. Parts are aligned to two bytes or more.
        unsafe { AtomicU16::from_ptr(part.add(at).cast().as_ptr()) }
    }

    /// The driver's index. What it has written before is seen after this.
    #[inline(always)]
    pub(super) fn available_index(&self) -> u16 {
        Self::field(self.available, 2).load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(super) fn available(&self, index: u16) -> u16 {
        let at = 4 + usize::from(index & self.mask) * 2;
        Self::field(self.available, at).load(Ordering::Relaxed)
    }

    pub(super) fn forbids_signals(&self) -> bool {
        Self::field(self.available, 0).load(Ordering::Relaxed) & QUIET != 0
    }

    /// Only with event indices.
    pub(super) fn used_event(&self) -> u16 {
        let at = 4 + usize::from(self.size()) * 2;
        Self::field(self.available, at).load(Ordering::Relaxed)
    }

    pub(super) fn used_index(&self) -> u16 {
        Self::field(self.used, 2).load(Ordering::Acquire)
    }

    /// Everything written before is seen by whoever sees this.
    #[inline(always)]
    pub(super) fn set_used_index(&self, index: u16) {
        Self::field(self.used, 2).store(index, Ordering::Release);
    }

    pub(super) fn forbid_kicks(&self, forbid: bool) {
        Self::field(self.used, 0).store(if forbid { QUIET } else { 0 }, Ordering::Relaxed);
    }

    /// Only with event indices.
    pub(super) fn set_available_event(&self, index: u16) {
        let at = 4 + usize::from(self.size()) * 8;
        Self::field(self.used, at).store(index, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn put_used(&self, index: u16, head: u16, length: u32) {
        let at = 4 + usize::from(index & self.mask) * 8;
        let element = u64::from(head) | u64::from(length) << 32;
        // SAFETY: the used ring has more than `mask` elements, found in memory.
        unsafe { self.used.add(at).cast::<u64>().write_unaligned(element) };
    }
}
