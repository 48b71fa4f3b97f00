//! Reading messages from a socket that may stop in the middle of one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::message::{HEADER, Header, MAX_DESCRIPTORS, MAX_PAYLOAD, Message, MessageError, Reply};
use crate::descriptor;

/// A connection to a front-end.
#[derive(Debug)]
pub struct Stream {
    socket: OwnedFd,
    buffer: [u8; HEADER + MAX_PAYLOAD],
    filled: usize,
    descriptors: VecDeque<OwnedFd>,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The front-end has closed it.
    #[error("the front-end has gone")]
    Closed,
    /// It cannot be read or written.
    #[error("could not use the socket")]
    Socket(#[from] Errno),
    /// What came is no message.
    #[error("not a message of the protocol")]
    Message(#[from] MessageError),
    /// The front-end does not read what it asked for.
    #[error("the front-end does not read its replies")]
    Unread,
}

impl Stream {
    /// Over a connected socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        let buffer = [0; HEADER + MAX_PAYLOAD];
        Self { socket, buffer, filled: 0, descriptors: VecDeque::new() }
    }

    /// The next message and its descriptors; nothing, if it is not complete yet. Never blocks.
    ///
    /// # Errors
    /// The connection is over.
    pub fn receive(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, StreamError> {
        loop {
            let target = match self.header()? {
                None => HEADER,
                Some(header) if self.filled == HEADER + header.length => {
                    return self.take(header).map(Some);
                }
                Some(header) => HEADER + header.length,
            };
            // At most to the end of the message: descriptors come with its first byte.
            let part = &mut self.buffer[self.filled..target];
            let (length, descriptors) = match descriptor::receive(self.socket.as_fd(), part) {
                Ok(Some(read)) => read,
                // More came than a message can have; the kernel has thrown the rest away.
                Ok(None) => return Err(too_many(MAX_DESCRIPTORS + 1)),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if length == 0 {
                return Err(StreamError::Closed);
            }
            self.filled += length;
            self.descriptors.extend(descriptors);
            if self.descriptors.len() > MAX_DESCRIPTORS {
                return Err(too_many(self.descriptors.len()));
            }
        }
    }

    fn header(&self) -> Result<Option<Header>, MessageError> {
        match self.buffer[..self.filled].first_chunk() {
            Some(bytes) => Header::decode(*bytes).map(Some),
            None => Ok(None),
        }
    }

    fn take(&mut self, header: Header) -> Result<(Message, Vec<OwnedFd>), StreamError> {
        self.filled = 0;
        let descriptors = Vec::from(std::mem::take(&mut self.descriptors));
        let message = Message::decode(header, &self.buffer[HEADER..HEADER + header.length])?;
        let (have, want) = (descriptors.len(), message.descriptors());
        match have == want {
            true => Ok((message, descriptors)),
            false => Err(MessageError::Descriptors { have, want }.into()),
        }
    }

    /// Sends a reply. Never blocks.
    ///
    /// # Errors
    /// The connection is over, or the front-end has left so many replies unread that there is no
    /// room for one more.
    pub fn reply(&self, reply: Reply) -> Result<(), StreamError> {
        let bytes = reply.encode();
        match descriptor::send(self.socket.as_fd(), &bytes, &[]) {
            Ok(length) if length == bytes.len() => Ok(()),
            Ok(_) | Err(Errno::EAGAIN) => Err(StreamError::Unread),
            Err(error) => Err(error.into()),
        }
    }
}

fn too_many(have: usize) -> StreamError {
    MessageError::Descriptors { have, want: MAX_DESCRIPTORS }.into()
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
