//! Signals: the monitor and init take them one by one, the program starts with a clean table.

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

use crate::error::{JailError, While};

/// Blocks every signal, so that [`next`] takes them in turn. SIGKILL and SIGSTOP cannot be blocked.
pub(crate) fn block_all() -> Result<(), JailError> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .while_(|| "block signals".into())
}

/// Waits for the next signal that matters: SIGCHLD or SIGTERM. All others stay blocked, which is
/// how an interrupt from the terminal does not end a compartment behind its supervisor's back.
pub(crate) fn next() -> Signal {
    let set = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM]);
    loop {
        if let Ok(signal) = set.wait() {
            return signal;
        }
    }
}

/// Default dispositions and an empty mask, as exec hands both on.
pub(crate) fn reset() -> Result<(), JailError> {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no code. Numbers that cannot be set (SIGKILL, SIGSTOP and the
        // two that glibc keeps) fail with EINVAL and are at their default anyway.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .while_(|| "unblock signals".into())
}
