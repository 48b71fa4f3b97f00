//! Starting a program: clone, the few steps a child takes before exec, and how it tells what
//! went wrong.
//!
//! By hand rather than with `std::process::Command`: the child is put into its cgroup by clone
//! itself (moving it afterwards waits for an RCU grace period, milliseconds), nobody waits for
//! exec (it may hang on a dead file system while other sessions go on), and the reaper of
//! process 1, not a `Child`, collects the exit status.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use casemate_wire::ExitStatus;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::{Pid, pipe2};

use super::command::Command;

/// Descriptors a session starts with: the RLIMIT_NOFILE (soft) that Linux gives process 1.
const OPEN_FILES: libc::rlim_t = 1024;

/// linux/sched.h; the C library's type for flags is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The child's standard streams and what they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    /// They are a terminal, to become the controlling one.
    pub(crate) terminal: bool,
}

/// A program that was cloned and is about to be executed.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    /// Ends when the program runs; gives a [`StartFailure`] when it does not. Non-blocking.
    pub(crate) start: OwnedFd,
}

/// How far a child came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Terminal = 1,
    Account = 2,
    Directory = 3,
    Exec = 4,
    Restrictions = 5,
}

/// Why a program did not start, as the child reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartFailure {
    stage: u8,
    errno: i32,
}

impl StartFailure {
    const LEN: usize = 5;

    fn encode(stage: Stage, errno: i32) -> [u8; Self::LEN] {
        let [e0, e1, e2, e3] = errno.to_le_bytes();
        [stage as u8, e0, e1, e2, e3]
    }

    /// The failure in what was read from [`Spawned::start`], if there is one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let &[stage, e0, e1, e2, e3] = bytes else { return None };
        Some(Self { stage, errno: i32::from_le_bytes([e0, e1, e2, e3]) })
    }

    /// What the host is told.
    pub(crate) fn status(self, command: &str, directory: &str) -> ExitStatus {
        let error = io::Error::from_raw_os_error(self.errno);
        match self.stage {
            stage if stage == Stage::Exec as u8 => {
                let reason = format!("could not execute {command}: {error}");
                match self.errno {
                    libc::ENOENT | libc::ENOTDIR => ExitStatus::NotFound { reason },
                    _ => ExitStatus::NotExecutable { reason },
                }
            }
            stage if stage == Stage::Directory as u8 => ExitStatus::NotExecutable {
                reason: format!("could not enter the working directory {directory}: {error}"),
            },
            stage if stage == Stage::Terminal as u8 => ExitStatus::AgentFailed {
                reason: format!("could not make the terminal the session's own: {error}"),
            },
            stage if stage == Stage::Restrictions as u8 => ExitStatus::AgentFailed {
                reason: format!("could not restrict the session: {error}"),
            },
            _ => ExitStatus::AgentFailed {
                reason: format!("could not become the session's user: {error}"),
            },
        }
    }
}

/// Starts a program, in this cgroup when one is given.
///
/// # Errors
/// When the kernel can give no process or no pipe. Everything later is told by the child.
pub(crate) fn spawn(
    command: &Command,
    streams: Streams<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Spawned> {
    let (start, report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let argv = pointers(&command.argv);
    let environment = pointers(&command.environment);
    let child = Child { command, argv: &argv, environment: &environment, streams, report };
    // SAFETY: the process has one thread, and the child calls nothing but system calls on memory
    // prepared above before it execs or exits.
    let pid = match unsafe { fork_into(cgroup) }? {
        // SAFETY: this is the child, and the arrays end with a null.
        0 => unsafe { child.run() },
        pid => Pid::from_raw(pid),
    };
    Ok(Spawned { pid, start })
}

/// The strings as exec wants them: pointers with a null behind the last.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// fork(2), the child beginning its life in `cgroup`. Without cgroup when the kernel cannot.
///
/// # Safety
/// As for fork in a process with one thread.
unsafe fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> io::Result<libc::pid_t> {
    if let Some(cgroup) = cgroup {
        // SAFETY: clone_args is plain numbers, for which zero means "not used".
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = CLONE_INTO_CGROUP;
        arguments.exit_signal = libc::SIGCHLD as u64;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
        // SAFETY: no CLONE_VM and no stack: the child returns here on its copy of this stack.
        let pid =
            unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of::<libc::clone_args>()) };
        if pid >= 0 {
            return Ok(pid as libc::pid_t);
        }
    }
    // SAFETY: the caller's promise.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// What the child needs.
struct Child<'a> {
    command: &'a Command,
    argv: &'a [*const libc::c_char],
    environment: &'a [*const libc::c_char],
    streams: Streams<'a>,
    report: OwnedFd,
}

impl Child<'_> {
    /// Everything between clone and exec. Does not return.
    ///
    /// # Safety
    /// Only in a forked child; the pointers must be null-terminated arrays of C strings.
    unsafe fn run(self) -> ! {
        // SAFETY: system calls on valid memory; a failure is reported, never unwound.
        let (stage, errno) = unsafe { self.become_program() };
        let report = StartFailure::encode(stage, errno);
        // SAFETY: as above; _exit runs no destructors and no exit handlers.
        unsafe {
            libc::write(self.report.as_raw_fd(), report.as_ptr().cast(), report.len());
            libc::_exit(127)
        }
    }

    /// Returns only on failure: how far it came, and the error number.
    unsafe fn become_program(&self) -> (Stage, i32) {
        let fail = |stage| (stage, Errno::last_raw());
        // SAFETY: plain system calls; all pointers outlive them.
        unsafe {
            libc::setsid();
            if self.streams.terminal
                && libc::ioctl(self.streams.stdin.as_raw_fd(), libc::TIOCSCTTY, 0) < 0
            {
                return fail(Stage::Terminal);
            }
            for (from, to) in [
                (self.streams.stdin.as_raw_fd(), 0),
                (self.streams.stdout.as_raw_fd(), 1),
                (self.streams.stderr.as_raw_fd(), 2),
            ] {
                if put_at(from, to) < 0 {
                    return fail(Stage::Terminal);
                }
            }
            let command = self.command;
            // The system calls themselves: the C library's wrappers look for other threads.
            if libc::syscall(libc::SYS_setgroups, command.groups.len(), command.groups.as_ptr()) < 0
                || libc::syscall(libc::SYS_setresgid, command.gid, command.gid, command.gid) < 0
                || libc::syscall(libc::SYS_setresuid, command.uid, command.uid, command.uid) < 0
            {
                return fail(Stage::Account);
            }
            if !command.directories.iter().any(|path| libc::chdir(path.as_ptr()) == 0) {
                return fail(Stage::Directory);
            }
            self.restore_defaults();
            if !self.restrict() {
                return fail(Stage::Restrictions);
            }
            let mut errno = libc::ENOENT;
            for file in &command.candidates {
                match self.exec(file) {
                    missing @ (libc::ENOENT | libc::ENOTDIR) if errno != libc::EACCES => {
                        errno = missing;
                    }
                    libc::ENOENT | libc::ENOTDIR => {}
                    // Another folder of the path may have one that may be executed.
                    libc::EACCES => errno = libc::EACCES,
                    other => return (Stage::Exec, other),
                }
            }
            (Stage::Exec, errno)
        }
    }

    /// Signals, file mode mask and limits as a program expects them from its parent.
    unsafe fn restore_defaults(&self) {
        // SAFETY: the structures are plain numbers, valid when zero, and outlive the calls.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
            libc::umask(0o022);
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
                limit.rlim_cur = OPEN_FILES.min(limit.rlim_max);
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            }
        }
    }

    /// Takes from the program what the compartment's sessions shall not have. False when the kernel
    /// refuses.
    unsafe fn restrict(&self) -> bool {
        let restrictions = self.command.restrictions;
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: numbers, and a structure that outlives the call.
        unsafe {
            (!restrictions.no_core_dumps || libc::setrlimit(libc::RLIMIT_CORE, &none) == 0)
                && (!restrictions.no_new_privs
                    || libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        }
    }

    /// Returns the error number.
    unsafe fn exec(&self, file: &CStr) -> i32 {
        // SAFETY: null-terminated arrays of C strings that outlive the call.
        unsafe {
            libc::execve(file.as_ptr(), self.argv.as_ptr(), self.environment.as_ptr());
        }
        Errno::last_raw()
    }
}

/// dup2 that also works when the descriptor is there already, where only the close-on-exec flag
/// has to go.
unsafe fn put_at(from: RawFd, to: RawFd) -> i32 {
    // SAFETY: numbers only.
    unsafe { if from == to { libc::fcntl(from, libc::F_SETFD, 0) } else { libc::dup2(from, to) } }
}

/// Makes our end of a pipe non-blocking; the child's end is a different open file.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
