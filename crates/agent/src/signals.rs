//! Signals to the agent, taken from a descriptor, and the children that have ended.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use casemate_wire::ExitStatus;
use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

/// What a signal asks of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A child may have ended.
    Reap,
    /// Shut the guest down (as process 1) or leave (as a service).
    Stop,
}

/// The descriptor that signals are read from. They are blocked otherwise.
#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

/// Signals that process 1 takes as the wish to end: the usual ones, power failure, those that
/// sysvinit's, busybox' and systemd's poweroff, halt and reboot send, and Ctrl-Alt-Del (SIGINT).
fn stops() -> [libc::c_int; 9] {
    let realtime = libc::SIGRTMIN();
    [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGPWR,
        libc::SIGUSR1,
        libc::SIGUSR2,
        realtime + 3,
        realtime + 4,
        realtime + 5,
        realtime + 15,
    ]
}

impl Signals {
    /// Blocks the signals and opens the descriptor. In a forked child it must be done anew.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the set is initialized by sigemptyset before it is used; the descriptor is new.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGCHLD);
            for signal in stops() {
                libc::sigaddset(&mut set, signal);
            }
            Errno::result(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            Ok(Self(OwnedFd::from_raw_fd(Errno::result(libc::signalfd(-1, &set, flags))?)))
        }
    }

    /// The next signal that waits, if there is one.
    pub(crate) fn next(&self) -> Option<Request> {
        // SAFETY: plain numbers, filled by the kernel; a short read leaves them unused.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is as long as said.
        let count =
            unsafe { libc::read(self.0.as_raw_fd(), std::ptr::from_mut(&mut info).cast(), size) };
        if usize::try_from(count) != Ok(size) {
            return None;
        }
        Some(match info.ssi_signo as libc::c_int {
            libc::SIGCHLD => Request::Reap,
            _ => Request::Stop,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What [`reap`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reaped {
    /// This child ended like this.
    Child(Pid, ExitStatus),
    /// There are children, and none has ended.
    NoneYet,
    /// There are no children at all. For process 1: no other process lives.
    NoChildren,
}

/// Collects one ended child, adopted ones among them.
pub(crate) fn reap() -> Reaped {
    loop {
        let mut status = 0;
        // SAFETY: the argument outlives the call. nix's waitpid takes a child that a real-time
        // signal ended for an error, when it is collected already.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        match Errno::result(pid) {
            Ok(0) => return Reaped::NoneYet,
            Ok(pid) if libc::WIFEXITED(status) => {
                let code = libc::WEXITSTATUS(status) as u8;
                return Reaped::Child(Pid::from_raw(pid), ExitStatus::Code(code));
            }
            Ok(pid) if libc::WIFSIGNALED(status) => {
                let signal = libc::WTERMSIG(status) as u8;
                return Reaped::Child(Pid::from_raw(pid), ExitStatus::Signal(signal));
            }
            // Stops and continuations were not asked for.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Reaped::NoChildren,
            Err(_) => return Reaped::NoneYet,
        }
    }
}
