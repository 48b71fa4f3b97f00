//! The agent's virtio-serial port, as the host sees it: a socket to the VMM.
//!
//! Finds the connection's beginning, cuts the rest into frames, and counts control messages so
//! that a flood is noticed.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use casemate_wire::limits::MAX_MESSAGES_PER_SECOND;
use casemate_wire::message::{Assembler, push_message};
use casemate_wire::preamble::{FROM_GUEST, FROM_HOST, Hunter, encode, knock};
use casemate_wire::{Decoder, FromHost};

use crate::queue::Queue;

/// The port and the state of the connection on it.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) socket: OwnedFd,
    pub(crate) outgoing: Queue,
    pub(crate) decoder: Decoder,
    pub(crate) assembler: Assembler,
    /// Present while the beginning of the connection is looked for.
    hunter: Option<Hunter>,
    /// The agent has said Hello on this connection.
    pub(crate) greeted: bool,
    second: Instant,
    messages: u32,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Nothing more for now.
    Nothing,
    /// Bytes, in the decoder.
    Bytes,
    /// A new connection begins; frames of it may be in the decoder.
    Connected,
    /// The VMM closed the port.
    Closed,
}

impl Port {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            outgoing: Queue::default(),
            decoder: Decoder::new(),
            assembler: Assembler::default(),
            hunter: Some(Hunter::for_host()),
            greeted: false,
            second: Instant::now(),
            messages: 0,
        }
    }

    /// Forgets the connection and looks for the next.
    pub(crate) fn reopen(&mut self) {
        self.decoder = Decoder::new();
        self.assembler = Assembler::default();
        self.hunter = Some(Hunter::for_host());
        self.greeted = false;
    }

    /// Reads once, without waiting.
    pub(crate) fn read(&mut self) -> Input {
        let count = loop {
            let space = self.decoder.space();
            match recv(self.socket.as_raw_fd(), space, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Input::Closed,
                Ok(count) => break count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Input::Nothing,
                Err(_) => return Input::Closed,
            }
        };
        self.decoder.filled(count);
        if self.hunter.is_none() {
            return Input::Bytes;
        }
        let bytes = self.decoder.take_pending();
        if self.hunt(&bytes) { Input::Connected } else { Input::Bytes }
    }

    /// A new connection may begin where a frame would: its preamble is no frame. Tells whether one
    /// did; it has been answered then.
    pub(crate) fn begins_anew(&mut self) -> bool {
        if self.hunter.is_some() || !self.decoder.starts_with(&FROM_GUEST) {
            return false;
        }
        let bytes = self.decoder.take_pending();
        self.reopen();
        self.hunt(&bytes)
    }

    /// Looks for the connection's beginning in `bytes`; true when it was there.
    fn hunt(&mut self, bytes: &[u8]) -> bool {
        let Some(hunter) = self.hunter.as_mut() else { return false };
        let Some((nonce, used)) = hunter.feed(bytes) else { return false };
        self.hunter = None;
        // Whatever was queued belongs to the connection before.
        self.outgoing = Queue::default();
        self.outgoing.tail().extend_from_slice(&encode(FROM_HOST, nonce));
        self.decoder.push(&bytes[used..]);
        true
    }

    /// Asks the agent to begin a new connection, whatever it was in the middle of.
    pub(crate) fn knock(&mut self) {
        self.outgoing.tail().extend_from_slice(&knock());
    }

    /// Queues a control message. Too long a message is the supervisor's mistake and is dropped
    /// with a word to its log.
    pub(crate) fn say(&mut self, message: &FromHost) {
        if let Err(error) = push_message(self.outgoing.tail(), message) {
            // Standard error may be a file on a full disk.
            let _ = writeln!(
                std::io::stderr(),
                "casemate-link: could not send a message to the agent: {error}"
            );
        }
    }

    /// Counts a control message; false when the guest floods.
    pub(crate) fn count_message(&mut self) -> bool {
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.second = Instant::now();
            self.messages = 0;
        }
        self.messages += 1;
        self.messages <= MAX_MESSAGES_PER_SECOND
    }
}
