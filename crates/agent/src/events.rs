//! Waiting: one epoll instance, edge-triggered, and what its 64-bit tokens stand for.
//!
//! Edge-triggered because a port whose host end is closed reports a hang-up for as long as it is
//! closed, and because readiness is then remembered by its owner instead of costing a system call
//! whenever a session may or may not send.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Which of a session's descriptors an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Its standard input can take more.
    Stdin = 0,
    /// Its standard output (or terminal) can be read.
    Stdout = 1,
    /// Its standard error can be read.
    Stderr = 2,
    /// Its program runs now, or could not be started; of a call, its caller has gone.
    Start = 3,
}

/// The number that epoll gives back with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(u64);

impl Token {
    /// The port of the link.
    pub(crate) const PORT: Self = Self(0);
    /// The signal descriptor.
    pub(crate) const SIGNALS: Self = Self(1);
    /// The kernel's news of its devices.
    pub(crate) const UEVENTS: Self = Self(2);
    /// A process that freezes a file system.
    pub(crate) const FREEZE: Self = Self(3);
    /// Programs that want to call.
    pub(crate) const CALLS: Self = Self(1 << 40);

    /// Programs that want to show windows.
    pub(crate) const DISPLAY: Self = Self(1 << 40 | 1);
    /// waypipe, which carries them.
    pub(crate) const WINDOWS: Self = Self(1 << 40 | 2);
    /// X11 programs that want to show windows.
    pub(crate) const X11: Self = Self(1 << 40 | 3);

    /// A program whose call with this number waits.
    pub(crate) fn caller(call: u32) -> Self {
        Self(1 << 41 | u64::from(call))
    }

    /// The number of the call, if that is what the token stands for.
    pub(crate) fn as_caller(self) -> Option<u32> {
        (self.0 >> 41 == 1).then_some(self.0 as u32)
    }

    /// A descriptor of the session with this id; ids begin with 1.
    pub(crate) fn session(id: u32, channel: Channel) -> Self {
        Self(u64::from(id) << 2 | channel as u64)
    }

    /// The session and descriptor, unless the token is one of the constants.
    pub(crate) fn as_session(self) -> Option<(u32, Channel)> {
        let id = u32::try_from(self.0 >> 2).ok().filter(|&id| id != 0)?;
        let channel = match self.0 & 3 {
            0 => Channel::Stdin,
            1 => Channel::Stdout,
            2 => Channel::Stderr,
            _ => Channel::Start,
        };
        Some((id, channel))
    }
}

/// What happened to a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// Which one.
    pub(crate) token: Token,
    /// Its other end is closed: reading on leads to the end of file.
    pub(crate) hung_up: bool,
}

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Epoll(epoll::Epoll);

impl Epoll {
    /// A new instance, closed on exec.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Tells when `fd` can be read.
    pub(crate) fn add_read(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        self.add(fd, token, EpollFlags::EPOLLIN)
    }

    /// Tells when `fd` can be written.
    pub(crate) fn add_write(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        self.add(fd, token, EpollFlags::EPOLLOUT)
    }

    /// No longer tells anything of `fd`, though another process may have it too.
    pub(crate) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// From now on tells when `fd`, watched for reading, can be read or written.
    pub(crate) fn also_write(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        self.modify(fd, token, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)
    }

    /// From now on tells only when `fd` can be read.
    pub(crate) fn only_read(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        self.modify(fd, token, EpollFlags::EPOLLIN)
    }

    fn add(&self, fd: impl AsFd, token: Token, flags: EpollFlags) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(flags | EpollFlags::EPOLLET, token.0))?)
    }

    fn modify(&self, fd: impl AsFd, token: Token, flags: EpollFlags) -> io::Result<()> {
        let mut event = EpollEvent::new(flags | EpollFlags::EPOLLET, token.0);
        Ok(self.0.modify(fd, &mut event)?)
    }

    /// Waits until something happens or `deadline` has come; appends what happened to `events`.
    ///
    /// # Errors
    /// Only for the agent's own mistakes; a signal is no error.
    pub(crate) fn wait(&self, deadline: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        let mut buffer = [EpollEvent::empty(); 64];
        let count = match self.0.wait(&mut buffer, deadline.timeout()) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        events.extend(buffer.iter().take(count).map(|event| Event {
            token: Token(event.data()),
            hung_up: event.events().intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
        }));
        Ok(())
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all: there is more to do.
    Not,
    /// Until then.
    Until(Instant),
    /// Until something happens.
    Forever,
}

impl Wait {
    /// The earlier of this and `deadline`.
    pub(crate) fn or_until(self, deadline: Option<Instant>) -> Self {
        match (self, deadline) {
            (Self::Not, _) => Self::Not,
            (wait, None) => wait,
            (Self::Forever, Some(deadline)) => Self::Until(deadline),
            (Self::Until(before), Some(deadline)) => Self::Until(before.min(deadline)),
        }
    }

    fn timeout(self) -> EpollTimeout {
        let until = match self {
            Self::Not => return EpollTimeout::ZERO,
            Self::Forever => return EpollTimeout::NONE,
            Self::Until(until) => until.saturating_duration_since(Instant::now()),
        };
        // Rounded up, so that the deadline has come when epoll returns; an hour at most.
        let wait = (until + Duration::from_micros(999)).min(Duration::from_secs(3600));
        EpollTimeout::try_from(wait.as_millis() as u32).unwrap_or(EpollTimeout::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_what_they_were() {
        for channel in [Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Start] {
            for id in [1, 2, u32::MAX] {
                assert_eq!(Token::session(id, channel).as_session(), Some((id, channel)));
            }
        }
        assert_eq!(Token::PORT.as_session(), None);
        assert_eq!(Token::SIGNALS.as_session(), None);
        assert_eq!(Token::UEVENTS.as_session(), None);
        assert_eq!(Token::FREEZE.as_session(), None);
        for token in [Token::CALLS, Token::DISPLAY, Token::WINDOWS, Token::X11] {
            assert_eq!((token.as_session(), token.as_caller()), (None, None));
        }
        for call in [0, 1, u32::MAX] {
            assert_eq!(Token::caller(call).as_caller(), Some(call));
            assert_eq!(Token::caller(call).as_session(), None);
        }
        assert_eq!(Token::session(u32::MAX, Channel::Start).as_caller(), None);
    }

    #[test]
    fn the_earliest_deadline_counts() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert_eq!(Wait::Forever.or_until(None), Wait::Forever);
        assert_eq!(Wait::Forever.or_until(Some(later)).or_until(Some(now)), Wait::Until(now));
        assert_eq!(Wait::Not.or_until(Some(now)), Wait::Not);
    }
}
