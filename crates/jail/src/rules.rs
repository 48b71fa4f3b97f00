//! Landlock: the same list of files once more, as rules of the process itself (landlock(7)).
//!
//! The mounts already show nothing else. The rules hold where a mount would not: they forbid every
//! TCP port, signals to processes outside, abstract sockets made outside, and files reached by a
//! way nobody thought of. What the kernel does not know of yet is left out, down to nothing at all.

use std::os::fd::OwnedFd;

use casemate_plan::jail::{Access as FileAccess, Jail, Reach};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};

use crate::error::JailError;
use crate::root::PROCESSES;

/// The newest interface these rules were tried with. Older kernels apply what they know.
const NEWEST: ABI = ABI::V7;

/// Confines this process to the listed files and the program itself, for good.
pub(crate) fn apply(jail: &Jail, executable: &OwnedFd) -> Result<(), JailError> {
    if jail.reach == Reach::HostNetwork {
        return apply_scopes();
    }
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    rules = rules.add_rule(PathBeneath::new(executable, AccessFs::Execute | AccessFs::ReadFile))?;
    for folder in ["/proc", PROCESSES] {
        if let Ok(proc) = PathFd::new(folder) {
            rules = rules.add_rule(PathBeneath::new(proc, rights(FileAccess::Read, true)))?;
        }
    }
    for file in &jail.files {
        // A link is followed: what it leads to is listed itself, or is not there.
        let Ok(metadata) = std::fs::metadata(&file.target) else { continue };
        let Ok(opened) = PathFd::new(&file.target) else { continue };
        rules = rules.add_rule(PathBeneath::new(opened, rights(file.access, metadata.is_dir())))?;
    }
    // no_new_privs is set already.
    rules.no_new_privs(false).restrict_self()?;
    Ok(())
}

/// What remains for a process that mounts and connects: no signal and no abstract socket leaves the
/// jail.
fn apply_scopes() -> Result<(), JailError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    rules.no_new_privs(false).restrict_self()?;
    Ok(())
}

/// The rights of one entry. Those that only make sense for a directory are refused for a file.
fn rights(access: FileAccess, directory: bool) -> BitFlags<AccessFs> {
    let read = match directory {
        true => AccessFs::ReadFile | AccessFs::ReadDir,
        false => AccessFs::ReadFile.into(),
    };
    match access {
        FileAccess::Read | FileAccess::Empty => read,
        FileAccess::Execute => read | AccessFs::Execute,
        // Everything but running programs and making device nodes.
        FileAccess::Change if directory => {
            AccessFs::from_all(NEWEST)
                & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock)
        }
        FileAccess::Sockets if directory => {
            AccessFs::ReadDir | AccessFs::MakeSock | AccessFs::RemoveFile
        }
        FileAccess::Write | FileAccess::Change | FileAccess::Sockets => {
            read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev
        }
    }
}
