//! A child by descriptor (pidfd_open(2)): its end can be polled for, a signal can never hit
//! another process that got the same number, and no SIGCHLD handler is needed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

/// A descriptor of a child process. It becomes readable when the child ends.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens a descriptor of a child that has not been waited for.
    ///
    /// # Errors
    /// There is no such process, or no descriptor is left.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: the arguments are numbers.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: the kernel has just made this descriptor (close-on-exec) for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has been waited for, or may not be signalled.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: without a siginfo the kernel makes one as kill(2) does; the rest are numbers.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as i32, none, 0)
        })?;
        Ok(())
    }

    /// Waits for the end of the child and reaps it.
    ///
    /// # Errors
    /// It is no child of this process, or somebody else has reaped it.
    pub fn wait(&self) -> io::Result<WaitStatus> {
        self.reap(WaitPidFlag::WEXITED)
    }

    /// Reaps the child if it has ended; [`WaitStatus::StillAlive`] if not.
    ///
    /// # Errors
    /// As for [`PidFd::wait`].
    pub fn try_wait(&self) -> io::Result<WaitStatus> {
        self.reap(WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)
    }

    fn reap(&self, flags: WaitPidFlag) -> io::Result<WaitStatus> {
        loop {
            match waitid(Id::PIDFd(self.0.as_fd()), flags) {
                Err(Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
