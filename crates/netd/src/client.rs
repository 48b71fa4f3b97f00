//! One connection: who is at its other end, and what is said.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use casemate_plan::helper::LONGEST_REQUEST;
use casemate_plan::network::FromKeeper;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockFlag, accept4, getsockopt, recv, sendmsg, sockopt,
};
use nix::unistd::{Uid, User};

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    /// Who connected: what the kernel said then, whoever has the socket now.
    pub(crate) uid: Uid,
    /// On whose account its requests are. All users without a name share one: each user has thousands
    /// of them (subuid(5)), and none of them gets a link.
    pub(crate) account: Option<Uid>,
    /// Since when.
    pub(crate) since: Instant,
    /// The link that it keeps.
    pub(crate) link: Option<u32>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing yet.
    Nothing,
    /// This many bytes.
    Packet(usize),
    /// More than any request has.
    Long,
    /// The end.
    End,
}

impl Client {
    /// The next that waits.
    pub(crate) fn accept(listener: &OwnedFd) -> Option<Self> {
        use std::os::fd::FromRawFd;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let number = accept4(listener.as_raw_fd(), flags).ok()?;
        #[expect(unsafe_code, reason = "nix gives the number alone")]
        // SAFETY: the kernel has just made this descriptor for this process.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let peer = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
        let uid = Uid::from_raw(peer.uid());
        let account = User::from_uid(uid).ok().flatten().map(|_| uid);
        Some(Self { socket, uid, account, since: Instant::now(), link: None })
    }

    /// Takes one packet. Descriptors that come with it are closed by the kernel: there is no room
    /// for them.
    pub(crate) fn hear(&self, buffer: &mut [u8]) -> Heard {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        match recv(self.socket.as_raw_fd(), buffer, flags) {
            Ok(0) => Heard::End,
            Ok(length) if length > LONGEST_REQUEST.min(buffer.len()) => Heard::Long,
            Ok(length) => Heard::Packet(length),
            Err(Errno::EAGAIN | Errno::EINTR) => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// Says something, with a descriptor. False when the other end does not listen.
    pub(crate) fn say(&self, message: &FromKeeper, descriptor: Option<&OwnedFd>) -> bool {
        let Ok(text) = serde_json::to_vec(message) else { return false };
        let numbers: Vec<i32> = descriptor.iter().map(|one| one.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&text)], rights, flags, None).is_ok()
    }

    /// Whether the other end is gone, though there may be packets of it.
    pub(crate) fn has_gone(&self) -> bool {
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        poll(&mut polled, PollTimeout::ZERO).is_ok()
            && polled[0].revents().is_some_and(|events| events.intersects(gone))
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
