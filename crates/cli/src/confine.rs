//! What the confined processes of the command line have in common: the one that reads a guest's bytes
//! ([`crate::files`]), and the one that holds the clipboard ([`crate::clipboard`]).

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreated, RulesetError, Scope,
};
use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// The newest Landlock these rules were tried with. Older kernels apply what they know.
const NEWEST: ABI = ABI::V7;

/// Number of a system call, and why it is allowed.
pub(crate) type Allowed = (i64, &'static str);

/// What a process of Rust needs to wait, to have memory and to end. None opens, connects or starts
/// anything.
const ALWAYS: &[Allowed] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "wait"),
    (libc::SYS_ppoll, "wait"),
    (libc::SYS_close, "descriptors of who has gone"),
    (libc::SYS_fcntl, "copies of descriptors; whether one is open (debug builds)"),
    (libc::SYS_brk, "allocate memory"),
    (libc::SYS_mmap, "allocate memory"),
    (libc::SYS_munmap, "free memory"),
    (libc::SYS_mremap, "grow memory"),
    (libc::SYS_madvise, "give freed memory back"),
    (libc::SYS_clock_gettime, "time, where the vDSO cannot"),
    (libc::SYS_futex, "locks of the standard library"),
    (libc::SYS_getpid, "its own number; abort on a bug"),
    (libc::SYS_write, "reports; what the standard library empties at the end"),
    (libc::SYS_rt_sigreturn, "return from a signal"),
    (libc::SYS_restart_syscall, "go on after being stopped"),
    (libc::SYS_exit_group, "end"),
    (libc::SYS_sigaltstack, "end of the main thread"),
    (libc::SYS_rt_sigaction, "abort on a bug"),
    (libc::SYS_rt_sigprocmask, "abort on a bug"),
    (libc::SYS_gettid, "abort on a bug"),
    (libc::SYS_tgkill, "abort on a bug"),
];

/// Why a process cannot be confined; it does nothing then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    /// An attribute of the process.
    #[error("could not keep others from looking into it")]
    Process(#[from] nix::Error),
    /// Landlock.
    #[error("could not take files and the network away")]
    Landlock(#[from] RulesetError),
    /// The filter.
    #[error("could not make the filter of system calls")]
    Filter(#[from] BackendError),
    /// Setting it.
    #[error("could not set the filter of system calls")]
    Apply(#[from] seccompiler::Error),
}

/// Rules by which there is no file, no network and nobody to signal, until some are added.
///
/// # Errors
/// See [`ConfineError`].
pub(crate) fn nothing() -> Result<RulesetCreated, ConfineError> {
    Ok(Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?)
}

/// From now on these rules hold, and every call but [`ALWAYS`] and `more` kills the process.
///
/// # Errors
/// See [`ConfineError`].
pub(crate) fn confine(rules: RulesetCreated, more: &[Allowed]) -> Result<(), ConfineError> {
    rules.restrict_self()?;
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> =
        ALWAYS.iter().chain(more).map(|&(number, _)| (number, vec![])).collect();
    // No memory becomes executable: mprotect is not in the table, and mmap only without PROT_EXEC.
    let executable = libc::PROT_EXEC as u64;
    let without =
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0)?;
    calls.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![without])?]);
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let filter = SeccompFilter::new(calls, kill, allow, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
