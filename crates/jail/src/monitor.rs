//! The monitor: the launcher's child, outside the jail. It makes the namespaces, has the ids
//! mapped, gives up what it does not need and waits.
//!
//! It hands SIGTERM on to init, and init's exit code on to the launcher.

use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd};

use casemate_plan::jail::Reach;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, getppid, pipe2, setsid};

use crate::error::{JailError, While};
use crate::spec::Invocation;
use crate::{descriptors, idmap, init, privilege, signals};

/// All that are new in a jail: user, mount, PID, network, IPC, UTS and cgroup namespace.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Runs the process to its end and returns the exit code to end with.
pub(crate) fn run(invocation: &Invocation) -> Result<u8, JailError> {
    tie_to(invocation)?;
    // Fails only for the leader of a process group, which has a session of its own already or was
    // started by hand.
    let _ = setsid();
    signals::block_all()?;
    let process = &invocation.process;
    let handed: Vec<i32> = process.descriptors.iter().map(|listed| listed.number).collect();
    descriptors::keep_only(&handed)?;

    // Init waits for one byte (the ids are mapped) and afterwards knows by the end of this pipe
    // that the monitor has ended.
    let (init_end, lifeline) = pipe2(OFlag::O_CLOEXEC).while_(|| "make a pipe".into())?;
    let Some(child) = clone_into_namespaces(process.jail.reach)? else {
        drop(lifeline);
        std::process::exit(init::run(process, init_end).into());
    };
    drop(init_end);

    let mapped = idmap::write(child, &process.jail.identity);
    if let Err(error) = mapped {
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
        return Err(error);
    }
    let mut lifeline = std::fs::File::from(lifeline);
    // When init has ended already (its message is on standard error), waiting says so.
    let _ = lifeline.write_all(&[1]);

    descriptors::keep_only(&[lifeline.as_raw_fd()])?;
    chdir("/").while_(|| "change to /".into())?;
    privilege::drop_all()?;
    tie_to(invocation)?;
    let code = wait(child);
    let _ = lifeline.into_raw_fd();
    code
}

/// Has the kernel kill this process when its parent ends, and checks that it has not ended before;
/// unless it is to stay.
fn tie_to(invocation: &Invocation) -> Result<(), JailError> {
    if invocation.detached {
        return Ok(());
    }
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .while_(|| "tie the monitor to its launcher".into())?;
    match invocation.parent {
        Some(parent) if getppid() != parent => Err(JailError::Orphaned("launcher")),
        _ => Ok(()),
    }
}

/// Forks with all namespaces new, but for what stays in reach; none in the child.
fn clone_into_namespaces(reach: Reach) -> Result<Option<Pid>, JailError> {
    let namespaces = match reach {
        Reach::Nothing => NAMESPACES,
        Reach::HostNetwork => NAMESPACES & !libc::CLONE_NEWNET,
    };
    // SAFETY: without CLONE_VM and a stack this is fork(2); there is one thread, so the child may
    // go on as it likes. The remaining arguments are zero, so their order, which differs between
    // architectures, does not matter.
    let result = unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(namespaces | libc::SIGCHLD), 0, 0, 0, 0)
    };
    let pid = Errno::result(result).while_(|| "make new namespaces".into())?;
    Ok((pid != 0).then(|| Pid::from_raw(pid as i32)))
}

fn wait(child: Pid) -> Result<u8, JailError> {
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code as u8),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as u8),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).while_(|| "wait for the jail".into()),
        }
        if signals::next() == Signal::SIGTERM {
            let _ = kill(child, Signal::SIGTERM);
        }
    }
}
