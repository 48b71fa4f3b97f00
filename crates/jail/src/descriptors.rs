//! Closing every descriptor but the ones that are wanted.

use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;

use crate::error::{JailError, While};

/// Closes every descriptor from 3 on that is not in `wanted` (close_range(2), Linux 5.9).
///
/// The caller must not use any other descriptor afterwards, nor drop an owner of one.
pub(crate) fn keep_only(wanted: &[RawFd]) -> Result<(), JailError> {
    let mut wanted: Vec<u32> = wanted.iter().filter_map(|&fd| u32::try_from(fd).ok()).collect();
    wanted.sort_unstable();
    let mut first = 3;
    for fd in wanted.into_iter().filter(|&fd| fd >= 3) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

/// Lets these descriptors survive exec.
pub(crate) fn survive_exec(descriptors: &[RawFd]) -> Result<(), JailError> {
    for &number in descriptors {
        // SAFETY: only borrowed for the one call, which fails cleanly when it is not open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::empty()))
            .while_(|| format!("hand on descriptor {number}"))?;
    }
    Ok(())
}

fn close_range(first: u32, last: u32) -> Result<(), JailError> {
    // SAFETY: the arguments are numbers; the callers own or have given up what is closed.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
        .map(drop)
        .while_(|| "close the other descriptors".into())
}
