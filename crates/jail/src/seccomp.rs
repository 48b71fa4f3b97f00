//! Filters of system calls. For programs that may make sockets and nothing else: what they never
//! need is refused. For programs that may make files: none gets the set-user-id or the set-group-id bit.
//!
//! What such a program makes belongs to a person, and a guest decides what is in it: with the bit,
//! every user of the host could run a guest's program as that person. A file made with the bit at
//! once (openat2(2) hides its mode from filters) is empty, and the kernel takes the bit away with
//! the first write of a process without CAP_FSETID, which nobody here has.

use std::collections::BTreeMap;

use casemate_plan::jail::{Access, VisibleFile};
use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::error::JailError;

/// The calls that set a mode, and which argument it is.
const MODES: &[(i64, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
];

/// `fchmodat2`, of Linux 6.6; asm-generic/unistd.h, the same for every architecture.
const FCHMODAT2: i64 = 452;

/// What no carrier of bytes needs, and what each would be good for.
const RARE: &[(i64, &str)] = &[
    (libc::SYS_ptrace, "taking another process over"),
    (libc::SYS_process_vm_readv, "the same"),
    (libc::SYS_process_vm_writev, "the same"),
    (libc::SYS_unshare, "namespaces, which bring more of the kernel in reach"),
    (libc::SYS_setns, "the same"),
    (libc::SYS_mount, "other files"),
    (libc::SYS_umount2, "the same"),
    (libc::SYS_pivot_root, "the same"),
    (libc::SYS_chroot, "the same"),
    (libc::SYS_open_by_handle_at, "the same"),
    (libc::SYS_fsopen, "the same"),
    (libc::SYS_move_mount, "the same"),
    (libc::SYS_open_tree, "the same"),
    (libc::SYS_bpf, "programs in the kernel"),
    (libc::SYS_perf_event_open, "holes in the kernel"),
    (libc::SYS_userfaultfd, "winning races in the kernel"),
    (libc::SYS_io_uring_setup, "holes in the kernel, past this filter"),
    (libc::SYS_keyctl, "keys"),
    (libc::SYS_add_key, "keys"),
    (libc::SYS_request_key, "keys"),
    (libc::SYS_init_module, "code in the kernel"),
    (libc::SYS_finit_module, "code in the kernel"),
    (libc::SYS_kexec_load, "another kernel"),
    (libc::SYS_kexec_file_load, "another kernel"),
];

/// Filters the calls of this process, if it may change anything.
pub(crate) fn apply(files: &[VisibleFile]) -> Result<(), JailError> {
    let has = |access| files.iter().any(|file| file.access == access);
    if has(Access::Change) {
        let program = filter().map_err(seccompiler::Error::Backend)?;
        seccompiler::apply_filter(&program)?;
    }
    if has(Access::Sockets) {
        let program = sockets_only().map_err(seccompiler::Error::Backend)?;
        seccompiler::apply_filter(&program)?;
        let program = without_clone3().map_err(seccompiler::Error::Backend)?;
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

/// clone3 has its flags in memory, where no filter can look. Whoever hears that it is not there makes
/// processes and threads with clone.
fn without_clone3() -> Result<BpfProgram, BackendError> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let rules = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, missing, architecture)?.try_into()
}

/// Refuses [`RARE`] calls, and every socket but unix(7).
fn sockets_only() -> Result<BpfProgram, BackendError> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        RARE.iter().map(|&(call, _)| (call, vec![])).collect();
    let (operator, length) = (SeccompCmpOp::Ne, SeccompCmpArgLen::Dword);
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let other =
            SeccompCondition::new(0, length.clone(), operator.clone(), libc::AF_UNIX as u64)?;
        rules.insert(call, vec![SeccompRule::new(vec![other])?]);
    }
    let bit = libc::CLONE_NEWUSER as u64;
    let operator = SeccompCmpOp::MaskedEq(bit);
    let spaces = SeccompCondition::new(0, SeccompCmpArgLen::Qword, operator, bit)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![spaces])?]);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?.try_into()
}

fn filter() -> Result<BpfProgram, BackendError> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let mut rules = BTreeMap::new();
    for &(call, argument) in MODES {
        let has = |bit: libc::mode_t| {
            let bit = u64::from(bit);
            let operator = SeccompCmpOp::MaskedEq(bit);
            let length = SeccompCmpArgLen::Dword;
            SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, bit)?])
        };
        rules.insert(call, vec![has(libc::S_ISUID)?, has(libc::S_ISGID)?]);
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?.try_into()
}
