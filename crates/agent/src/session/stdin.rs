//! A session's standard input: what the host sent and the command has not taken yet.
//!
//! Bytes go straight on when the pipe takes them, else they wait here, at most one window of
//! them. Every byte is counted as passed on sooner or later, also those that a command which
//! closed its input will never read; else its client would wait for credit for ever.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use super::terminal;
use crate::events::{Channel, Epoll, Token};

/// Where input goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Pipe,
    Terminal,
    Socket,
}

/// The way in.
#[derive(Debug)]
pub(crate) struct Stdin {
    fd: Option<OwnedFd>,
    form: Form,
    token: Token,
    waiting: VecDeque<u8>,
    /// The host has sent its last byte.
    ended: bool,
    last_byte: u8,
    /// Epoll tells when more can be written.
    watched: bool,
}

impl Stdin {
    /// The writing end of a pipe, non-blocking.
    pub(crate) fn pipe(fd: OwnedFd, session: u32) -> Self {
        Self::new(Some(fd), Form::Pipe, session)
    }

    /// The master of a terminal, non-blocking.
    pub(crate) fn terminal(fd: OwnedFd, session: u32) -> Self {
        Self::new(Some(fd), Form::Terminal, session)
    }

    /// A connected socket, non-blocking; it is read elsewhere.
    pub(crate) fn socket(fd: OwnedFd, session: u32) -> Self {
        Self::new(Some(fd), Form::Socket, session)
    }

    /// Nobody reads: everything is thrown away.
    pub(crate) fn nowhere(session: u32) -> Self {
        Self::new(None, Form::Pipe, session)
    }

    fn new(fd: Option<OwnedFd>, form: Form, session: u32) -> Self {
        Self {
            fd,
            form,
            token: Token::session(session, Channel::Stdin),
            waiting: VecDeque::new(),
            ended: false,
            last_byte: b'\n',
            watched: false,
        }
    }

    /// Takes bytes of the host. Returns how many bytes were passed on, earlier ones among them.
    pub(crate) fn accept(&mut self, bytes: &[u8], epoll: &Epoll) -> usize {
        if self.ended || self.fd.is_none() {
            return bytes.len();
        }
        self.last_byte = bytes.last().copied().unwrap_or(self.last_byte);
        if !self.waiting.is_empty() {
            self.waiting.extend(bytes);
            return 0;
        }
        match self.write(bytes) {
            Some(count) => {
                self.waiting.extend(&bytes[count..]);
                self.watch(epoll);
                count
            }
            None => bytes.len(),
        }
    }

    /// The host has no more input. Returns how many bytes were passed on.
    pub(crate) fn end(&mut self, epoll: &Epoll) -> usize {
        if self.ended {
            return 0;
        }
        self.ended = true;
        if let (Form::Terminal, Some(fd)) = (self.form, &self.fd) {
            // Behind an unfinished line the first one only ends the line.
            let count = if self.last_byte == b'\n' { 1 } else { 2 };
            let character = terminal::end_of_file(fd);
            self.waiting.extend(std::iter::repeat_n(character, count));
        }
        self.flush(epoll)
    }

    /// Writes what waits, as far as it is taken. Returns how many of the host's bytes were passed
    /// on.
    pub(crate) fn flush(&mut self, epoll: &Epoll) -> usize {
        let mut passed_on = 0;
        loop {
            let (front, _) = self.waiting.as_slices();
            if front.is_empty() {
                break;
            }
            let wanted = front.len();
            // Moved out for the call, because the descriptor lives in the same structure.
            let waiting = std::mem::take(&mut self.waiting);
            let written = self.write(waiting.as_slices().0);
            self.waiting = waiting;
            let Some(count) = written else {
                passed_on += self.waiting.len();
                self.waiting = VecDeque::new();
                break;
            };
            self.waiting.drain(..count);
            passed_on += count;
            if count < wanted {
                self.watch(epoll);
                break;
            }
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            if self.ended {
                self.close_writing();
            }
        }
        passed_on
    }

    /// There will be no more, and all of it was taken.
    fn close_writing(&mut self) {
        match (self.form, &self.fd) {
            (Form::Terminal, _) | (_, None) => return,
            (Form::Pipe, _) => {}
            // The other direction goes on.
            (Form::Socket, Some(fd)) => {
                let _ = shutdown(fd.as_raw_fd(), Shutdown::Write);
            }
        }
        self.fd = None;
    }

    /// Whether nothing waits to be taken.
    pub(crate) fn is_flushed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether input waits for a terminal. Its kernel buffers have been seen to forget the
    /// wake-up, so it is tried again after a while.
    pub(crate) fn wants_retry(&self) -> bool {
        self.form == Form::Terminal && !self.waiting.is_empty()
    }

    /// Closes the way in; what waits is thrown away.
    pub(crate) fn close(&mut self) {
        self.fd = None;
        self.waiting = VecDeque::new();
    }

    /// Writes once or until all is written; `None` when nobody reads any more.
    fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        let fd = self.fd.as_ref()?;
        let mut done = 0;
        while done < bytes.len() {
            match nix::unistd::write(fd, &bytes[done..]) {
                Ok(count) => done += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => {
                    self.fd = None;
                    return None;
                }
            }
        }
        Some(done)
    }

    fn watch(&mut self, epoll: &Epoll) {
        if let (false, false, Some(fd)) = (self.watched, self.waiting.is_empty(), &self.fd) {
            self.watched = epoll.add_write(fd, self.token).is_ok();
        }
    }
}
