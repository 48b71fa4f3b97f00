//! What the process may still do once it serves: nothing that opens, connects or starts. Landlock
//! takes all files, TCP and everything outside away, a filter of system calls all but those below,
//! limits memory and descriptors.

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::limits;

/// Number and reason of every call the process may make; another kills it.
const SERVES: &[(i64, &str)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "wait"),
    (libc::SYS_ppoll, "wait, where there is no poll"),
    (libc::SYS_accept4, "take clients and brokers"),
    (libc::SYS_recvmsg, "read from clients, compositor, connector and broker"),
    (libc::SYS_sendmsg, "write to them"),
    (libc::SYS_sendto, "ask for a connection to the compositor"),
    (libc::SYS_memfd_create, "the pixels of a border"),
    (libc::SYS_write, "those pixels, the log, and a paste into a pipe of our own"),
    (libc::SYS_pread64, "what the broker offers"),
    (libc::SYS_pipe2, "taking and pasting"),
    (libc::SYS_splice, "a paste on its way to a client, without waiting"),
    (libc::SYS_fstat, "whether a pool of shared memory is a file"),
    (libc::SYS_newfstatat, "the same, as newer C libraries do it"),
    (libc::SYS_statx, "the same, where that is newer still"),
];

/// The same for the process that only connects.
const CONNECTS: &[(i64, &str)] = &[
    (libc::SYS_recvfrom, "be asked"),
    (libc::SYS_socket, "connect"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_sendmsg, "answer"),
    (libc::SYS_write, "the log"),
];

/// What both need.
const BOTH: &[(i64, &str)] = &[
    (libc::SYS_close, "forget what is gone"),
    (libc::SYS_fcntl, "seal pixels, duplicate a socket, look whether one is open, enlarge a pipe"),
    (libc::SYS_brk, "allocate memory"),
    (libc::SYS_mmap, "allocate memory"),
    (libc::SYS_munmap, "free memory"),
    (libc::SYS_mremap, "grow a queue"),
    (libc::SYS_madvise, "give freed memory back"),
    (libc::SYS_clock_gettime, "deadlines, where the vDSO cannot"),
    (libc::SYS_futex, "locks of the standard library"),
    (libc::SYS_rt_sigreturn, "return from a signal"),
    (libc::SYS_restart_syscall, "go on after being stopped"),
    (libc::SYS_getrandom, "hash seeds"),
    (libc::SYS_exit_group, "end"),
    (libc::SYS_sigaltstack, "end of the main thread"),
    (libc::SYS_rt_sigaction, "abort on a bug"),
    (libc::SYS_rt_sigprocmask, "abort on a bug"),
    (libc::SYS_gettid, "abort on a bug"),
    (libc::SYS_getpid, "abort on a bug"),
    (libc::SYS_tgkill, "abort on a bug"),
];

/// The newest Landlock these rules were tried with. Older kernels apply what they know.
const NEWEST: ABI = ABI::V6;

/// Why the process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A limit is refused.
    #[error("could not limit memory and descriptors")]
    Limit(#[source] rustix::io::Errno),
    /// Landlock refuses.
    #[error("could not give up files and network by Landlock")]
    Landlock(#[source] RulesetError),
    /// This machine's architecture has no filter.
    #[error("could not make a system call filter for this architecture")]
    Architecture(#[source] seccompiler::BackendError),
    /// The filter is refused.
    #[error("could not set the system call filter")]
    Filter(#[from] seccompiler::Error),
}

/// From now on this process can serve, and nothing else.
///
/// # Errors
/// See [`ConfineError`]; it must not serve then.
pub fn server() -> Result<(), ConfineError> {
    for (resource, most) in [
        (Resource::Nofile, limits::OPEN_FILES),
        (Resource::Data, limits::MEMORY),
        // 1 and not 0: with 0 a handler of dumps still gets them.
        (Resource::Core, 1),
    ] {
        // What is lower already stays.
        let before = rustix::process::getrlimit(resource);
        let most = before.maximum.map_or(most, |before| before.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(ConfineError::Limit)?;
    }
    landlock(Scope::from_all(NEWEST)).map_err(ConfineError::Landlock)?;
    filter(SERVES)
}

/// From now on this process can connect to sockets of the machine, and nothing else.
///
/// # Errors
/// As [`server`].
pub fn connector() -> Result<(), ConfineError> {
    // Landlock does not stop connecting to a path, and a scope would stop an abstract one.
    landlock(Scope::Signal.into()).map_err(ConfineError::Landlock)?;
    filter(CONNECTS)
}

fn landlock(scope: landlock::BitFlags<Scope>) -> Result<(), RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(scope)?
        .create()?
        .no_new_privs(true)
        .restrict_self()
        .map(|_| ())
}

fn filter(allowed: &[(i64, &str)]) -> Result<(), ConfineError> {
    let architecture: TargetArch =
        std::env::consts::ARCH.try_into().map_err(ConfineError::Architecture)?;
    let calls = allowed.iter().chain(BOTH);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.map(|&(number, _)| (number, vec![])).collect();
    // No memory becomes executable: mprotect is not in the table, and mmap only without PROT_EXEC.
    only(&mut rules, libc::SYS_mmap, 2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)?;
    // Connections to this machine only.
    if rules.contains_key(&libc::SYS_socket) {
        only(&mut rules, libc::SYS_socket, 0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?;
    }
    let filter =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)
            .map_err(ConfineError::Architecture)?;
    let program: BpfProgram = filter.try_into().map_err(ConfineError::Architecture)?;
    Ok(seccompiler::apply_filter(&program)?)
}

fn only(
    rules: &mut BTreeMap<i64, Vec<SeccompRule>>,
    call: i64,
    argument: u8,
    compare: SeccompCmpOp,
    value: u64,
) -> Result<(), ConfineError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value);
    let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
    rules.insert(call, vec![rule.map_err(ConfineError::Architecture)?]);
    Ok(())
}
