//! Memory that is shared with a guest.
//!
//! A guest writes to its memory at any time, so no reference to it is ever made: a [`Span`] is a
//! checked piece of it, and all that can be done with a span is to copy out of it, into it, or to
//! another one. Whoever decides something by bytes of a guest copies them first and decides by the
//! copy.
//!
//! Two kinds of memory have spans: [`GuestMemory`], mapped from descriptors that a front-end
//! sends, and [`PlainMemory`], which tests, fuzzers and valgrind use.

// UNSAFETY: bytes that somebody else writes at the same time are reached by raw pointers only.
#![expect(unsafe_code, reason = "memory shared with a guest")]

mod copy;
pub mod fault;
mod guest;
mod plain;

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

pub use guest::{GuestMemory, MAX_MEMORY, MAX_REGIONS, MemoryError, Region};
pub use plain::PlainMemory;

/// Memory with addresses of a guest (descriptors have them) and of its front-end (rings have them).
pub trait Memory {
    /// The `length` bytes at guest address `address`, if all of them lie in one region.
    fn guest(&self, address: u64, length: u64) -> Option<Span<'_>>;

    /// The `length` bytes at the front-end's address `address`, likewise.
    fn front_end(&self, address: u64, length: u64) -> Option<Span<'_>>;
}

/// Asks the processor to fetch a cache line for reading.
#[inline(always)]
pub(crate) fn prefetch(address: NonNull<u8>) {
    copy::prefetch(address.as_ptr());
}

/// Some bytes of a guest's memory. They may change at any time.
#[derive(Clone, Copy, Debug)]
pub struct Span<'m> {
    start: NonNull<u8>,
    length: usize,
    memory: PhantomData<&'m ()>,
}

impl<'m> Span<'m> {
    /// # Safety
    /// For as long as `'m`, all `length` bytes at `start` are mapped readable and writable, and no
    /// reference to them is made.
    #[inline(always)]
    unsafe fn new(start: NonNull<u8>, length: usize) -> Self {
        Self { start, length, memory: PhantomData }
    }

    /// For a span that was taken apart, by [`Self::start`] and [`Self::len`].
    ///
    /// # Safety
    /// The memory that the span belonged to lives as long as `'m`.
    #[inline(always)]
    pub(crate) unsafe fn from_parts(start: NonNull<u8>, length: usize) -> Self {
        // SAFETY: the caller's promise is that of `new`.
        unsafe { Self::new(start, length) }
    }

    /// Length in bytes.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Where it begins, for the ring's own accesses.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// What comes after the first `offset` bytes; nothing, if it has fewer.
    #[inline(always)]
    #[must_use]
    pub fn after(self, offset: usize) -> Self {
        let offset = offset.min(self.length);
        // SAFETY: at most the length is added, so the result points into the span or to its end.
        let start = unsafe { self.start.add(offset) };
        Self { start, length: self.length - offset, memory: PhantomData }
    }

    /// The first `length` bytes, or all if it has fewer.
    #[inline(always)]
    #[must_use]
    pub fn first(self, length: usize) -> Self {
        Self { length: length.min(self.length), ..self }
    }

    /// Copies out of it as much as there is and fits; says how much.
    #[inline(always)]
    pub fn read(&self, to: &mut [u8]) -> usize {
        let length = self.length.min(to.len());
        // SAFETY: both sides have `length` bytes; `to` is a private slice, so they do not overlap.
        unsafe { copy::apart(self.start.as_ptr(), to.as_mut_ptr(), length) };
        length
    }

    /// Copies into it as much as there is and fits; says how much.
    #[inline(always)]
    pub fn write(&self, from: &[u8]) -> usize {
        let length = self.length.min(from.len());
        // SAFETY: as in `read`, the other way round.
        unsafe { copy::apart(from.as_ptr(), self.start.as_ptr(), length) };
        length
    }

    /// Copies its first twelve bytes, the size of a virtio-net header.
    #[inline(always)]
    #[must_use]
    pub fn read_twelve(&self) -> Option<[u8; 12]> {
        if self.length < 12 {
            return None;
        }
        // SAFETY: there are twelve bytes, and an array of bytes has no alignment.
        Some(unsafe { self.start.cast::<[u8; 12]>().read_volatile() })
    }

    /// Writes twelve bytes unless they are there already: a line that both sides only read stays in
    /// both caches.
    #[inline(always)]
    pub fn write_twelve_unless_equal(&self, bytes: &[u8; 12]) {
        if self.read_twelve().is_some_and(|there| there != *bytes) {
            // SAFETY: as in `read_twelve`, which has found that many.
            unsafe { self.start.cast::<[u8; 12]>().write_volatile(*bytes) };
        }
    }

    /// Its first two bytes as one number, in one piece, and all that was written before it. Nothing,
    /// if there are fewer or they are not aligned.
    #[must_use]
    pub fn load(&self) -> Option<u16> {
        self.field().map(|field| u16::from_le(field.load(Ordering::Acquire)))
    }

    /// Writes its first two bytes in one piece, after all that was written before. Says whether it
    /// could.
    pub fn store(&self, value: u16) -> bool {
        self.field().map(|field| field.store(value.to_le(), Ordering::Release)).is_some()
    }

    fn field(&self) -> Option<&AtomicU16> {
        let start = self.start.cast::<AtomicU16>();
        if self.length < 2 || !start.is_aligned() {
            return None;
        }
        // SAFETY: two aligned bytes of the memory, which lives as long as `'m`, and by which
        // others see a number change only as a whole.
        Some(unsafe { start.as_ref() })
    }

    /// Copies to `to` as much as there is and fits; says how much.
    #[inline(always)]
    pub fn copy_to(&self, to: Span<'_>) -> usize {
        let length = self.length.min(to.length);
        // SAFETY: both sides have `length` bytes; `copy::any` allows them to overlap.
        unsafe { copy::any(self.start.as_ptr(), to.start.as_ptr(), length) };
        length
    }

    /// Asks the processor to fetch the first two cache lines for reading.
    #[inline(always)]
    pub fn prefetch(&self) {
        copy::prefetch(self.start.as_ptr());
        copy::prefetch(self.start.as_ptr().wrapping_add(64));
    }
}
