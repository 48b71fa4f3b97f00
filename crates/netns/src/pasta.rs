//! pasta, which stays in the host's network and makes the interface that leads outside.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use casemate_plan::network::Namespace;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execve, fork, getpid, pipe2, read};

use casemate_netns::error::{KeeperError, While};

/// Where a jail may have processes in place of `/proc` (crates/jail/src/root.rs).
const APART: &str = "/processes";

/// A process that will be pasta.
pub(crate) struct Waiting(Pid, OwnedFd);

/// The process that is.
#[derive(Clone, Copy)]
pub(crate) struct Pasta(Pid);

impl Waiting {
    /// Starts the process, which waits: it has to begin in the host's network, and pasta can only
    /// join a namespace that is there.
    pub(crate) fn fork(order: &Namespace) -> Result<Self, KeeperError> {
        let program = CString::new(order.pasta.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL);
        let program = program.while_("use pasta's name")?;
        let own = getpid();
        // The jail has them there when it shows something else below /proc.
        let processes = if Path::new(APART).exists() { APART } else { "/proc" };
        let mut arguments = vec![program.clone()];
        for kind in ["user", "net"] {
            let name = if kind == "user" { "--userns" } else { "--netns" };
            let place = format!("{processes}/{own}/ns/{kind}");
            arguments.extend([name.to_owned(), place].map(into_c).into_iter().flatten());
        }
        arguments.extend(order.pasta_arguments.iter().cloned().filter_map(into_c));
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).while_("make a pipe")?;
        // SAFETY: there is one thread, so the child may go on as it likes.
        match unsafe { fork() }.while_("start pasta's process")? {
            ForkResult::Parent { child } => Ok(Self(child, writer)),
            ForkResult::Child => {
                drop(writer);
                let end = match read(&reader, &mut [0]) {
                    Ok(1) => become_it(&program, &arguments),
                    // There will be no namespace.
                    _ => {
                        return Err(KeeperError::PastaEnded).inspect_err(|_| std::process::exit(1));
                    }
                };
                eprintln!("casemate-netns: could not execute pasta: {end}");
                std::process::exit(1)
            }
        }
    }

    /// Lets it become pasta: the namespace is there.
    pub(crate) fn go_on(self) -> Result<Pasta, KeeperError> {
        std::fs::File::from(self.1).write_all(&[1]).while_("start pasta")?;
        Ok(Pasta(self.0))
    }
}

fn into_c(text: String) -> Option<CString> {
    // No word of a plan has a NUL in it.
    CString::new(text).ok()
}

fn become_it(program: &CString, arguments: &[CString]) -> Errno {
    // Rust ignores SIGPIPE from the beginning, and some versions of pasta take that for a failure.
    // SAFETY: no handler is installed.
    let default = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    if let Err(error) = default.and_then(|_| SigSet::all().thread_unblock()) {
        return error;
    }
    match execve(program, arguments, &[] as &[CString]) {
        Err(error) => error,
    }
}

impl Pasta {
    /// Whether it has ended. Others that have are waited for on the way.
    pub(crate) fn has_ended(self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::EINTR) => {}
                Ok(WaitStatus::StillAlive) => return false,
                Ok(status) if status.pid() != Some(self.0) => {}
                _ => return true,
            }
        }
    }
}
