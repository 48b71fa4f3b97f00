//! Pseudo-terminals: making a pair, its size, who is in the foreground, its end-of-file character.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, fchown};

use casemate_wire::TerminalSize;
use nix::libc;
use nix::sys::termios::{SpecialCharacterIndices, tcgetattr};
use nix::unistd::Pid;

nix::ioctl_write_ptr_bad!(set_lock, libc::TIOCSPTLCK, libc::c_int);
nix::ioctl_write_int_bad!(open_peer, libc::TIOCGPTPEER);
nix::ioctl_write_ptr_bad!(set_window, libc::TIOCSWINSZ, libc::winsize);
nix::ioctl_read_bad!(foreground_group, libc::TIOCGPGRP, libc::pid_t);

/// Both ends of a new terminal.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The agent's end, non-blocking.
    pub(crate) master: OwnedFd,
    /// The session's end.
    pub(crate) slave: OwnedFd,
}

/// A new terminal of this size, owned by this user. Its group and mode come from the mount
/// options of /dev/pts.
///
/// # Errors
/// When /dev/pts is not mounted or full.
pub(crate) fn open(size: TerminalSize, uid: u32) -> io::Result<Pair> {
    let master: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open("/dev/pts/ptmx")?
        .into();
    // SAFETY: the argument is an int that outlives the call.
    unsafe { set_lock(master.as_raw_fd(), &0) }?;
    // By the master rather than by name, so that nothing in the guest's /dev can be in the way.
    // SAFETY: the argument is a number; the result is a new descriptor nobody else knows.
    let slave = unsafe {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        File::from_raw_fd(open_peer(master.as_raw_fd(), flags)?)
    };
    fchown(&slave, Some(uid), None)?;
    resize(&master, size)?;
    Ok(Pair { master, slave: slave.into() })
}

/// Gives the terminal a new size; the foreground process group hears of it from the kernel.
pub(crate) fn resize(master: impl AsFd, size: TerminalSize) -> io::Result<()> {
    let window =
        libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the argument is a winsize that outlives the call.
    unsafe { set_window(master.as_fd().as_raw_fd(), &window) }?;
    Ok(())
}

/// The process group in the foreground, if there is one.
pub(crate) fn foreground(master: impl AsFd) -> Option<Pid> {
    let mut group = 0;
    // SAFETY: the argument is a pid_t that outlives the call.
    unsafe { foreground_group(master.as_fd().as_raw_fd(), &mut group) }.ok()?;
    (group > 0).then(|| Pid::from_raw(group))
}

/// The character that means end of file on this terminal; Ctrl-D when it cannot be asked.
pub(crate) fn end_of_file(master: impl AsFd) -> u8 {
    const CTRL_D: u8 = 4;
    tcgetattr(master)
        .map_or(CTRL_D, |modes| modes.control_chars[SpecialCharacterIndices::VEOF as usize])
}
