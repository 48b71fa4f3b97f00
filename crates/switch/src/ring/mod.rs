//! Our side of a split virtqueue (virtio 1.2, section 2.7) in memory that belongs to somebody
//! hostile.
//!
//! ```text
//!  available ring ─ look() ─▶ private copies of heads and first descriptors (Entry) ─ advance()
//!  used ring      ◀─ put()  , publish() ─ wants_signal()
//! ```
//!
//! What the driver writes is read once, into private memory, and compared with every limit there.
//! Anything a driver must not do is a [`Broken`] ring, which is not used again before the front-end
//! sets it up anew. Buffers are taken and given back in order, always.
//!
//! It works on any [`Memory`], so it can be tried without a guest.

// UNSAFETY: fields of rings are shared with the driver and reached by raw pointers.
#![expect(unsafe_code, reason = "rings shared with a guest")]

mod broken;
pub mod call;
mod chain;
mod shared;

use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};

pub use broken::Broken;
pub use chain::MAX_CHAIN;
use shared::{Descriptor, INDIRECT, NEXT, Shared, WRITE};

use crate::memory::{Memory, Span};

/// Entries that are looked at in advance. A frame is spread over at most as many buffers.
pub const AHEAD: u16 = 128;

/// The longest ring (section 2.7).
pub const MAX_SIZE: u16 = 32768;

/// Who writes to the buffers of a ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// The driver: frames from the guest.
    FromGuest,
    /// We: frames to the guest.
    ToGuest,
}

/// Where a ring is, in addresses of the front-end, and how it begins.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Layout {
    /// Entries; a power of two.
    pub size: u16,
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring.
    pub available: u64,
    /// The used ring.
    pub used: u64,
    /// The index of the available ring to begin with.
    pub base: u16,
}

/// What the driver agreed to that concerns rings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `VIRTIO_F_RING_EVENT_IDX`
    pub event_index: bool,
    /// `VIRTIO_F_INDIRECT_DESC`
    pub indirect: bool,
    /// `VIRTIO_F_IN_ORDER`
    pub in_order: bool,
}

/// An entry of the available ring, as it was when it was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'m> {
    /// Index of its first descriptor.
    pub head: u16,
    /// Its only buffer; nothing, if it has more than one and [`Ring::chain`] has to be asked.
    pub only: Option<Span<'m>>,
}

/// One ring.
#[derive(Debug)]
pub struct Ring<M> {
    shared: Shared,
    memory: Rc<M>,
    direction: Direction,
    options: Options,
    /// Entries before this index of the available ring are done with.
    next: u16,
    /// The available ring's index when it was last read.
    seen: u16,
    /// Entries from `next` to here are in `ahead`, each at its index modulo [`AHEAD`].
    looked: u16,
    ahead: Box<[Ahead; AHEAD as usize]>,
    /// Index of the used ring, as published.
    used: u16,
    /// Elements put behind it that are not published.
    put: u16,
    /// The used ring's index when a signal was last considered.
    considered: u16,
    /// Whether the driver has been asked not to kick.
    quiet: bool,
}

/// An entry that was looked at: its head and the first descriptor, checked.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    head: u16,
    first: Descriptor,
    only: Option<shared::Bytes>,
}

impl<M: Memory> Ring<M> {
    /// The ring that a front-end describes.
    ///
    /// # Errors
    /// Parts of it are outside the memory, not aligned, or its size is none.
    pub fn new(
        memory: Rc<M>,
        layout: Layout,
        direction: Direction,
        options: Options,
    ) -> Result<Self, Broken> {
        let shared = Shared::new(&*memory, layout, options.event_index)?;
        // Everything is done in order, so whatever was taken before is done up to here. After a
        // switch has died the front-end may not know how far it was.
        let used = shared.used_index();
        let next = match layout.base.wrapping_sub(used) <= layout.size {
            true => used,
            false => layout.base,
        };
        Ok(Self {
            shared,
            memory,
            direction,
            options,
            next,
            seen: next,
            looked: next,
            ahead: Box::new([Ahead::default(); AHEAD as usize]),
            used,
            put: 0,
            considered: used,
            quiet: false,
        })
    }

    /// Entries of the ring.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.shared.size()
    }

    /// Index of the first entry that is not done with: what the front-end asks for.
    #[must_use]
    pub fn base(&self) -> u16 {
        self.next
    }

    /// Looks at up to `count` entries that the driver has made available, fetching their
    /// descriptors and the beginnings of their buffers into the cache. Says how many there are to
    /// be had by [`Self::entry`]; more than `count`, if more were looked at before.
    ///
    /// # Errors
    /// The ring is broken. Entries looked at before stay valid.
    #[inline]
    pub fn look(&mut self, count: u16) -> Result<u16, Broken> {
        let count = count.min(AHEAD);
        let have = self.looked.wrapping_sub(self.next);
        if have >= count {
            return Ok(have);
        }
        if self.seen.wrapping_sub(self.next) < count {
            self.see()?;
        }
        let target = self.seen.wrapping_sub(self.next).min(count);
        if target <= have {
            return Ok(have);
        }
        let new = target - have;
        for step in 0..new {
            let index = self.looked.wrapping_add(step);
            let head = self.shared.available(index);
            if head >= self.shared.size() {
                return Err(Broken::Head { head, size: self.shared.size() });
            }
            self.shared.prefetch_descriptor(head);
            self.ahead[usize::from(index % AHEAD)].head = head;
        }
        for _ in 0..new {
            let ahead = &mut self.ahead[usize::from(self.looked % AHEAD)];
            ahead.first = self.shared.descriptor(ahead.head);
            ahead.only = None;
            if ahead.first.flags & (NEXT | INDIRECT) == 0 {
                let writes = ahead.first.flags & WRITE != 0;
                if writes != (self.direction == Direction::ToGuest) {
                    return Err(Broken::Direction { head: ahead.head });
                }
                let Descriptor { address, length, .. } = ahead.first;
                let span = self
                    .memory
                    .guest(address, length.into())
                    .ok_or(Broken::Outside { address, length })?;
                // Fetching buffers to be written was measured, and costs more than it gives.
                if self.direction == Direction::FromGuest {
                    span.prefetch();
                }
                ahead.only = Some(shared::Bytes::of(span));
            }
            self.looked = self.looked.wrapping_add(1);
        }
        Ok(target)
    }

    /// Reads how far the driver is.
    fn see(&mut self) -> Result<(), Broken> {
        let index = self.shared.available_index();
        let pending = index.wrapping_sub(self.next);
        if pending > self.shared.size() {
            return Err(Broken::Jump { pending, size: self.shared.size() });
        }
        self.seen = index;
        Ok(())
    }

    /// Entry number `ahead` of those that [`Self::look`] has counted.
    #[inline(always)]
    #[must_use]
    pub fn entry(&self, ahead: u16) -> Entry<'_> {
        debug_assert!(ahead < self.looked.wrapping_sub(self.next));
        let entry = &self.ahead[usize::from(self.next.wrapping_add(ahead) % AHEAD)];
        // SAFETY: the bytes were found in `self.memory`, which is kept as long as `self`, and
        // entries of another memory are never in a ring.
        let only = entry.only.map(|bytes| unsafe { bytes.span() });
        Entry { head: entry.head, only }
    }

    /// Appends the buffers of that entry to `to`, as many as it takes for `enough` bytes. Says how
    /// many descriptors were read.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn chain<'a>(
        &'a self,
        ahead: u16,
        enough: usize,
        to: &mut Vec<Span<'a>>,
    ) -> Result<usize, Broken> {
        let entry = &self.ahead[usize::from(self.next.wrapping_add(ahead) % AHEAD)];
        chain::walk(self, entry.head, entry.first, enough, to)
    }

    /// Entries that were looked at and are not done with.
    #[inline(always)]
    #[must_use]
    pub fn looked(&self) -> u16 {
        self.looked.wrapping_sub(self.next)
    }

    /// The first `count` entries are done with: later ones move up.
    #[inline(always)]
    pub fn advance(&mut self, count: u16) {
        debug_assert!(count <= self.looked.wrapping_sub(self.next));
        self.next = self.next.wrapping_add(count);
    }

    /// Gives the first `count` entries back to the driver, with nothing written to them, and
    /// advances. Not seen by the driver before [`Self::publish`].
    pub fn give_back(&mut self, count: u16) {
        if count == 0 {
            return;
        }
        if self.options.in_order {
            // One element, for the last of them, in the first one's place (section 2.7.9).
            let head = self.entry(count - 1).head;
            self.shared.put_used(self.used.wrapping_add(self.put), head, 0);
            self.put += count;
        } else {
            for ahead in 0..count {
                let head = self.entry(ahead).head;
                self.put(head, 0);
            }
        }
        self.advance(count);
    }

    /// Puts a used element behind the others: `length` bytes were written to that buffer.
    #[inline(always)]
    pub fn put(&mut self, head: u16, length: u32) {
        self.shared.put_used(self.used.wrapping_add(self.put), head, length);
        self.put += 1;
    }

    /// Shows all elements that were put to the driver. Says whether there were any.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.put == 0 {
            return false;
        }
        self.used = self.used.wrapping_add(self.put);
        self.put = 0;
        self.shared.set_used_index(self.used);
        true
    }

    /// Whether the driver wants a signal for what was published since it was last asked.
    pub fn wants_signal(&mut self) -> bool {
        let old = std::mem::replace(&mut self.considered, self.used);
        if old == self.used {
            return false;
        }
        // What was published is seen before the driver's wish is read; the driver does it the
        // other way round.
        fence(Ordering::SeqCst);
        if self.options.event_index {
            let event = self.shared.used_event();
            self.used.wrapping_sub(event).wrapping_sub(1) < self.used.wrapping_sub(old)
        } else {
            !self.shared.forbids_signals()
        }
    }

    /// Asks the driver to kick when it adds entries beyond those already seen. Says whether it has
    /// added some in the meantime, for which no kick may come.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn arm(&mut self) -> Result<bool, Broken> {
        let seen = self.seen;
        self.quiet = false;
        match self.options.event_index {
            true => self.shared.set_available_event(seen),
            false => self.shared.forbid_kicks(false),
        }
        fence(Ordering::SeqCst);
        self.see()?;
        Ok(self.seen != seen)
    }

    /// Asks the driver not to kick. With event indices nothing has to be written: the old index is
    /// behind what is there.
    #[inline(always)]
    pub fn disarm(&mut self) {
        if !self.quiet {
            self.quiet = true;
            if !self.options.event_index {
                self.shared.forbid_kicks(true);
            }
        }
    }

    /// The driver's index when it was last read.
    #[must_use]
    pub fn seen(&self) -> u16 {
        self.seen
    }

    /// The driver's index now.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn see_now(&mut self) -> Result<u16, Broken> {
        self.see()?;
        Ok(self.seen)
    }

    /// Entries that are not done with, as of now.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn pending(&mut self) -> Result<u16, Broken> {
        self.see()?;
        Ok(self.seen.wrapping_sub(self.next))
    }
}
