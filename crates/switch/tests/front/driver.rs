//! A driver's side of a ring, honest or not: everything is written to memory by address.

use casemate_switch::memory::{Memory, Span};
use casemate_switch::ring::Layout;

/// The chain goes on; the device writes; the buffer holds descriptors.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// One ring, as its driver sees it. Descriptors are handed out in order.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) layout: Layout,
    /// Index of the available ring, not yet shown.
    pub(crate) available: u16,
    /// Used elements before this one are taken.
    pub(crate) used: u16,
    /// Index at which the other side was last considered for a kick.
    kicked: u16,
    pub(crate) event_index: bool,
}

impl Driver {
    /// A ring of `size` entries at `address`: descriptors, available ring, used ring. Takes less
    /// than 32 bytes for each entry, and 64.
    pub(crate) fn new(address: u64, size: u16, event_index: bool) -> Self {
        let entries = u64::from(size);
        let descriptors = address;
        let available = descriptors + 16 * entries;
        let used = (available + 6 + 2 * entries).next_multiple_of(4);
        let layout = Layout { size, descriptors, available, used, base: 0 };
        Self { layout, available: 0, used: 0, kicked: 0, event_index }
    }

    fn at<'m>(memory: &'m impl Memory, address: u64, length: u64) -> Span<'m> {
        memory.guest(address, length).expect("the driver's own addresses are good")
    }

    pub(crate) fn put<const N: usize>(memory: &impl Memory, address: u64, bytes: [u8; N]) {
        assert_eq!(Self::at(memory, address, N as u64).write(&bytes), N);
    }

    fn get<const N: usize>(memory: &impl Memory, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert_eq!(Self::at(memory, address, N as u64).read(&mut bytes), N);
        bytes
    }

    fn load(memory: &impl Memory, address: u64) -> u16 {
        Self::at(memory, address, 2).load().expect("aligned")
    }

    fn store(memory: &impl Memory, address: u64, value: u16) {
        assert!(Self::at(memory, address, 2).store(value), "aligned");
    }

    /// Writes a descriptor to a table at `table`.
    pub(crate) fn describe(
        memory: &impl Memory,
        table: u64,
        index: u16,
        address: u64,
        length: u32,
        (flags, next): (u16, u16),
    ) {
        let word = u128::from(address)
            | u128::from(length) << 64
            | u128::from(flags) << 96
            | u128::from(next) << 112;
        Self::put(memory, table + 16 * u64::from(index), word.to_le_bytes());
    }

    /// Writes descriptor `index` of the ring's own table.
    pub(crate) fn descriptor(
        &self,
        memory: &impl Memory,
        index: u16,
        address: u64,
        length: u32,
        flags: (u16, u16),
    ) {
        Self::describe(memory, self.layout.descriptors, index, address, length, flags);
    }

    /// Adds a chain to the available ring, without showing it.
    pub(crate) fn offer(&mut self, memory: &impl Memory, head: u16) {
        let slot = u64::from(self.available % self.layout.size);
        Self::store(memory, self.layout.available + 4 + 2 * slot, head);
        self.available = self.available.wrapping_add(1);
    }

    /// Shows everything that was offered. Says whether a kick is wanted.
    pub(crate) fn show(&mut self, memory: &impl Memory) -> bool {
        self.set_index(memory, self.available);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let old = std::mem::replace(&mut self.kicked, self.available);
        if self.event_index {
            let entries = u64::from(self.layout.size);
            let event = Self::load(memory, self.layout.used + 4 + 8 * entries);
            let distance = self.available.wrapping_sub(event).wrapping_sub(1);
            distance < self.available.wrapping_sub(old)
        } else {
            Self::load(memory, self.layout.used) & 1 == 0
        }
    }

    /// Writes the index of the available ring, whatever it is.
    pub(crate) fn set_index(&self, memory: &impl Memory, index: u16) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Self::store(memory, self.layout.available + 2, index);
    }

    /// Asks for a signal, or for none.
    pub(crate) fn want_signal(&self, memory: &impl Memory, wanted: bool) {
        if self.event_index {
            let entries = u64::from(self.layout.size);
            // For none: an index that is far away.
            let event = if wanted { self.used } else { self.used.wrapping_add(0x8000) };
            Self::store(memory, self.layout.available + 4 + 2 * entries, event);
        } else {
            Self::store(memory, self.layout.available, u16::from(!wanted));
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// The index of the used ring.
    pub(crate) fn used_index(&self, memory: &impl Memory) -> u16 {
        let index = Self::load(memory, self.layout.used + 2);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        index
    }

    /// The next used element, if there is one: head and length.
    pub(crate) fn take(&mut self, memory: &impl Memory) -> Option<(u16, u32)> {
        if self.used_index(memory) == self.used {
            return None;
        }
        let slot = u64::from(self.used % self.layout.size);
        let element = u64::from_le_bytes(Self::get(memory, self.layout.used + 4 + 8 * slot));
        self.used = self.used.wrapping_add(1);
        Some((element as u16, (element >> 32) as u32))
    }
}
