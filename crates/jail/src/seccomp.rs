//! A filter of system calls for programs that may make files: none gets the set-user-id or the
//! set-group-id bit.
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

/// Filters the calls of this process, if it may change anything.
pub(crate) fn apply(files: &[VisibleFile]) -> Result<(), JailError> {
    if !files.iter().any(|file| file.access == Access::Change) {
        return Ok(());
    }
    let program = filter().map_err(seccompiler::Error::Backend)?;
    Ok(seccompiler::apply_filter(&program)?)
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
