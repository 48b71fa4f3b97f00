//! The user's terminal: its size, raw mode, and the way back.

use std::io::{IsTerminal, stdin, stdout};
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use casemate_wire::TerminalSize;

/// The terminal in raw mode; as it was before when dropped.
#[derive(Debug)]
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// Raw mode on standard input, if that is a terminal.
    pub(crate) fn enter() -> Option<Self> {
        let before = tcgetattr(stdin().as_fd()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin().as_fd(), SetArg::TCSADRAIN, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(stdin().as_fd(), SetArg::TCSADRAIN, &self.0);
    }
}

/// Standard input and output are both terminals.
pub(crate) fn is_interactive() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// Size of the terminal at standard output or input; 24 × 80 when there is none.
pub(crate) fn size() -> TerminalSize {
    window_size(stdout().as_fd())
        .or_else(|| window_size(stdin().as_fd()))
        .unwrap_or(TerminalSize { rows: 24, columns: 80 })
}

nix::ioctl_read_bad!(get_window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);

#[expect(unsafe_code, reason = "nix has no safe wrapper for TIOCGWINSZ")]
fn window_size(terminal: std::os::fd::BorrowedFd<'_>) -> Option<TerminalSize> {
    use std::os::fd::AsRawFd;
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one `winsize`, and the descriptor is open.
    unsafe { get_window_size(terminal.as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_row > 0 && size.ws_col > 0)
        .then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}
