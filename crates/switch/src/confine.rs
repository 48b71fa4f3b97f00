//! What the process may still do once its sockets are open: the system calls of a table, each with
//! its reason (anything else kills it), and no file but to remove the sockets it has made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Number and reason of every allowed call.
const ALLOWED: &[(i64, &str)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "sleep"),
    (libc::SYS_epoll_pwait, "sleep, as newer C libraries do it"),
    (libc::SYS_epoll_ctl, "watch and stop watching descriptors"),
    (libc::SYS_io_submit, "signal a guest without blocking"),
    (libc::SYS_io_destroy, "end"),
    (libc::SYS_accept4, "front-ends and supervisors connect"),
    (libc::SYS_recvmsg, "their messages and descriptors"),
    (libc::SYS_sendmsg, "replies"),
    (libc::SYS_fcntl, "seals of memory; copies of descriptors to watch"),
    (libc::SYS_fstat, "size of memory"),
    (libc::SYS_newfstatat, "the same, as newer C libraries do it"),
    (libc::SYS_fstatfs, "whether memory is of huge pages"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "whether the log can be written"),
    (libc::SYS_ppoll, "the same, on other machines"),
    (libc::SYS_write, "the log, and recorded frames"),
    (libc::SYS_close, "forget front-ends"),
    (libc::SYS_mmap, "guests' memory, and our own"),
    (libc::SYS_munmap, "free memory"),
    (libc::SYS_mremap, "grow a buffer"),
    (libc::SYS_madvise, "give freed memory back"),
    (libc::SYS_brk, "allocate memory"),
    (libc::SYS_clock_gettime, "time, where the vDSO has none"),
    (libc::SYS_futex, "locks of the standard library"),
    (libc::SYS_rt_sigreturn, "return from SIGBUS"),
    (libc::SYS_restart_syscall, "go on after being stopped"),
    (libc::SYS_getrandom, "allocator and hash seeds"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "remove our sockets at the end; Landlock says which"),
    (libc::SYS_unlinkat, "the same"),
    (libc::SYS_exit_group, "end"),
    (libc::SYS_sigaltstack, "end of the main thread"),
    (libc::SYS_rt_sigaction, "the handler of SIGBUS; abort on a bug"),
    (libc::SYS_rt_sigprocmask, "abort on a bug"),
    (libc::SYS_gettid, "abort on a bug"),
    (libc::SYS_getpid, "abort on a bug"),
    (libc::SYS_tgkill, "abort on a bug"),
];

/// The newest Landlock these rules were tried with. Older kernels apply what they know.
const NEWEST: ABI = ABI::V7;

/// Why the process cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The kernel has Landlock and refuses the rules.
    #[error("could not set Landlock's rules")]
    Landlock(#[from] landlock::RulesetError),
    /// This machine's architecture has no filter.
    #[error("could not make a system call filter for this architecture")]
    Architecture(#[from] seccompiler::BackendError),
    /// The filter is refused.
    #[error("could not set the system call filter")]
    Filter(#[from] seccompiler::Error),
}

/// Confines the process for good. `sockets` are files that it has made and will remove.
///
/// # Errors
/// The kernel refuses; the process should end.
pub fn confine(sockets: &[PathBuf]) -> Result<(), ConfineError> {
    files(sockets)?;
    calls()
}

fn files(sockets: &[PathBuf]) -> Result<(), ConfineError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for folder in sockets.iter().filter_map(|path| path.parent()) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Ok(opened) = PathFd::new(folder) else { continue };
        rules = rules.add_rule(PathBeneath::new(opened, AccessFs::RemoveFile))?;
    }
    // With no_new_privs.
    rules.restrict_self()?;
    Ok(())
}

fn calls() -> Result<(), ConfineError> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|&(number, _)| (number, vec![])).collect();
    // No memory becomes executable: mprotect is not in the table, and mmap only without PROT_EXEC.
    let executable = libc::PROT_EXEC as u64;
    let comparison = SeccompCmpOp::MaskedEq(executable);
    let protection = SeccompCondition::new(2, SeccompCmpArgLen::Dword, comparison, 0)?;
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![protection])?]);
    let filter =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
