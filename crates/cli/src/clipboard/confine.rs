//! What the process that holds the clipboard gives up before anybody connects: files, the network, new
//! programs, and being looked into.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mlock, mmap};
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// The newest Landlock these rules were tried with. Older kernels apply what they know.
const NEWEST: ABI = ABI::V7;

/// Number and reason of every allowed call. None opens, connects, reads a file or starts anything.
const ALLOWED: &[(i64, &str)] = &[
    (libc::SYS_accept4, "commands connect"),
    (libc::SYS_recvmsg, "their word"),
    (libc::SYS_sendmsg, "the answer, with the content as a descriptor"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "wait"),
    (libc::SYS_ppoll, "wait"),
    (libc::SYS_close, "commands that have gone"),
    (libc::SYS_fcntl, "look whether one is open (debug builds)"),
    (libc::SYS_brk, "allocate memory"),
    (libc::SYS_mmap, "allocate memory"),
    (libc::SYS_munmap, "free memory"),
    (libc::SYS_mremap, "grow memory"),
    (libc::SYS_madvise, "give freed memory back"),
    (libc::SYS_clock_gettime, "its time, where the vDSO cannot"),
    (libc::SYS_futex, "locks of the standard library"),
    (libc::SYS_getpid, "the number of what is held; abort on a bug"),
    (libc::SYS_write, "nothing: the standard library empties its output at the end"),
    (libc::SYS_rt_sigreturn, "return from a signal"),
    (libc::SYS_restart_syscall, "go on after being stopped"),
    (libc::SYS_exit_group, "end"),
    (libc::SYS_sigaltstack, "end of the main thread"),
    (libc::SYS_rt_sigaction, "abort on a bug"),
    (libc::SYS_rt_sigprocmask, "abort on a bug"),
    (libc::SYS_gettid, "abort on a bug"),
    (libc::SYS_tgkill, "abort on a bug"),
];

/// Why it cannot be confined; nothing is held then.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfineError {
    /// A limit or an attribute of the process.
    #[error("could not keep others from looking into it")]
    Process(#[from] nix::Error),
    /// Landlock.
    #[error("could not take its files away")]
    Landlock(#[from] landlock::RulesetError),
    /// The filter.
    #[error("could not make its filter of system calls")]
    Filter(#[from] BackendError),
    /// Setting it.
    #[error("could not set its filter of system calls")]
    Apply(#[from] seccompiler::Error),
}

/// Its memory is in no dump, and no other process of the user looks into it. Before the content can be
/// had by anybody.
pub(super) fn hide() -> Result<(), ConfineError> {
    nix::sys::prctl::set_dumpable(false)?;
    for (resource, most) in
        [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_NOFILE, 16), (Resource::RLIMIT_NPROC, 0)]
    {
        // What is lower already stays.
        let _ = setrlimit(resource, most, most);
    }
    Ok(())
}

/// Keeps the content off the disk, where the user may lock that much memory: it is mapped, and read by
/// nobody here. False where it may not.
#[expect(unsafe_code, reason = "mmap(2) and mlock(2)")]
pub(super) fn lock(content: &File, size: u64) -> bool {
    let Some(length) = usize::try_from(size).ok().and_then(NonZeroUsize::new) else { return true };
    let (kind, flags) = (ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
    // SAFETY: the mapping is new, stays until the process ends, and no reference into it is made.
    unsafe {
        mmap(None, length, kind, flags, content, 0)
            .and_then(|address| mlock(address, length.get()))
            .is_ok()
    }
}

/// From now on there is what is open already, and the calls of the table.
pub(super) fn confine() -> Result<(), ConfineError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .restrict_self()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|&(number, _)| (number, vec![])).collect();
    // No memory becomes executable: mprotect is not in the table, and mmap only without PROT_EXEC.
    let executable = libc::PROT_EXEC as u64;
    let without =
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0)?;
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![without])?]);
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, kill, allow, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
