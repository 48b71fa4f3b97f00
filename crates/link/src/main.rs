//! `casemate-link`: see the library. Started by the supervisor through `casemate-jail`.
//!
//! Descriptors: 3 the agent's port, 4 the serial console, 5 the supervisor, 6 the console's log.

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use casemate_link::{Descriptors, Relay, seccomp};

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("casemate-link takes no arguments; the supervisor starts it");
        return ExitCode::from(2);
    }
    let descriptors = Descriptors {
        port: inherited(3),
        console: inherited(4),
        orders: inherited(5),
        log: File::from(inherited(6)),
    };
    match run(descriptors) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be a log on a full disk.
            let _ = writeln!(std::io::stderr(), "casemate-link: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(descriptors: Descriptors) -> Result<(), Box<dyn std::error::Error>> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(&descriptors.orders, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut relay = Relay::new(descriptors)?;
    seccomp::confine()?;
    Ok(relay.run()?)
}

#[expect(unsafe_code, reason = "descriptors are inherited as plain numbers")]
fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: the supervisor starts this program with exactly these descriptors, and each number
    // is taken once. A missing one fails at its first use with EBADF.
    unsafe { OwnedFd::from_raw_fd(number) }
}
