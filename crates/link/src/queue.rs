//! Bytes that wait for a descriptor to take them.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, sendmsg};
use zeroize::Zeroize;

/// An outgoing queue of one socket. It does not bound itself: who fills it looks at [`Self::len`].
#[derive(Debug, Default)]
pub(crate) struct Queue {
    bytes: Vec<u8>,
    start: usize,
    /// Bytes that may still go; all when none.
    held: Option<usize>,
    /// What waits is overwritten once it has gone.
    secret: bool,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// So many bytes left the queue, perhaps none.
    Some(usize),
    /// The other end is closed.
    Closed,
}

impl Queue {
    /// Bytes waiting.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that may go now.
    fn sendable(&self) -> usize {
        self.held.map_or(self.len(), |left| left.min(self.len()))
    }

    /// Something may go now.
    pub(crate) fn has_sendable(&self) -> bool {
        self.sendable() > 0
    }

    /// Lets nothing go but what waits already.
    pub(crate) fn hold(&mut self) {
        self.held = Some(self.len());
    }

    /// Lets everything go again.
    pub(crate) fn release(&mut self) {
        self.held = None;
    }

    /// What waits holds keys: no copy of it stays.
    pub(crate) fn keep_secret(&mut self) {
        self.secret = true;
    }

    /// Where to append.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        &mut self.bytes
    }

    /// Writes what the socket takes without waiting.
    pub(crate) fn flush(&mut self, socket: &impl AsFd) -> Written {
        let mut total = 0;
        while self.has_sendable() {
            let end = self.start + self.sendable();
            match send(socket, &[IoSlice::new(&self.bytes[self.start..end])]) {
                Written::Closed => return Written::Closed,
                Written::Some(0) => break,
                Written::Some(count) => {
                    self.start += count;
                    total += count;
                    self.held = self.held.map(|left| left - count);
                }
            }
        }
        if self.start == self.bytes.len() {
            if std::mem::take(&mut self.secret) {
                self.bytes.zeroize();
            }
            self.bytes.clear();
            self.start = 0;
            // Give the memory of a burst back; a busy queue keeps what it usually needs.
            self.bytes.shrink_to(256 * 1024);
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        Written::Some(total)
    }

    /// Sends `header` and `payload` past the queue when it is empty, and queues what the socket
    /// does not take. Saves the copy in the usual case of a reader that keeps up.
    pub(crate) fn send_or_queue(
        &mut self,
        socket: &impl AsFd,
        header: &[u8],
        payload: &[u8],
    ) -> Written {
        let sent = if self.is_empty() && self.held.is_none() {
            match send(socket, &[IoSlice::new(header), IoSlice::new(payload)]) {
                Written::Closed => return Written::Closed,
                Written::Some(count) => count,
            }
        } else {
            0
        };
        let tail = self.tail();
        tail.extend_from_slice(&header[sent.min(header.len())..]);
        tail.extend_from_slice(&payload[sent.saturating_sub(header.len())..]);
        Written::Some(sent)
    }
}

/// One non-blocking write to a socket, without SIGPIPE.
fn send(socket: &impl AsFd, pieces: &[IoSlice<'_>]) -> Written {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(socket.as_fd().as_raw_fd(), pieces, &[], flags, None) {
            Ok(count) => return Written::Some(count),
            Err(Errno::EAGAIN) => return Written::Some(0),
            Err(Errno::EINTR) => {}
            Err(_) => return Written::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_comes_behind_a_hold_waits_for_the_release() {
        let (ours, mut theirs) = UnixStream::pair().expect("made");
        theirs.set_nonblocking(true).expect("set");
        let mut heard = || {
            let mut bytes = [0; 16];
            let count = theirs.read(&mut bytes).unwrap_or(0);
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        let mut queue = Queue::default();
        queue.tail().extend_from_slice(b"before");
        queue.hold();
        queue.tail().extend_from_slice(b"be");
        queue.flush(&ours);
        assert_eq!(heard(), "before");
        assert!(!queue.has_sendable() && queue.len() == 2);
        queue.send_or_queue(&ours, b"hi", b"nd");
        queue.flush(&ours);
        assert_eq!(heard(), "");
        queue.release();
        queue.flush(&ours);
        assert_eq!(heard(), "behind");
        // Nothing waited: nothing may go past it all the same.
        queue.hold();
        queue.send_or_queue(&ours, b"x", b"");
        queue.flush(&ours);
        assert_eq!(heard(), "");
    }
}
