//! Init: PID 1 of the new PID namespace. It builds the root, starts the program as PID 2, reaps
//! what is left to it and ends with the program.
//!
//! The program is not PID 1 itself for two reasons: PID 1 does not get the signals it has not asked
//! for (an abort(3) would hang or show as something else), and a hostile program could clear its
//! parent-death signal, while init, which it can neither see nor signal, does not.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use casemate_plan::process::Process;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, fork, read, setgroups, sethostname, setresgid};

use crate::error::{self, JailError, While};
use crate::{NOT_BUILT, descriptors, idmap, privilege, program, root, signals};

/// What the program sees as the name of the machine.
const HOST_NAME: &str = "jail";

/// Builds the jail, runs the program in it to its end and returns the exit code to end with.
pub(crate) fn run(process: &Process, lifeline: OwnedFd) -> u8 {
    live(process, lifeline).unwrap_or_else(|error| {
        error::report(&error);
        NOT_BUILT
    })
}

fn live(process: &Process, lifeline: OwnedFd) -> Result<u8, JailError> {
    wait_for_ids(&lifeline)?;
    // The caller's group is not mapped, and what is made in the new root must belong to one that
    // is. This clears the parent-death signal, so it comes before it.
    let group = Gid::from_raw(idmap::PROGRAM);
    setresgid(group, group, group).while_(|| "take the subordinate group".into())?;
    tie_to_monitor(&lifeline)?;
    umask(Mode::from_bits_truncate(0o022));

    let executable = program::open(&process.program)?;
    root::build(&process.jail.files)?;
    sethostname(HOST_NAME).while_(|| "set the host name".into())?;
    if !process.jail.identity.keep_groups {
        setgroups(&[]).while_(|| "drop the supplementary groups".into())?;
    }

    // SAFETY: there is one thread, so the child may go on as it likes.
    let child = match unsafe { fork() }.while_(|| "start the program's process".into())? {
        ForkResult::Child => {
            let Err(error) = program::become_it(process, &executable);
            error::report(&error);
            std::process::exit(NOT_BUILT.into());
        }
        ForkResult::Parent { child } => child,
    };
    privilege::drop_all_but_kill()?;
    tie_to_monitor(&lifeline)?;
    let _ = (lifeline.into_raw_fd(), executable.into_raw_fd());
    descriptors::keep_only(&[])?;
    Ok(reap_until_end_of(child))
}

/// One byte says that the id map is written; the end of the pipe, that the monitor has given up.
fn wait_for_ids(lifeline: &OwnedFd) -> Result<(), JailError> {
    loop {
        match read(lifeline, &mut [0]) {
            Ok(0) => return Err(JailError::Orphaned("monitor")),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).while_(|| "wait for the id map".into()),
        }
    }
}

/// Has the kernel kill init when the monitor ends. getppid(2) is 0 across the namespace, so the
/// check that it has not ended before is the pipe: only the monitor holds its other end.
fn tie_to_monitor(lifeline: &OwnedFd) -> Result<(), JailError> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .while_(|| "tie the jail to its monitor".into())?;
    let mut ends = [PollFd::new(lifeline.as_fd(), PollFlags::empty())];
    poll(&mut ends, PollTimeout::ZERO).while_(|| "look after the monitor".into())?;
    match ends[0].revents() {
        Some(events) if events.contains(PollFlags::POLLHUP) => Err(JailError::Orphaned("monitor")),
        _ => Ok(()),
    }
}

/// Reaps every child, hands SIGTERM on, and returns the program's exit code. When init then ends
/// the kernel kills whatever the program left running.
fn reap_until_end_of(program: Pid) -> u8 {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return code as u8,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                return 128 + signal as u8;
            }
            Ok(WaitStatus::StillAlive) => {
                if signals::next() == Signal::SIGTERM {
                    let _ = kill(program, Signal::SIGTERM);
                }
            }
            Ok(_) | Err(Errno::EINTR) => {}
            // No child is left, which cannot be while the program is one.
            Err(_) => return NOT_BUILT,
        }
    }
}
