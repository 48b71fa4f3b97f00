//! The control socket: how a supervisor looks into a switch, and adds and removes ports while it
//! runs.
//!
//! A packet socket (`SOCK_SEQPACKET`), one JSON object in each packet. Whoever can connect is
//! trusted: the socket is its owner's, or was inherited from a supervisor that knows whom it lets
//! there. Nothing here parses a guest's bytes.
//!
//! | request | beside it | answer |
//! |---|---|---|
//! | `{"stats":{}}` | | `{"ports":[...]}`: counters, drops by reason, latency of the last probe |
//! | `{"add":{"name","role","mac","ip":[],"not-from":[],"held"}}` | a listening socket | `{"ok":{}}`; a port that is `held` goes with whoever added it |
//! | `{"remove":{"name"}}` | | `{"ok":{}}` |
//! | `{"probe":{"name"}}` | | `{"ok":{}}`; the latency is in `stats` when an answer has come |
//! | `{"capture":{"name"}}` | a packet socket | `{"ok":{}}`; pcap follows there: its header, then each frame as a packet. One that finds no room is left out |
//! | `{"stop-capture":{}}` | | `{"ok":{}}` |
//! | `{"watch":{}}` | | `{"ok":{}}`; each [`Event`] follows as `{"event":{...}}` |
//!
//! What cannot be done is answered by `{"error":"..."}`. A client that does not read its answers is
//! sent away.

mod answer;
mod capture;
pub mod request;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{SockFlag, accept4};
use serde_json::{Value, json};

use crate::descriptor;
use crate::forward::Recorded;
use crate::rules::MAX_PORTS;
use crate::switch::Event;
use capture::Capture;

/// Clients at a time: whoever keeps a port is one, and some have questions.
const CLIENTS: usize = MAX_PORTS + 32;

/// Requests of a client that are answered before it is somebody else's turn.
const REQUESTS: usize = 16;

/// The longest request in bytes.
pub const MAX_REQUEST: usize = 4096;

/// The control socket, its clients, and what they asked for.
#[derive(Debug, Default)]
pub struct Control {
    listener: Option<OwnedFd>,
    clients: Vec<Option<Client>>,
    allow_capture: bool,
    capture: Option<Capture>,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    watches: bool,
}

impl Control {
    pub(crate) fn new(allow_capture: bool) -> Self {
        Self { allow_capture, ..Self::default() }
    }

    pub(crate) fn set_listener(&mut self, listener: OwnedFd) -> BorrowedFd<'_> {
        let listener: &OwnedFd = self.listener.insert(listener);
        listener.as_fd()
    }

    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Takes a new client; says its number, or nothing, if it is one too many.
    ///
    /// # Errors
    /// Descriptors are used up.
    pub(crate) fn accept(&mut self) -> nix::Result<Option<usize>> {
        let Some(listener) = &self.listener else { return Ok(None) };
        let socket = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        let socket = descriptor::inherited(socket);
        let free = match self.clients.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.clients.len() < CLIENTS => {
                self.clients.push(None);
                self.clients.len() - 1
            }
            None => return Ok(None),
        };
        self.clients[free] = Some(Client { socket, watches: false });
        Ok(Some(free))
    }

    pub(crate) fn socket(&self, client: usize) -> Option<BorrowedFd<'_>> {
        Some(self.clients.get(client)?.as_ref()?.socket.as_fd())
    }

    /// Somebody was a client, and nobody is.
    pub(crate) fn is_deserted(&self) -> bool {
        !self.clients.is_empty() && self.clients.iter().all(Option::is_none)
    }

    pub(crate) fn forget(&mut self, client: usize) {
        if let Some(client) = self.clients.get_mut(client) {
            *client = None;
        }
    }

    fn watch(&mut self, client: usize) {
        if let Some(Some(client)) = self.clients.get_mut(client) {
            client.watches = true;
        }
    }

    /// Sends an answer. Says whether it went.
    fn send(&self, client: usize, answer: &Value) -> bool {
        let bytes = answer.to_string();
        let socket = self.socket(client);
        socket.is_some_and(|socket| descriptor::send(socket, bytes.as_bytes(), &[]).is_ok())
    }

    /// Tells all who watch. One who does not read misses it.
    pub(crate) fn tell(&mut self, event: &Event) {
        let message = json!({ "event": {
            "kind": event.kind(), "port": event.port(), "text": event.to_string(),
        }});
        for number in 0..self.clients.len() {
            if self.clients[number].as_ref().is_some_and(|client| client.watches) {
                self.send(number, &message);
            }
        }
    }

    /// Whoever reads recorded frames sees their end.
    pub(crate) fn stop_capture(&mut self) {
        self.capture = None;
    }

    /// Writes recorded frames. Says whether recording goes on.
    pub(crate) fn record(&mut self, frames: &mut Vec<Recorded>) -> bool {
        let written = match &mut self.capture {
            Some(capture) => frames.iter().all(|frame| capture.write(frame).is_ok()),
            None => false,
        };
        frames.clear();
        if !written {
            self.capture = None;
        }
        written
    }
}
