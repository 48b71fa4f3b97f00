//! What the process that reads a guest's files gives up before it reads the first byte.

use std::os::fd::BorrowedFd;

use landlock::{AccessFs, PathBeneath, RulesetCreatedAttr};
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::confine::{self, Allowed, ConfineError};

/// Calls beyond those of every such process. None makes a socket, a process or an executable page; none
/// changes a mode or an owner.
const ALLOWED: &[Allowed] = &[
    (libc::SYS_read, "the session's socket; folders to be cleared"),
    (libc::SYS_recvfrom, "the session's socket"),
    (libc::SYS_writev, "files, reports"),
    (libc::SYS_sendto, "the answer"),
    (libc::SYS_sendmsg, "the answer"),
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
    (libc::SYS_getrandom, "hash seeds"),
];

/// From now on there is this folder, what is open already, and the calls of the table.
pub(super) fn confine(folder: Option<BorrowedFd<'_>>) -> Result<(), ConfineError> {
    let mut rules = confine::nothing()?;
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
    confine::confine(rules, ALLOWED)
}

/// Signals of a terminal that closes or interrupts: the end of who listens is what counts.
#[expect(unsafe_code, reason = "signal(2)")]
pub(super) fn outlive_interrupts() {
    for number in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGQUIT] {
        // SAFETY: no handler is installed.
        let _ = unsafe { signal(number, SigHandler::SigIgn) };
    }
}
