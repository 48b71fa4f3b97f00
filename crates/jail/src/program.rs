//! The last steps of the process that becomes the program: from user 0 of the namespace to a user
//! that owns nothing and may do nothing, then exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use casemate_plan::jail::{Access, Limits};
use casemate_plan::process::Process;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat, stat, umask};
use nix::unistd::{Gid, Uid, chdir, execve, execveat, setresgid, setresuid, setsid};

use crate::error::{JailError, While};
use crate::{descriptors, idmap, privilege, rules, seccomp, signals};

/// No core dump, which would hold the guest's memory. With 0 the kernel would still pipe one to a
/// handler; 1 forbids that too (core(5), fs/coredump.c), and is too small for a file.
const NO_CORE: u64 = 1;

/// Opens the program while the host's files are still there, so that a static one needs no file in
/// its jail.
pub(crate) fn open(program: &Path) -> Result<OwnedFd, JailError> {
    nix::fcntl::open(program, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .while_(|| format!("open {}", program.display()))
}

/// Becomes the program. Returns only when something failed.
pub(crate) fn become_it(process: &Process, executable: &OwnedFd) -> Result<Infallible, JailError> {
    setsid().while_(|| "start a session".into())?;
    privilege::close_the_ways_back()?;
    let (user, group) = (Uid::from_raw(idmap::PROGRAM), Gid::from_raw(idmap::PROGRAM));
    setresgid(group, group, group).while_(|| "take the subordinate group".into())?;
    setresuid(user, user, user).while_(|| "take the subordinate user".into())?;
    privilege::leave_keyring();
    privilege::drop_all()?;
    // The change of user has cleared it. Init's end is ours in any case: it is PID 1.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).while_(|| "tie the program to init".into())?;
    rules::apply(&process.jail, executable)?;
    seccomp::apply(&process.jail.files)?;
    limit(&process.jail.limits)?;
    chdir("/").while_(|| "change to /".into())?;
    let makes_sockets = process.jail.files.iter().any(|file| file.access == Access::Sockets);
    umask(Mode::from_bits_truncate(if makes_sockets { 0 } else { 0o077 }));

    let handed: Vec<i32> = process.descriptors.iter().map(|listed| listed.number).collect();
    let mut wanted = handed.clone();
    wanted.push(executable.as_raw_fd());
    descriptors::keep_only(&wanted)?;
    descriptors::survive_exec(&handed)?;
    signals::reset()?;
    execute(process, executable)
}

/// Sets soft and hard limits. A limit that is lower already stays: raising it takes a privilege
/// that nobody here has.
fn limit(limits: &Limits) -> Result<(), JailError> {
    let wanted = [
        (Resource::RLIMIT_CORE, Some(NO_CORE)),
        (Resource::RLIMIT_NOFILE, Some(limits.open_files)),
        (Resource::RLIMIT_NPROC, Some(limits.processes)),
        (Resource::RLIMIT_AS, limits.address_space),
        (Resource::RLIMIT_FSIZE, Some(limits.file_size)),
    ];
    for (resource, value) in wanted {
        let Some(value) = value else { continue };
        let step = || format!("set {resource:?}");
        let (_, hard) = getrlimit(resource).while_(step)?;
        setrlimit(resource, value.min(hard), value.min(hard)).while_(step)?;
    }
    Ok(())
}

/// Executes by path where the jail shows the very same file there, so that the process has its
/// proper name and `/proc/self/exe`; by descriptor where it does not.
fn execute(process: &Process, executable: &OwnedFd) -> Result<Infallible, JailError> {
    let path = CString::new(process.program.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL);
    let path = path.while_(|| "use the program's name".into())?;
    let mut arguments = vec![path.clone()];
    for argument in &process.arguments {
        let argument = CString::new(argument.as_str()).map_err(|_| Errno::EINVAL);
        arguments.push(argument.while_(|| "use an argument with a NUL in it".into())?);
    }
    let mut environment = Vec::new();
    for (name, value) in &process.environment {
        let entry = CString::new(format!("{name}={value}")).map_err(|_| Errno::EINVAL);
        environment.push(entry.while_(|| format!("use the environment variable {name}"))?);
    }

    let opened = fstat(executable).while_(|| "look at the program".into())?;
    let visible = stat(path.as_c_str())
        .is_ok_and(|seen| (seen.st_dev, seen.st_ino) == (opened.st_dev, opened.st_ino));
    let result = if visible {
        execve(&path, &arguments, &environment)
    } else {
        execveat(executable, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH)
    };
    result.while_(|| format!("execute {}", process.program.display()))
}
