//! One connection to the host over the port: the preamble, reading into the decoder, writing what
//! waits, and noticing that the host's end went away.
//!
//! ```text
//!            open            preamble out           answer found
//!  Absent ─────────▶ Greeting ────────────────────────▶ Up
//!    ▲                 ▲                                │
//!    │ the port's gone │         host went or knocked,  │
//!    └─────────────────┴──────── or sent no frame ◀─────┘
//! ```
//!
//! What a frame means is decided elsewhere; this file knows bytes only. A repeated preamble may be
//! answered twice by a slow host: the second answer stands where a frame would and is skipped.
//!
//! A host that goes and comes again between two looks at the port, or that took a restored guest
//! over, leaves no trace in what poll and read say of it. Such a host knocks: it sends a preamble
//! that nobody waits for. That is no frame, so the connection begins anew.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use casemate_wire::{Decoder, preamble};
use nix::errno::Errno;
use nix::libc;
use nix::time::{ClockId, clock_gettime};

use crate::events::{Epoll, Token};
use crate::outbox::Outbox;
use crate::port;

/// How long to wait for the host's answer before the preamble is sent again. Preambles are lost
/// only while nobody is at the other end, and a busy host that is slow had better not see two.
const AGAIN: Duration = Duration::from_secs(2);

/// How long to wait after the host has gone or knocked before it is greeted.
const SETTLE: Duration = Duration::from_millis(10);

/// How often to look whether the host has come.
const DESERTED: Duration = Duration::from_millis(100);

/// How often to look for a port that is not there.
const LOOK: Duration = Duration::from_millis(500);

/// Largest single write: what `virtio_console` takes at once.
const WRITE: usize = 32 * 1024;

/// What became of an attempt to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Nothing is there now.
    Nothing,
    /// Bytes went into the decoder.
    Bytes,
    /// The host answered the preamble: a new connection begins.
    Connected,
    /// The connection there was is over.
    Lost,
}

/// What [`Link::skip_repeated_answer`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// A repeated answer; it is gone, frames follow.
    Whole,
    /// The beginning of one; the rest is still on the way.
    NotYet,
    /// Something else.
    Nothing,
}

#[derive(Debug)]
enum State {
    Absent,
    Greeting(preamble::Hunter),
    Up,
}

/// The port and the connection over it.
#[derive(Debug)]
pub(crate) struct Link {
    port: Option<OwnedFd>,
    state: State,
    nonce: u64,
    /// Next time to send the preamble again or to look for the port again.
    retry: Instant,
    /// The last write did not take everything; epoll will tell when to go on.
    blocked: bool,
    /// Bytes may be there to be read.
    pub(crate) readable: bool,
    /// What waits to be written.
    pub(crate) out: Outbox,
}

impl Link {
    /// A link without a port.
    pub(crate) fn new() -> Self {
        Self {
            port: None,
            state: State::Absent,
            nonce: 0,
            retry: Instant::now(),
            blocked: false,
            readable: false,
            out: Outbox::default(),
        }
    }

    /// Whether a connection stands.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    /// Opens the port when it is there, and greets the host. False when there is no port.
    ///
    /// # Errors
    /// When the port is there and cannot be opened or watched.
    pub(crate) fn open(&mut self, epoll: &Epoll) -> io::Result<bool> {
        let Some(device) = port::find(casemate_wire::PORT_NAME) else { return Ok(false) };
        let port = port::open(&device)?;
        epoll.add_read(&port, Token::PORT)?;
        self.port = Some(port);
        self.begin(Duration::ZERO);
        self.tick(Instant::now(), epoll);
        Ok(true)
    }

    /// Watches the port with another epoll instance (after a fork).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn watch(&mut self, epoll: &Epoll) -> io::Result<()> {
        self.blocked = false;
        self.readable = true;
        self.port.as_ref().map_or(Ok(()), |port| epoll.add_read(port, Token::PORT))
    }

    /// Gives the connection up and begins a new one.
    pub(crate) fn restart(&mut self) {
        if self.port.is_some() {
            self.begin(SETTLE);
        }
    }

    /// Begins to look for an answer; the preamble goes out after `pause`.
    fn begin(&mut self, pause: Duration) {
        self.nonce = fresh_nonce(self.nonce);
        self.state = State::Greeting(preamble::Hunter::for_guest(self.nonce));
        self.out.clear();
        self.retry = Instant::now() + pause;
        self.readable = true;
    }

    /// When [`Link::tick`] wants to be called, if at all.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.is_up()).then_some(self.retry)
    }

    /// Does what is due: greet again, look for the port again.
    pub(crate) fn tick(&mut self, now: Instant, epoll: &Epoll) {
        if self.is_up() || now < self.retry {
            return;
        }
        match (&self.state, &self.port) {
            (State::Greeting(_), Some(port)) if port::is_deserted(port) => {
                self.retry = now + DESERTED;
            }
            (State::Greeting(_), Some(_)) => {
                self.retry = now + AGAIN;
                if self.out.waiting().is_empty() {
                    self.out.raw(&preamble::encode(preamble::FROM_GUEST, self.nonce));
                    self.readable = true;
                    self.flush(epoll);
                }
            }
            _ => {
                self.retry = now + LOOK;
                // Nobody can be told while there is no link; it is tried again until it works.
                let _ = self.open(epoll);
            }
        }
    }

    /// Reads what is there, bounded by the decoder's space and one buffer's worth of patience.
    pub(crate) fn receive(&mut self, decoder: &mut Decoder) -> Received {
        match self.state {
            State::Absent => Received::Nothing,
            State::Greeting(_) => self.hunt(decoder),
            State::Up => self.fill(decoder),
        }
    }

    /// Looks for the host's answer, at most one buffer of the port at a time.
    fn hunt(&mut self, decoder: &mut Decoder) -> Received {
        let mut bytes = [0; 4096];
        let count = match self.read(&mut bytes) {
            Ok(0) | Err(Errno::EAGAIN) => {
                self.readable = false;
                return Received::Nothing;
            }
            Ok(count) => count,
            Err(_) => return self.lose_port(),
        };
        let State::Greeting(hunter) = &mut self.state else { return Received::Nothing };
        let Some((_, used)) = hunter.feed(&bytes[..count]) else { return Received::Nothing };
        self.state = State::Up;
        *decoder = Decoder::new();
        decoder.push(&bytes[used..count]);
        Received::Connected
    }

    /// A read gives at most one 4 KiB buffer of the port, so several are read before anything
    /// else is looked at.
    fn fill(&mut self, decoder: &mut Decoder) -> Received {
        let mut received = Received::Nothing;
        for _ in 0..16 {
            let space = decoder.space();
            if space.is_empty() {
                break;
            }
            let Some(port) = &self.port else { return Received::Lost };
            match nix::unistd::read(port, space) {
                Ok(0) => {
                    self.restart();
                    self.readable = false;
                    return Received::Lost;
                }
                Ok(count) => {
                    decoder.filled(count);
                    received = Received::Bytes;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.readable = false;
                    break;
                }
                Err(_) => return self.lose_port(),
            }
        }
        received
    }

    fn read(&self, bytes: &mut [u8]) -> Result<usize, Errno> {
        match &self.port {
            Some(port) => nix::unistd::read(port, bytes),
            None => Err(Errno::ENODEV),
        }
    }

    /// The port itself failed (unplugged): close it, look for it again later.
    fn lose_port(&mut self) -> Received {
        let was_up = self.is_up();
        self.port = None;
        self.state = State::Absent;
        self.out.clear();
        self.blocked = false;
        self.readable = false;
        self.retry = Instant::now() + LOOK;
        if was_up { Received::Lost } else { Received::Nothing }
    }

    /// The port's events, as epoll reported them.
    pub(crate) fn event(&mut self, epoll: &Epoll) {
        self.readable = true;
        if self.blocked {
            self.unblock(epoll);
        }
    }

    fn unblock(&mut self, epoll: &Epoll) {
        self.blocked = false;
        if let Some(port) = &self.port {
            let _ = epoll.only_read(port, Token::PORT);
        }
        self.flush(epoll);
    }

    /// Writes what waits, as far as the port takes it. A failed port is noticed by the next read.
    pub(crate) fn flush(&mut self, epoll: &Epoll) {
        let Some(port) = &self.port else {
            self.out.clear();
            return;
        };
        while !self.blocked && !self.out.waiting().is_empty() {
            let waiting = self.out.waiting();
            let piece = &waiting[..waiting.len().min(WRITE)];
            match nix::unistd::write(port.as_fd(), piece) {
                Ok(count) => self.out.written(count),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOMEM) => {
                    self.blocked = true;
                    if epoll.also_write(port, Token::PORT).is_err() {
                        self.readable = true;
                        break;
                    }
                }
                Err(_) => {
                    self.readable = true;
                    self.out.clear();
                }
            }
        }
    }

    /// Skips the host's second answer to the preamble of this connection, when that is what the
    /// decoder holds. Asked when a frame cannot be decoded.
    pub(crate) fn skip_repeated_answer(&self, decoder: &mut Decoder) -> Skipped {
        let answer = preamble::encode(preamble::FROM_HOST, self.nonce);
        let held = decoder.take_pending();
        let (rest, skipped) = match held.strip_prefix(&answer) {
            Some(rest) => (rest, Skipped::Whole),
            None if answer.starts_with(&held) => (held.as_slice(), Skipped::NotYet),
            None => return Skipped::Nothing,
        };
        decoder.push(rest);
        skipped
    }
}

/// A number the connection before did not have, and not that of a knock. The random number generator is not seeded this
/// early; /dev/urandom would gather entropy first, for a second of computing, so it is asked for
/// what it has, and the clock has its part in it.
fn fresh_nonce(before: u64) -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer is as long as said. Without success it stays as it is.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_INSECURE) };
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| ((time.tv_sec() as u64) << 30) ^ time.tv_nsec() as u64);
    let nonce = u64::from_le_bytes(bytes) ^ now.rotate_left(17);
    if nonce == before || nonce == 0 { before.wrapping_add(1).max(1) } else { nonce }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_answer_of_the_host_is_skipped_even_in_pieces() {
        let link = Link::new();
        let answer = preamble::encode(preamble::FROM_HOST, 0);
        let mut decoder = Decoder::new();
        decoder.push(&answer[..10]);
        assert_eq!(link.skip_repeated_answer(&mut decoder), Skipped::NotYet);
        decoder.push(&answer[10..]);
        decoder.push(b"frame");
        assert_eq!(link.skip_repeated_answer(&mut decoder), Skipped::Whole);
        assert_eq!(decoder.pending(), 5);

        let mut decoder = Decoder::new();
        decoder.push(&preamble::encode(preamble::FROM_HOST, 1));
        assert_eq!(link.skip_repeated_answer(&mut decoder), Skipped::Nothing);
    }
}
