//! One end of a Wayland connection: messages in, messages out, descriptors beside them, all of it
//! bounded and without waiting.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::fault::Fault;
use crate::limits;
use crate::protocol::Kind;
use crate::wire::{self, Arg, HEADER, Header};

/// A socket with what came and what shall go.
#[derive(Debug)]
pub struct Endpoint {
    socket: OwnedFd,
    input: Vec<u8>,
    /// Bytes of `input` that were taken.
    taken: usize,
    fds: VecDeque<OwnedFd>,
    output: Vec<u8>,
    /// Bytes of `output` that were sent.
    sent: usize,
    /// Descriptors to send, each with where in `output` its message begins.
    output_fds: VecDeque<(usize, OwnedFd)>,
}

impl Endpoint {
    /// Takes a connected socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            input: Vec::new(),
            taken: 0,
            fds: VecDeque::new(),
            output: Vec::new(),
            sent: 0,
            output_fds: VecDeque::new(),
        }
    }

    /// Reads once, at most [`limits::READ`] bytes. False at the end of the connection.
    ///
    /// # Errors
    /// The socket failed, or more descriptors came than messages can have asked for.
    pub fn read(&mut self) -> Result<bool, Fault> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let begin = self.input.len();
        self.input.resize(begin + limits::READ, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(limits::FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut self.input[begin..])];
            match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                self.input.truncate(begin);
                return match error {
                    Errno::AGAIN => Ok(true),
                    Errno::CONNRESET | Errno::PIPE => Ok(false),
                    other => Err(Fault::Socket(other.into())),
                };
            }
        };
        self.input.truncate(begin + received.bytes);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        let cut = received.flags.contains(ReturnFlags::CTRUNC);
        if cut || self.fds.len() > limits::FDS_WAITING {
            return Err(Fault::limit("descriptors beside its messages", limits::FDS_WAITING));
        }
        Ok(received.bytes > 0)
    }

    /// The header of the next message, when all of it is there.
    ///
    /// # Errors
    /// Its length cannot be.
    pub fn next(&self) -> Result<Option<Header>, Fault> {
        let waiting = &self.input[self.taken..];
        Ok(wire::header(waiting)?.filter(|header| header.length <= waiting.len()))
    }

    /// The arguments of the message whose header [`Self::next`] has returned.
    ///
    /// # Errors
    /// They are not as they should be.
    pub fn take(&mut self, header: Header, kinds: &[Kind]) -> Result<Vec<Arg>, Fault> {
        let end = (self.taken + header.length).min(self.input.len());
        let body = &self.input[(self.taken + HEADER).min(end)..end];
        let arguments = wire::decode(kinds, body, &mut self.fds)?;
        self.taken = end;
        Ok(arguments)
    }

    /// Puts a message behind those to send.
    ///
    /// # Errors
    /// It is too long.
    pub fn put(&mut self, object: u32, opcode: u16, arguments: Vec<Arg>) -> Result<(), Fault> {
        if self.sent > 0 && self.sent >= self.output.len() / 2 {
            self.compact();
        }
        let begin = self.output.len();
        let mut fds = Vec::new();
        wire::encode(object, opcode, arguments, &mut self.output, &mut fds)?;
        self.output_fds.extend(fds.into_iter().map(|fd| (begin, fd)));
        Ok(())
    }

    fn compact(&mut self) {
        self.output.drain(..self.sent);
        for (begin, _) in &mut self.output_fds {
            // Those of sent bytes are sent, so none begins before.
            *begin = begin.saturating_sub(self.sent);
        }
        self.sent = 0;
    }

    /// Sends what the socket takes. False when the other side is gone.
    ///
    /// # Errors
    /// The socket failed.
    pub fn flush(&mut self) -> Result<bool, Fault> {
        while self.sent < self.output.len() {
            match self.send_some() {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
                Err(other) => return Err(Fault::Socket(other.into())),
            }
        }
        self.output.clear();
        self.sent = 0;
        // What one flood needed is not kept for good.
        self.output.shrink_to(limits::READ);
        self.input.shrink_to(2 * limits::READ);
        Ok(true)
    }

    /// One sendmsg: descriptors go with the first byte of their message or before it.
    fn send_some(&mut self) -> Result<usize, Errno> {
        // The kernel takes so many at a time; the message of the next one has to wait.
        let end = self.output_fds.get(limits::FDS).map_or(self.output.len(), |&(begin, _)| begin);
        let end = if end > self.sent { end } else { self.output.len().min(self.sent + 1) };
        let count = self.output_fds.len().min(limits::FDS);
        let fds: Vec<BorrowedFd<'_>> =
            self.output_fds.iter().take(count).map(|(_, fd)| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(limits::FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let parts = [IoSlice::new(&self.output[self.sent..end])];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = sendmsg(&self.socket, &parts, &mut ancillary, flags)?;
        self.output_fds.drain(..count);
        Ok(sent)
    }

    /// Bytes that are not sent.
    pub fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Descriptors that are not sent.
    pub fn waiting_fds(&self) -> usize {
        self.output_fds.len()
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Two connected sockets.
///
/// # Errors
/// The kernel has none left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (Endpoint, Endpoint) {
        let (a, b) = pair().expect("a pair");
        (Endpoint::new(a), Endpoint::new(b))
    }

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("/dev/null").into()
    }

    #[test]
    fn half_a_message_waits_for_the_other_half() {
        let (mut a, b) = ends();
        let bytes = [1_u32.to_ne_bytes(), (12_u32 << 16).to_ne_bytes(), 9_u32.to_ne_bytes()];
        for piece in bytes.concat().chunks(5) {
            assert!(a.next().expect("valid").is_none());
            rustix::io::write(&b, piece).expect("written");
            assert!(a.read().expect("read"));
        }
        let header = a.next().expect("valid").expect("whole");
        assert!(matches!(a.take(header, &[Kind::Uint]).as_deref(), Ok([Arg::Uint(9)])));
        assert!(a.next().expect("valid").is_none());
    }

    #[test]
    fn descriptors_arrive_with_their_messages_however_many() {
        let (mut a, mut b) = ends();
        for _ in 0..3 * limits::FDS {
            a.put(5, 0, vec![Arg::Fd(descriptor()), Arg::Uint(1)]).expect("short");
        }
        let mut seen = 0;
        while seen < 3 * limits::FDS {
            assert!(a.flush().expect("sent"));
            assert!(b.read().expect("read"));
            while let Some(header) = b.next().expect("valid") {
                b.take(header, &[Kind::Fd, Kind::Uint]).expect("with its descriptor");
                seen += 1;
            }
        }
        assert_eq!((a.waiting(), a.waiting_fds()), (0, 0));
    }

    #[test]
    fn descriptors_that_no_message_asks_for_are_bounded() {
        let (mut a, mut b) = ends();
        let mut failed = false;
        for _ in 0..limits::FDS_WAITING + 1 {
            // An Fd that the reader's definition does not have.
            a.put(5, 0, vec![Arg::Fd(descriptor())]).expect("short");
            a.flush().expect("sent");
            match b.read() {
                Ok(_) => {
                    let header = b.next().expect("valid").expect("whole");
                    b.take(header, &[]).expect("no argument");
                }
                Err(_) => failed = true,
            }
        }
        assert!(failed);
    }
}
