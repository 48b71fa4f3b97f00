//! The id map of the user namespace, written by the monitor from outside.
//!
//! User 0 inside is the caller himself, so that building the root can reach his files; user 1 is
//! the subordinate one that the program runs as. The caller's group is *not* mapped: `newgidmap`
//! would then forbid setgroups(2), and his supplementary groups could not be dropped.
//!
//! A program that works on the caller's own files is the caller: then there is only user 1, who is
//! both, and his group, and no helper is needed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use casemate_plan::jail::{IdMapMethod, Identity};
use nix::unistd::{Pid, getuid};

use crate::error::{JailError, While};

/// The user that builds the jail, inside: the caller.
pub(crate) const BUILDER: u32 = 0;
/// The user and group of the program, inside.
pub(crate) const PROGRAM: u32 = 1;

/// Where the set-user-id programs of the package uidmap are: NixOS keeps them in `wrappers`.
const HELPER_DIRECTORIES: [&str; 4] = ["/run/wrappers/bin", "/usr/bin", "/usr/local/bin", "/bin"];

/// Maps the ids of the namespace that `child` is in.
pub(crate) fn write(child: Pid, identity: &Identity) -> Result<(), JailError> {
    let caller = getuid().as_raw();
    // No user of the host may be two inside.
    let users: &[[u32; 3]] = match identity.uid == caller {
        true => &[[PROGRAM, caller, 1]],
        false => &[[BUILDER, caller, 1], [PROGRAM, identity.uid, 1]],
    };
    let groups = [[PROGRAM, identity.gid, 1]];
    match identity.map {
        IdMapMethod::Direct => {
            write_file(child, "uid_map", users)?;
            write_file(child, "gid_map", &groups)
        }
        IdMapMethod::Caller => {
            let path = format!("/proc/{child}/setgroups");
            fs::write(&path, "deny").while_(|| "forbid setgroups in the user namespace".into())?;
            write_file(child, "uid_map", users)?;
            write_file(child, "gid_map", &groups)
        }
        IdMapMethod::Newidmap => {
            // Side by side: each costs about a millisecond.
            let users = start("newuidmap", child, users)?;
            let groups = start("newgidmap", child, &groups)?;
            finish("newuidmap", users).and(finish("newgidmap", groups))
        }
    }
}

fn write_file(child: Pid, name: &str, ranges: &[[u32; 3]]) -> Result<(), JailError> {
    let path = format!("/proc/{child}/{name}");
    // One write(2) is required (user_namespaces(7)), and is what this does.
    let lines: String = ranges.iter().map(|[a, b, n]| format!("{a} {b} {n}\n")).collect();
    fs::write(&path, lines).while_(|| format!("write {name} of the user namespace"))
}

fn start(name: &str, child: Pid, ranges: &[[u32; 3]]) -> Result<Child, JailError> {
    let program = HELPER_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| JailError::IdMap {
            program: name.into(),
            said: "it is not installed (package uidmap)".into(),
        })?;
    Command::new(program)
        .arg(child.to_string())
        .args(ranges.iter().flatten().map(u32::to_string))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .while_(|| format!("start {name}"))
}

fn finish(name: &str, helper: Child) -> Result<(), JailError> {
    let output = helper.wait_with_output().while_(|| format!("wait for {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(JailError::IdMap { program: name.into(), said })
}
