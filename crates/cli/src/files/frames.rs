//! Files as frames on a session's socket: what is written becomes frames, and of frames the contents are
//! read.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use casemate_wire::limits::MAX_PAYLOAD;
use casemate_wire::{Decoder, ExitStatus, HEADER_LEN, Kind, decode, encode_header};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Bytes of what the other side says aside that are kept.
const MAX_SAID: usize = 2048;

/// Writes the standard input of a session.
pub(super) struct FrameWriter<'a> {
    socket: &'a UnixStream,
    frame: Vec<u8>,
}

impl<'a> FrameWriter<'a> {
    pub(super) fn new(socket: &'a UnixStream) -> Self {
        Self { socket, frame: Vec::with_capacity(HEADER_LEN + MAX_PAYLOAD) }
    }

    /// Nothing more will come.
    pub(super) fn end(&mut self) -> io::Result<()> {
        send(self.socket, Kind::Stdin, &[])
    }
}

impl Write for FrameWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(MAX_PAYLOAD);
        if count > 0 {
            self.frame.clear();
            self.frame.extend_from_slice(&encode_header(0, Kind::Stdin, count));
            self.frame.extend_from_slice(&bytes[..count]);
            self.socket.write_all(&self.frame)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends one frame.
pub(crate) fn send(mut socket: &UnixStream, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let mut frame = encode_header(0, kind, payload.len()).to_vec();
    frame.extend_from_slice(payload);
    socket.write_all(&frame)
}

/// Reads what the other side of a session says.
pub(crate) struct FrameReader<'a> {
    socket: UnixStream,
    decoder: Decoder,
    /// Frames with this are read.
    wanted: Kind,
    held: Vec<u8>,
    at: usize,
    over: bool,
    /// How it ended, if it has said so.
    pub(crate) status: Option<ExitStatus>,
    /// What it said aside, a part of it.
    pub(crate) said: Vec<u8>,
    /// When this is closed at its other end, nobody waits for it any more.
    listener: BorrowedFd<'a>,
}

impl<'a> FrameReader<'a> {
    /// `wanted` is [`Kind::Stdin`] for who serves a call, else [`Kind::Stdout`].
    pub(crate) fn new(socket: UnixStream, wanted: Kind, listener: BorrowedFd<'a>) -> Self {
        let decoder = Decoder::new();
        let (held, said) = (Vec::with_capacity(MAX_PAYLOAD), Vec::new());
        Self { socket, decoder, wanted, held, at: 0, over: false, status: None, said, listener }
    }

    /// Waits until the session has said how it ended.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        while self.status.is_none() && (self.next_frame()? || self.more()?) {
            self.held.clear();
            self.at = 0;
        }
        Ok(())
    }

    /// Looks at a frame that is there; false when none is.
    fn next_frame(&mut self) -> io::Result<bool> {
        let violation = || io::Error::from(io::ErrorKind::InvalidData);
        let Some(frame) = self.decoder.next_frame().map_err(|_| violation())? else {
            return Ok(false);
        };
        match frame.kind {
            kind if kind == self.wanted && frame.payload.is_empty() => self.over = true,
            kind if kind == self.wanted => {
                self.held.clear();
                self.held.extend_from_slice(frame.payload);
                self.at = 0;
            }
            Kind::Started => {}
            Kind::Stderr => {
                let room = MAX_SAID.saturating_sub(self.said.len()).min(frame.payload.len());
                self.said.extend_from_slice(&frame.payload[..room]);
            }
            Kind::Exit => {
                self.status = Some(decode(frame.payload).map_err(|_| violation())?);
                self.over = true;
            }
            _ => return Err(violation()),
        }
        Ok(true)
    }

    /// Waits for more of the socket; false at its end.
    fn more(&mut self) -> io::Result<bool> {
        loop {
            let mut watched = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.listener, PollFlags::empty()),
            ];
            match poll(&mut watched, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                other => other?,
            };
            if watched[1].any() == Some(true) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match self.socket.read(self.decoder.space()) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.decoder.filled(count);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Read for FrameReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.held.len() && !self.over {
            if !self.next_frame()? && !self.more()? {
                self.over = true;
            }
        }
        let count = (self.held.len() - self.at).min(into.len());
        into[..count].copy_from_slice(&self.held[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
