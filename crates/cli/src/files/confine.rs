//! What the process that reads a guest's files gives up before it reads the first byte.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// The newest Landlock these rules were tried with. Older kernels apply what they know.
const NEWEST: ABI = ABI::V7;

/// Number and reason of every allowed call. None makes a socket, a process or an executable page; none
/// changes a mode or an owner.
const ALLOWED: &[(i64, &str)] = &[
    (libc::SYS_read, "the session's socket; folders to be cleared"),
    (libc::SYS_recvfrom, "the session's socket"),
    (libc::SYS_write, "files, reports"),
    (libc::SYS_writev, "the same"),
    (libc::SYS_sendto, "the answer"),
    (libc::SYS_sendmsg, "the answer"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "wait"),
    (libc::SYS_ppoll, "wait"),
    (libc::SYS_openat2, "files and folders beneath the one folder"),
    (libc::SYS_mkdirat, "folders"),
    (libc::SYS_unlinkat, "what is not whole"),
    (libc::SYS_renameat2, "what is whole comes into its place"),
    (libc::SYS_linkat, "the same, where a file system cannot rename so"),
    (libc::SYS_getdents64, "what others left"),
    (libc::SYS_lseek, "the same"),
    (libc::SYS_flock, "whose a folder is"),
    (libc::SYS_fstat, "kinds and sizes"),
    (libc::SYS_newfstatat, "the same"),
    (libc::SYS_statx, "the same"),
    (libc::SYS_fstatfs, "room that is left"),
    (libc::SYS_fsync, "what is moved is on the disk"),
    (libc::SYS_syncfs, "the same"),
    (libc::SYS_fcntl, "copies of descriptors"),
    (libc::SYS_close, "files"),
    (libc::SYS_brk, "allocate memory"),
    (libc::SYS_mmap, "allocate memory"),
    (libc::SYS_munmap, "free memory"),
    (libc::SYS_mremap, "grow memory"),
    (libc::SYS_madvise, "give freed memory back"),
    (libc::SYS_clock_gettime, "pace of reports where the vDSO cannot"),
    (libc::SYS_futex, "locks of the standard library"),
    (libc::SYS_getpid, "names of folders; abort on a bug"),
    (libc::SYS_getrandom, "hash seeds"),
    (libc::SYS_rt_sigreturn, "return from a signal"),
    (libc::SYS_restart_syscall, "go on after being stopped"),
    (libc::SYS_exit_group, "end"),
    (libc::SYS_sigaltstack, "end of the main thread"),
    (libc::SYS_rt_sigaction, "abort on a bug"),
    (libc::SYS_rt_sigprocmask, "abort on a bug"),
    (libc::SYS_gettid, "abort on a bug"),
    (libc::SYS_tgkill, "abort on a bug"),
];

/// Why it cannot be confined; nothing is read then.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfineError {
    /// Landlock.
    #[error("could not confine the receiver to its folder")]
    Landlock(#[from] landlock::RulesetError),
    /// The filter.
    #[error("could not make the receiver's filter of system calls")]
    Filter(#[from] BackendError),
    /// Setting it.
    #[error("could not set the receiver's filter of system calls")]
    Apply(#[from] seccompiler::Error),
}

/// From now on there is this folder, what is open already, and the calls of the table.
pub(super) fn confine(folder: Option<BorrowedFd<'_>>) -> Result<(), ConfineError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    if let Some(folder) = folder {
        let access = AccessFs::ReadDir
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
            | AccessFs::Refer;
        rules = rules.add_rule(PathBeneath::new(folder, access))?;
    }
    rules.restrict_self()?;
    Ok(seccompiler::apply_filter(&filter()?)?)
}

fn filter() -> Result<BpfProgram, BackendError> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|&(number, _)| (number, vec![])).collect();
    // No memory becomes executable: mprotect is not in the table, and mmap only without PROT_EXEC.
    let executable = libc::PROT_EXEC as u64;
    let without =
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0)?;
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![without])?]);
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?
        .try_into()
}

/// Signals of a terminal that closes or interrupts: the end of who listens is what counts.
#[expect(unsafe_code, reason = "signal(2)")]
pub(super) fn outlive_interrupts() {
    for number in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGQUIT] {
        // SAFETY: no handler is installed.
        let _ = unsafe { signal(number, SigHandler::SigIgn) };
    }
}
