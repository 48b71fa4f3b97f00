//! Signals to front-ends, which cannot block.
//!
//! A front-end hands over an eventfd to be signalled by. Writing to it blocks when its counter is
//! full and it is in blocking mode; both is in the front-end's hands at any time, as the mode
//! belongs to the file, not to our descriptor, and `RWF_NOWAIT` is not supported for writing to
//! one. So nothing is written. The kernel itself signals eventfds without ever blocking when a
//! request of asynchronous I/O is done (`IOCB_FLAG_RESFD`, io_submit(2)): here a poll of an eventfd
//! of ours that is always readable, done before io_submit(2) returns. It also refuses whatever is
//! no eventfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Signals that may be under way. One is enough; the kernel rounds up.
const EVENTS: u32 = 64;

/// Sends signals. One for the process; `fs.aio-max-nr` is for all of them together.
#[derive(Debug)]
pub struct Caller {
    /// Address of the ring of completions, which is also the context's name.
    context: libc::c_ulong,
    ready: EventFd,
}

/// `struct iocb` of linux/aio_abi.h, little-endian.
#[derive(Debug, Default)]
#[repr(C)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    descriptor: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_descriptor: u32,
}

/// `struct aio_ring` of the kernel's fs/aio.c, as far as libaio relies on it, too.
#[repr(C)]
struct Completions {
    id: u32,
    count: u32,
    head: AtomicU32,
    tail: AtomicU32,
}

/// `IOCB_CMD_POLL`
const POLL: u16 = 5;
/// `IOCB_FLAG_RESFD`
const SIGNAL_RESULT: u32 = 1;

impl Caller {
    /// Prepares for sending signals.
    ///
    /// # Errors
    /// The kernel has no asynchronous I/O, or `fs.aio-max-nr` is used up.
    pub fn new() -> io::Result<Self> {
        let ready = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC)?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: io_setup(2) writes one number.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, EVENTS, &raw mut context) };
        match result {
            0 => Ok(Self { context, ready }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Adds one to the counter of `to`, unless it is full.
    ///
    /// # Errors
    /// It is no eventfd.
    pub fn signal(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        self.reap();
        let request = Request {
            opcode: POLL,
            descriptor: self.ready.as_fd().as_raw_fd() as u32,
            buffer: libc::POLLIN as u64,
            flags: SIGNAL_RESULT,
            result_descriptor: to.as_raw_fd() as u32,
            ..Request::default()
        };
        let requests = [&raw const request];
        // SAFETY: one pointer to one request, which the kernel has copied when it returns.
        let result =
            unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1_usize, requests.as_ptr()) };
        match result {
            1 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether `descriptor` is an eventfd; its counter goes up by one.
    #[must_use]
    pub fn is_event(&self, descriptor: &OwnedFd) -> bool {
        self.signal(descriptor.as_fd()).is_ok()
    }

    /// Forgets completions: all there are, as requests are done when they are submitted.
    fn reap(&self) {
        let ring = self.context as *const Completions;
        // SAFETY: io_setup(2) has mapped the ring at this address, until io_destroy(2).
        let ring = unsafe { &*ring };
        ring.head.store(ring.tail.load(Ordering::Acquire), Ordering::Release);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // SAFETY: the context of `new`, which nobody uses any more.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_blocking_eventfd_does_not_block() {
        let caller = Caller::new().unwrap();
        let full = EventFd::from_value_and_flags(0, EfdFlags::empty()).unwrap();
        full.write(u64::MAX - 1).unwrap();
        for _ in 0..1000 {
            caller.signal(full.as_fd()).unwrap();
        }
        assert!(full.read().unwrap() >= u64::MAX - 1);
    }

    #[test]
    fn each_signal_counts_one() {
        let caller = Caller::new().unwrap();
        let event = EventFd::from_value_and_flags(0, EfdFlags::empty()).unwrap();
        for _ in 0..1000 {
            caller.signal(event.as_fd()).unwrap();
        }
        assert_eq!(event.read().unwrap(), 1000);
    }

    #[test]
    fn other_descriptors_are_told_apart() {
        let caller = Caller::new().unwrap();
        let (reading, writing) = nix::unistd::pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        for other in [reading, writing, file.into()] {
            assert!(!caller.is_event(&other));
        }
        assert!(caller.is_event(&EventFd::new().unwrap().into()));
    }
}
