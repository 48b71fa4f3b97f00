//! The system calls this process may make, each with its reason. Anything else kills it.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Number and reason of every allowed call.
const ALLOWED: &[(i64, &str)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "wait"),
    (libc::SYS_epoll_pwait, "wait, as newer C libraries do it"),
    (libc::SYS_epoll_ctl, "watch and stop watching descriptors"),
    (libc::SYS_recvfrom, "read the port, the console, clients and viewers"),
    (libc::SYS_sendmsg, "write to them, and reports to the supervisor"),
    (libc::SYS_recvmsg, "take orders and their descriptors"),
    (libc::SYS_read, "read an order's memory file"),
    (libc::SYS_write, "append to the logs"),
    (libc::SYS_lseek, "rewind a log that starts anew; memory files"),
    (libc::SYS_ftruncate, "start a log anew"),
    (libc::SYS_statx, "size of a log or memory file"),
    (libc::SYS_fstat, "the same, as older C libraries do it"),
    (libc::SYS_newfstatat, "the same, as newer C libraries do it"),
    (libc::SYS_memfd_create, "a report that does not fit a datagram"),
    (libc::SYS_close, "forget clients, viewers and logs"),
    (libc::SYS_brk, "allocate memory"),
    (libc::SYS_mmap, "allocate memory"),
    (libc::SYS_munmap, "free memory"),
    (libc::SYS_mremap, "grow a queue"),
    (libc::SYS_madvise, "give freed memory back"),
    (libc::SYS_clock_gettime, "count messages per second where the vDSO cannot"),
    (libc::SYS_futex, "locks of the standard library"),
    (libc::SYS_rt_sigreturn, "return from a signal"),
    (libc::SYS_restart_syscall, "go on after being stopped"),
    (libc::SYS_getrandom, "allocator and hash seeds"),
    (libc::SYS_exit_group, "end"),
    (libc::SYS_sigaltstack, "end of the main thread"),
    (libc::SYS_rt_sigaction, "abort on a bug"),
    (libc::SYS_rt_sigprocmask, "abort on a bug"),
    (libc::SYS_gettid, "abort on a bug"),
    (libc::SYS_getpid, "abort on a bug"),
    (libc::SYS_tgkill, "abort on a bug"),
];

/// Why the filter could not be set.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// This machine's architecture has no filter.
    #[error("could not make a system call filter for this architecture")]
    Architecture(#[source] seccompiler::BackendError),
    /// The filter is refused.
    #[error("could not set the system call filter")]
    Apply(#[from] seccompiler::Error),
}

/// From now on only the calls of the table work.
pub fn confine() -> Result<(), SeccompError> {
    let architecture: TargetArch =
        std::env::consts::ARCH.try_into().map_err(SeccompError::Architecture)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|&(number, _)| (number, vec![])).collect();
    // No memory becomes executable: mprotect is not in the table, and mmap only without PROT_EXEC.
    let protection = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64),
        0,
    );
    let rule = protection.and_then(|condition| SeccompRule::new(vec![condition]));
    rules.insert(libc::SYS_mmap, vec![rule.map_err(SeccompError::Architecture)?]);
    let filter =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)
            .map_err(SeccompError::Architecture)?;
    let program: BpfProgram = filter.try_into().map_err(SeccompError::Architecture)?;
    Ok(seccompiler::apply_filter(&program)?)
}
