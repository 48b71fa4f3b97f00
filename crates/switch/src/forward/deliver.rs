//! Putting one frame into the buffers of one guest.

use super::offload::{HEADER, Offload, Offloads};
use super::{WORK_BYTES, gather, header_length, segment};
use crate::memory::{Memory, Span};
use crate::ring::{AHEAD, Broken, Ring};

/// Descriptors that a frame may always take, and the bytes that allow one more: a guest with
/// smaller buffers would cost its sender's port too much.
const DESCRIPTORS: usize = 8;
const BYTES_EACH: usize = 128;

/// Frames that are dropped unseen after such a frame.
const REFUSE: u8 = 16;

/// A ring with buffers for frames to a guest.
#[derive(Debug)]
pub struct Receive<M> {
    /// The ring.
    pub ring: Ring<M>,
    /// Whether frames are dropped when it has no room, or their sender has to wait. Ends when there
    /// is room.
    pub drop_when_full: bool,
    /// Whether others wait for room already: whoever comes now has to wait behind them.
    pub is_held: bool,
    /// The driver's index when there was no room.
    full_at: u16,
    /// Frames that are dropped without looking, after one that wasted the sender's time.
    refuse: u8,
    header: usize,
    /// Whether a frame may be spread over buffers.
    mergeable: bool,
    offloads: Offloads,
}

/// A frame on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    /// The private copy of its beginning: this is delivered.
    pub(super) window: &'a [u8],
    /// All of it, as the sender has it.
    pub(super) parts: &'a [Span<'a>],
    /// Length in bytes.
    pub(super) length: usize,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Delivery {
    /// It is there, when the ring is published.
    Done {
        /// Of the receiver, that were read.
        descriptors: usize,
    },
    /// There are not enough buffers now.
    Full,
    /// It will never fit.
    Never,
    /// The ring is broken.
    Broken(Broken),
}

impl From<Broken> for Delivery {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl Frame<'_> {
    /// Copies all of it.
    pub(super) fn copy(&self, to: &mut [u8]) -> usize {
        let length = gather(self.parts, to);
        let own = self.window.len().min(to.len());
        to[..own].copy_from_slice(&self.window[..own]);
        length
    }
}

impl<M: Memory> Receive<M> {
    /// A ring for a guest that knows the `long` header, and perhaps `mergeable` buffers.
    #[must_use]
    pub fn new(ring: Ring<M>, long: bool, mergeable: bool, offloads: Offloads) -> Self {
        let header = header_length(long);
        Self {
            ring,
            drop_when_full: false,
            is_held: false,
            full_at: 0,
            refuse: 0,
            header,
            mergeable,
            offloads,
        }
    }

    /// Whether buffers have come since there was no room.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn has_grown(&mut self) -> Result<bool, Broken> {
        Ok(self.ring.see_now()? != self.full_at)
    }

    /// Puts a frame into the next buffers.
    #[inline(always)]
    pub(super) fn deliver(&mut self, frame: &Frame<'_>, offload: Offload) -> Delivery {
        if self.is_held {
            return Delivery::Full;
        }
        let delivery = match offload.suits(self.offloads) {
            true => self.put(&offload.header(), frame),
            false => self.deliver_converted(frame, offload),
        };
        match delivery {
            Delivery::Full => self.full_at = self.ring.seen(),
            _ => self.drop_when_full = false,
        }
        delivery
    }

    #[inline(always)]
    fn put(&mut self, header: &[u8; HEADER], frame: &Frame<'_>) -> Delivery {
        if self.ring.looked() == 0 {
            match self.ring.look(super::BATCH) {
                Ok(0) => return Delivery::Full,
                Ok(_) => {}
                Err(broken) => return broken.into(),
            }
        }
        let entry = self.ring.entry(0);
        let length = self.header + frame.length;
        match entry.only {
            Some(to) if to.len() >= length && length >= HEADER => {
                if self.header == HEADER {
                    to.write_twelve_unless_equal(header);
                } else {
                    to.write(&header[..self.header]);
                }
                let to = to.after(self.header);
                to.write(frame.window);
                if frame.length > frame.window.len() {
                    let to = to.after(frame.window.len()).first(frame.length - frame.window.len());
                    Places::new(std::slice::from_ref(&to)).write_rest(frame);
                }
                let head = entry.head;
                self.ring.put(head, length as u32);
                self.ring.advance(1);
                Delivery::Done { descriptors: 0 }
            }
            _ => self.put_in_pieces(header, frame),
        }
    }

    /// As [`Self::put`], for a frame that takes several descriptors.
    #[inline(never)]
    fn put_in_pieces(&mut self, header: &[u8; HEADER], frame: &Frame<'_>) -> Delivery {
        if self.refuse > 0 {
            self.refuse -= 1;
            return Delivery::Never;
        }
        let need = self.header + frame.length;
        let most = DESCRIPTORS + frame.length / BYTES_EACH;
        let mut places: Vec<Span<'_>> = Vec::new();
        let mut used: Vec<(u16, u32)> = Vec::new();
        let mut have = 0;
        let mut descriptors = 0;
        while have < need {
            let index = used.len() as u16;
            if index >= self.ring.looked() {
                // Spans borrow from the ring: it is asked for more, and this begins anew.
                drop(places);
                return self.look_for_more(header, frame, index);
            }
            let entry = self.ring.entry(index);
            let first = places.len();
            match entry.only {
                Some(span) => {
                    places.push(span);
                    descriptors += 1;
                }
                None => match self.ring.chain(index, need - have, &mut places) {
                    Ok(more) => descriptors += more,
                    Err(broken) => return broken.into(),
                },
            }
            let room: usize = places[first..].iter().map(Span::len).sum();
            let room = room.min(need - have);
            used.push((entry.head, room as u32));
            have += room;
            if descriptors > most {
                self.refuse = REFUSE;
                return Delivery::Never;
            }
            if have < need && !self.mergeable {
                return Delivery::Never;
            }
        }
        let mut header = *header;
        header[10..].copy_from_slice(&(used.len() as u16).to_le_bytes());
        let mut rest = Places::new(&places);
        rest.write(&header[..self.header]);
        rest.write(frame.window);
        rest.write_rest(frame);
        drop(places);
        for &(head, length) in &used {
            self.ring.put(head, length);
        }
        self.ring.advance(used.len() as u16);
        Delivery::Done { descriptors: descriptors - 1 }
    }

    /// After `enough` entries were not enough.
    fn look_for_more(&mut self, header: &[u8; HEADER], frame: &Frame<'_>, enough: u16) -> Delivery {
        let limit = AHEAD.min(self.ring.size());
        if enough >= limit {
            return Delivery::Never;
        }
        match self.ring.look(limit) {
            Ok(ready) if ready > enough => self.put_in_pieces(header, frame),
            Ok(_) => Delivery::Full,
            Err(broken) => broken.into(),
        }
    }

    /// For a guest that lacks what the sender's uses: by way of a private copy.
    #[cold]
    fn deliver_converted(&mut self, frame: &Frame<'_>, offload: Offload) -> Delivery {
        let pieces = segment::count(offload, frame.length);
        let most = usize::from(self.ring.size());
        match self.ring.pending() {
            Ok(pending) if usize::from(pending) < pieces.min(most) => return Delivery::Full,
            Ok(_) => {}
            Err(broken) => return broken.into(),
        }
        let mut bytes = vec![0; frame.length];
        let copied = frame.copy(&mut bytes);
        debug_assert_eq!(copied, frame.length);
        let mut result = Delivery::Done { descriptors: pieces * 4 + frame.length / WORK_BYTES };
        segment::for_each(&mut bytes, offload, self.offloads, |header, segment| {
            let piece = Frame { window: segment, parts: &[], length: segment.len() };
            let delivery = self.put(header, &piece);
            let done = matches!(delivery, Delivery::Done { .. });
            if !done {
                result = delivery;
            }
            done
        });
        match result {
            // The first ones are there and cannot be taken back; the rest is lost.
            Delivery::Full => Delivery::Never,
            result => result,
        }
    }
}

/// Spans that are filled one after the other.
struct Places<'a, 'm> {
    current: Option<Span<'m>>,
    rest: std::slice::Iter<'a, Span<'m>>,
}

impl<'a, 'm> Places<'a, 'm> {
    fn new(spans: &'a [Span<'m>]) -> Self {
        let mut rest = spans.iter();
        Self { current: rest.next().copied(), rest }
    }

    /// Fills what is next by `fill`, which says how much it has written.
    fn next(&mut self, fill: impl FnOnce(Span<'m>) -> usize) -> Option<usize> {
        while self.current?.is_empty() {
            self.current = self.rest.next().copied();
        }
        let current = self.current?;
        let written = fill(current);
        self.current = Some(current.after(written));
        Some(written)
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(written) = self.next(|place| place.write(bytes)) else { return };
            bytes = &bytes[written..];
        }
    }

    /// Copies what comes after a frame's private copy, guest to guest.
    fn write_rest(&mut self, frame: &Frame<'_>) {
        let mut skip = frame.window.len();
        for part in frame.parts {
            let mut left = part.after(skip);
            skip -= skip.min(part.len());
            while !left.is_empty() {
                let Some(written) = self.next(|place| left.copy_to(place)) else { return };
                left = left.after(written);
            }
        }
    }
}
