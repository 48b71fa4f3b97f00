//! What wakes the process: descriptors and what each of them means, by epoll(7).

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::forward::Queue;

/// What a descriptor means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// SIGTERM or SIGINT.
    Signal,
    /// Somebody wants to connect to this port.
    Listener(usize),
    /// This port's front-end has said something.
    Socket(usize),
    /// This port's guest has kicked one of its rings.
    Kick(usize, Queue),
    /// Somebody wants to connect to the control socket.
    Control,
    /// A client of the control socket has said something.
    Client(usize),
}

impl Source {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Signal => (0, 0),
            Self::Listener(port) => (1, port),
            Self::Socket(port) => (2, port),
            Self::Kick(port, Queue::Receive) => (3, port),
            Self::Kick(port, Queue::Transmit) => (4, port),
            Self::Control => (5, 0),
            Self::Client(client) => (6, client),
        };
        kind << 32 | number as u64
    }

    fn decode(word: u64) -> Option<Self> {
        let number = (word & u64::from(u32::MAX)) as usize;
        Some(match word >> 32 {
            0 => Self::Signal,
            1 => Self::Listener(number),
            2 => Self::Socket(number),
            3 => Self::Kick(number, Queue::Receive),
            4 => Self::Kick(number, Queue::Transmit),
            5 => Self::Control,
            6 => Self::Client(number),
            _ => return None,
        })
    }
}

/// Events that are taken at once.
const EVENTS: usize = 64;

/// All descriptors that are watched.
#[derive(Debug)]
pub(crate) struct Watch {
    epoll: Epoll,
}

impl Watch {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Watches for something to read.
    pub(crate) fn add(&self, descriptor: impl AsFd, source: Source) -> Result<(), Errno> {
        self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, source.encode()))
    }

    /// Watches an eventfd. It is never read: each write to it is an event.
    pub(crate) fn add_kick(&self, descriptor: impl AsFd, source: Source) -> Result<(), Errno> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(descriptor, EpollEvent::new(flags, source.encode()))
    }

    /// Goes on watching, or pauses: then only the end is told.
    pub(crate) fn listen(
        &self,
        descriptor: impl AsFd,
        source: Source,
        listen: bool,
    ) -> Result<(), Errno> {
        let flags = if listen { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        self.epoll.modify(descriptor, &mut EpollEvent::new(flags, source.encode()))
    }

    /// Has to come before a descriptor is closed: front-ends have copies, by which it would stay.
    pub(crate) fn remove(&self, descriptor: impl AsFd) {
        let _ = self.epoll.delete(descriptor);
    }

    /// Waits for at most `milliseconds`, or as long as it takes. Says what happened, and whether
    /// it was the end of a descriptor.
    pub(crate) fn wait(&self, milliseconds: Option<u16>) -> Result<Vec<(Source, bool)>, Errno> {
        let timeout = milliseconds.map_or(EpollTimeout::NONE, EpollTimeout::from);
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        let end = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let decode = |event: &EpollEvent| {
            Some((Source::decode(event.data())?, event.events().intersects(end)))
        };
        Ok(events[..count].iter().filter_map(decode).collect())
    }
}
