//! The serial console: viewers, and a log made harmless.
//!
//! Console bytes are passed on, never interpreted. Interactive viewers get them as they are (they
//! are a terminal, as with any serial console); the log and the viewers of boot messages get lines
//! with every control sequence made visible.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv};

use casemate_wire::text::harmless_bytes;

use crate::queue::{Queue, Written};

/// Output replayed to a new viewer, in bytes: about two screens.
const REPLAY: usize = 8 * 1024;

/// Output a viewer may be behind before it misses some, in bytes.
const VIEWER_LIMIT: usize = 128 * 1024;

/// Typed bytes that may wait for the guest before viewers are not read.
const INPUT_LIMIT: usize = 4 * 1024;

/// Longest line in the log before it is broken, in bytes.
const LINE_LIMIT: usize = 1024;

/// Size at which the log starts anew, in bytes.
const LOG_LIMIT: u64 = 4 * 1024 * 1024;

/// The console of one guest.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) socket: OwnedFd,
    pub(crate) to_guest: Queue,
    pub(crate) viewers: BTreeMap<u32, Viewer>,
    log: File,
    recent: Vec<u8>,
    line: Vec<u8>,
    next_viewer: u32,
}

/// Somebody who watches.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) socket: OwnedFd,
    pub(crate) watched: Option<EpollFlags>,
    interactive: bool,
    queue: Queue,
}

impl Console {
    pub(crate) fn new(socket: OwnedFd, log: File) -> Self {
        Self {
            socket,
            to_guest: Queue::default(),
            viewers: BTreeMap::new(),
            log,
            recent: Vec::new(),
            line: Vec::new(),
            next_viewer: 0,
        }
    }

    /// Adds a viewer, shows it the last of the output, and returns its number.
    pub(crate) fn add_viewer(&mut self, socket: OwnedFd, interactive: bool) -> u32 {
        let number = self.next_viewer;
        self.next_viewer = self.next_viewer.wrapping_add(1);
        let mut queue = Queue::default();
        if interactive {
            queue.tail().extend_from_slice(&self.recent);
        } else {
            let text = harmless_bytes(&self.recent, usize::MAX);
            queue.tail().extend_from_slice(text.replace("\\u{d}", "").as_bytes());
        }
        self.viewers.insert(number, Viewer { socket, watched: None, interactive, queue });
        number
    }

    /// Reads the guest's output once and hands it on; false when the VMM closed the console.
    pub(crate) fn read_guest(&mut self) -> bool {
        let mut buffer = [0u8; 16 * 1024];
        match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => false,
            Ok(count) => {
                self.output(&buffer[..count]);
                true
            }
            Err(Errno::EAGAIN | Errno::EINTR) => true,
            Err(_) => false,
        }
    }

    fn output(&mut self, bytes: &[u8]) {
        self.recent.extend_from_slice(bytes);
        if self.recent.len() > REPLAY {
            self.recent.drain(..self.recent.len() - REPLAY);
        }
        for viewer in self.viewers.values_mut().filter(|viewer| viewer.interactive) {
            viewer.show(bytes);
        }
        for &byte in bytes {
            if byte == b'\n' || self.line.len() >= LINE_LIMIT {
                self.end_line();
            }
            if byte != b'\n' && byte != b'\r' {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let mut text = harmless_bytes(&self.line, 2 * LINE_LIMIT);
        text.push('\n');
        self.line.clear();
        for viewer in self.viewers.values_mut().filter(|viewer| !viewer.interactive) {
            viewer.show(text.as_bytes());
        }
        if self.log.metadata().is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
            let _ = self.log.set_len(0).and_then(|()| self.log.rewind());
        }
        // A full disk loses log, nothing else.
        let _ = self.log.write_all(text.as_bytes());
    }

    /// What to watch a viewer for.
    pub(crate) fn wants(&self, viewer: &Viewer) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        if !viewer.queue.is_empty() {
            flags |= EpollFlags::EPOLLOUT;
        }
        if self.to_guest.len() < INPUT_LIMIT {
            flags |= EpollFlags::EPOLLIN;
        }
        flags
    }

    /// Serves a viewer; false when it is gone.
    pub(crate) fn serve_viewer(&mut self, number: u32, events: EpollFlags) -> bool {
        let Some(viewer) = self.viewers.get_mut(&number) else { return true };
        if events.contains(EpollFlags::EPOLLOUT)
            && viewer.queue.flush(&viewer.socket) == Written::Closed
        {
            return false;
        }
        if !events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return true;
        }
        let mut buffer = [0u8; 1024];
        match recv(viewer.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => false,
            Ok(count) => {
                if viewer.interactive {
                    self.to_guest.tail().extend_from_slice(&buffer[..count]);
                    let _ = self.to_guest.flush(&self.socket);
                }
                true
            }
            Err(Errno::EAGAIN | Errno::EINTR) => true,
            Err(_) => false,
        }
    }
}

impl Viewer {
    fn show(&mut self, bytes: &[u8]) {
        if self.queue.len() < VIEWER_LIMIT {
            // A viewer that is gone is noticed when its socket reports it.
            let _ = self.queue.send_or_queue(&self.socket, &[], bytes);
        }
    }
}
