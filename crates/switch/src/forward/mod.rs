//! The data path: one turn of one port.
//!
//! ```text
//!  sender's ring ─▶ header, window (private copies) ─▶ rules, offload ─▶ receiver's ring
//!        └────────────── the rest of the frame, copied once, guest to guest ──────┘
//! ```
//!
//! A turn is bounded in frames and in work, and ends with one look at who wants a signal. It makes
//! no system call and waits for nothing: what to do when a receiver is full is said beforehand
//! ([`Receive::drop_when_full`]), and a turn that may not drop ends there ([`Ended::Full`]).

mod counters;
mod deliver;
pub mod offload;
mod probe;
mod segment;

pub use counters::{Counters, DROPS, Drop};
pub use deliver::Receive;
use deliver::{Delivery, Frame};
use offload::{HEADER, Offload, Offloads, SHORT_HEADER};
use probe::Probe;

use crate::memory::{Memory, Span};
use crate::ring::{AHEAD, Broken, Ring};
use crate::rules::{
    Binding, IPV6, LONGEST, Mac, Role, SHORT_WINDOW, Table, Verdict, Window, decide,
};

/// Frames of one turn.
pub const BATCH: u16 = 64;

/// Work of one turn: one for each frame, descriptor and [`WORK_BYTES`] copied. So neither long
/// frames nor long chains give a port more than its share of time.
const WORK: usize = 512;
/// Bytes whose copying takes about as long as reading a descriptor.
const WORK_BYTES: usize = 512;

/// A ring with frames from a guest.
#[derive(Debug)]
pub struct Transmit<M> {
    /// The ring.
    pub ring: Ring<M>,
    header: usize,
    offloads: Offloads,
    /// Where its last frame went.
    last: usize,
}

/// Bytes of the header before each frame.
fn header_length(long: bool) -> usize {
    if long { HEADER } else { SHORT_HEADER }
}

impl<M: Memory> Transmit<M> {
    /// Frames in `ring` have the `long` header if mergeable buffers or virtio 1 were agreed on.
    #[must_use]
    pub fn new(ring: Ring<M>, long: bool, offloads: Offloads) -> Self {
        Self { ring, header: header_length(long), offloads, last: usize::MAX }
    }
}

/// What all turns work on.
#[derive(Debug)]
pub struct Fabric<M> {
    /// Who has which address.
    pub table: Table,
    /// Each port's ring with frames to its guest, by the port's number.
    pub receivers: Vec<Option<Receive<M>>>,
    /// Each port's counters.
    pub counters: Vec<Counters>,
    /// Ports whose guests want a signal, and for which ring.
    pub signals: Vec<(usize, Queue)>,
    /// Ports whose receiving ring was found broken; it is gone from `receivers`.
    pub broken: Vec<(usize, Broken)>,
    /// The port whose frames are recorded.
    pub recorded: Option<usize>,
    /// What was recorded.
    pub record: Vec<Recorded>,
    probe: Option<Probe>,
    touched: Vec<usize>,
}

impl<M> Default for Fabric<M> {
    fn default() -> Self {
        Self {
            table: Table::default(),
            receivers: Vec::new(),
            counters: Vec::new(),
            signals: Vec::new(),
            broken: Vec::new(),
            recorded: None,
            record: Vec::new(),
            probe: None,
            touched: Vec::new(),
        }
    }
}

/// A frame that a port has sent or was given.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its length.
    pub length: usize,
    /// Its bytes, or the first of them.
    pub bytes: Vec<u8>,
}

/// One of a port's two rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Queue {
    /// Frames to the guest: number 0.
    Receive,
    /// Frames from the guest: number 1.
    Transmit,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// There is nothing more to send.
    Empty,
    /// There may be more.
    More,
    /// The next frame waits for buffers of this port.
    Full(usize),
    /// The sender's ring is broken.
    Broken(Broken),
}

/// What happened in a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Turn {
    /// How it ended.
    pub ended: Ended,
    /// Frames taken.
    pub frames: u16,
    /// Those among them that no honest guest sends.
    pub violations: u16,
}

/// Bytes of a frame that are recorded.
const RECORDED: usize = LONGEST;

impl<M: Memory> Fabric<M> {
    /// Takes frames of port number `port`.
    pub fn turn(&mut self, port: usize, from: &Binding, transmit: &mut Transmit<M>) -> Turn {
        let (ready, broken) = match transmit.ring.look(BATCH) {
            Ok(ready) => (ready.min(BATCH), None),
            Err(broken) => (transmit.ring.looked().min(BATCH), Some(broken)),
        };
        let mut turn = Turn { ended: Ended::Empty, frames: 0, violations: 0 };
        if ready > 0 {
            transmit.ring.disarm();
            // Most frames go where the last one went.
            if let Some(Some(receive)) = self.receivers.get_mut(transmit.last) {
                // An error comes again when the ring is used.
                let _ = receive.ring.look(ready);
            }
            turn = self.frames(port, from, transmit, ready);
        }
        if turn.ended == Ended::Empty
            && let Some(broken) = broken
        {
            turn.ended = Ended::Broken(broken);
        }
        self.show(port, transmit, turn);
        turn
    }

    fn frames(
        &mut self,
        port: usize,
        from: &Binding,
        transmit: &mut Transmit<M>,
        ready: u16,
    ) -> Turn {
        let Transmit { ring, header: header_length, offloads, last } = transmit;
        let mut turn = Turn { ended: Ended::Empty, frames: 0, violations: 0 };
        let mut window = Window::default();
        let mut spans: Vec<Span<'_>> = Vec::new();
        let mut work = 0;
        while turn.frames < ready {
            if work >= WORK {
                turn.ended = Ended::More;
                break;
            }
            let only;
            let header;
            let (parts, length) = match ring.entry(turn.frames).only {
                Some(span) if span.len() >= HEADER => {
                    header = span.read_twelve().unwrap_or_default();
                    only = span.after(*header_length);
                    work += 1;
                    (std::slice::from_ref(&only), only.len())
                }
                _ => {
                    spans.clear();
                    match ring.chain(turn.frames, usize::MAX, &mut spans) {
                        Ok(descriptors) => work += descriptors,
                        Err(broken) => {
                            turn.ended = Ended::Broken(broken);
                            break;
                        }
                    }
                    header = take_header(&mut spans, *header_length);
                    let length = spans.iter().map(Span::len).fold(0, usize::saturating_add);
                    (&spans[..], length)
                }
            };
            window.fill(|bytes| gather(parts, &mut bytes[..SHORT_WINDOW]));
            if needs_more(&window, &header) {
                window.fill(|bytes| gather(parts, bytes));
            }
            let frame = Frame { window: window.bytes(), parts, length };
            if self.recorded.is_some() {
                self.note(port, &frame);
            }
            let verdict = match decide(&window, length, from, &self.table) {
                Verdict::Drop(refusal) => Err(refusal.into()),
                to => offload::examine(&header, window.bytes(), length, *offloads)
                    .map(|offload| (to, offload))
                    .map_err(|_| Drop::Offload),
            };
            match verdict {
                Err(Drop::NotRouter | Drop::Unknown) if self.is_answer(port, &window) => {}
                Err(drop) => {
                    self.counters[port].drop(drop);
                    turn.violations += u16::from(drop.is_violation());
                }
                Ok((to, offload)) => {
                    work += length / WORK_BYTES;
                    if let Verdict::To(to) = to {
                        *last = to;
                        match self.deliver(port, to, &frame, offload) {
                            Some(more) => work += more,
                            None => {
                                turn.ended = Ended::Full(to);
                                break;
                            }
                        }
                    } else {
                        work += self.deliver_to_all(port, &frame, offload);
                    }
                    self.counters[port].sent(length);
                }
            }
            turn.frames += 1;
        }
        if turn.ended == Ended::Empty && turn.frames == BATCH {
            turn.ended = Ended::More;
        }
        drop(spans);
        ring.give_back(turn.frames);
        if from.role == Role::Client
            && let Some((router, _)) = self.table.router()
        {
            *last = router;
        }
        turn
    }

    /// Says how many descriptors that took; nothing, if the sender has to wait.
    #[inline(always)]
    fn deliver(
        &mut self,
        port: usize,
        to: usize,
        frame: &Frame<'_>,
        offload: Offload,
    ) -> Option<usize> {
        let Some(Some(receive)) = self.receivers.get_mut(to) else {
            self.counters[port].drop(Drop::Absent);
            return Some(0);
        };
        match receive.deliver(frame, offload) {
            Delivery::Done { descriptors } => {
                self.counters[to].received(frame.length);
                if self.touched.last() != Some(&to) {
                    self.touched.push(to);
                }
                if self.recorded.is_some() {
                    self.note(to, frame);
                }
                Some(descriptors)
            }
            Delivery::Full if receive.drop_when_full => {
                self.counters[to].drop(Drop::Full);
                Some(0)
            }
            Delivery::Full => None,
            Delivery::Never => {
                self.counters[to].drop(Drop::Buffers);
                Some(0)
            }
            Delivery::Broken(broken) => {
                self.receivers[to] = None;
                self.broken.push((to, broken));
                Some(0)
            }
        }
    }

    /// Whether `transmit` has a frame for anybody but `port`, as far as can be looked ahead.
    pub fn has_others(&self, transmit: &mut Transmit<M>, port: usize) -> bool {
        // An error comes again in the next turn.
        let _ = transmit.ring.look(AHEAD);
        let mut spans = Vec::new();
        (0..transmit.ring.looked()).any(|ahead| {
            spans.clear();
            let mut bytes = [0; 8];
            if transmit.ring.chain(ahead, usize::MAX, &mut spans).is_ok() {
                take_header(&mut spans, transmit.header);
                gather(&spans, &mut bytes);
            }
            let mac = Mac::from_bits(u64::from_be_bytes(bytes) >> 16);
            mac.is_group() || self.table.client(mac).is_some_and(|to| to != port)
        })
    }

    /// To every client that has room: none of them may hold up the others.
    fn deliver_to_all(&mut self, port: usize, frame: &Frame<'_>, offload: Offload) -> usize {
        let mut work = 0;
        for index in 0..self.table.clients().len() {
            let to = self.table.clients()[index];
            if self.receivers.get(to).is_some_and(Option::is_some) {
                work += 1 + frame.length / WORK_BYTES;
                match self.deliver(port, to, frame, offload) {
                    Some(more) => work += more,
                    None => self.counters[to].drop(Drop::Full),
                }
            }
        }
        work
    }

    /// Publishes what was done, and asks who wants a signal.
    fn show(&mut self, port: usize, transmit: &mut Transmit<M>, turn: Turn) {
        while let Some(to) = self.touched.pop() {
            if let Some(receive) = &mut self.receivers[to]
                && receive.ring.publish()
            {
                self.counters[to].batches += 1;
                if receive.ring.wants_signal() {
                    self.signals.push((to, Queue::Receive));
                }
            }
        }
        if turn.frames > 0 && transmit.ring.publish() && transmit.ring.wants_signal() {
            self.signals.push((port, Queue::Transmit));
        }
    }

    #[cold]
    fn note(&mut self, port: usize, frame: &Frame<'_>) {
        if self.recorded == Some(port) {
            let mut bytes = vec![0; frame.length.min(RECORDED)];
            let length = frame.copy(&mut bytes);
            bytes.truncate(length);
            self.record.push(Recorded { length: frame.length, bytes });
        }
    }
}

/// Whether more than [`SHORT_WINDOW`] bytes may have to be looked at.
#[inline(always)]
fn needs_more(window: &Window, header: &[u8; HEADER]) -> bool {
    header[..2] != [0, 0] || window.kind() == Some(IPV6)
}

/// Copies the beginning of `parts`; says how much.
#[inline(always)]
fn gather(parts: &[Span<'_>], to: &mut [u8]) -> usize {
    let mut length = 0;
    for part in parts {
        length += part.read(&mut to[length..]);
        if length == to.len() {
            break;
        }
    }
    length
}

/// Copies the header and leaves only the frame. What is missing of the header is zero; there is no
/// frame then, either.
fn take_header(spans: &mut [Span<'_>], length: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let mut have = 0;
    for span in spans {
        let taken = span.read(&mut header[have..length]);
        *span = span.after(taken);
        have += taken;
        if have == length {
            break;
        }
    }
    header
}
