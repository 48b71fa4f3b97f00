//! Whether KVM works, which is tried and never inferred from the node, and who may open it.
//!
//! The cheap questions come first. A processor without VT-x or AMD-V can still have a `/dev/kvm`
//! (there are KVMs that translate guest kernels): it even runs small programs of all modes
//! correctly, but boots no stock kernel, so on x86 the processor's flags decide before anything is
//! tried. Then a child process makes a machine and runs instructions, under a deadline, because a
//! broken one can hang or take its process with it. Its answer is kept until the next boot, together
//! with what only a real guest can show: that it stayed silent under KVM.

#[cfg(target_arch = "x86_64")]
mod machine;

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use casemate_plan::facts::{KvmFacts, KvmNode};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, getgroups};
use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError};
use crate::pidfd::PidFd;
use crate::{boot, places};

/// The hidden argument with which `casemate-supervisor` calls [`answer_probe`] and ends.
pub const PROBE_ARGUMENT: &str = "--probe-kvm";

/// A probe that works takes some milliseconds.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

const NODE: &str = "/dev/kvm";

/// What is remembered until the next boot, in `kvm.json` of the state directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Remembered {
    /// Of which boot.
    boot: String,
    /// What the probe answered.
    probe: Option<Result<(), String>>,
    /// A guest said nothing under KVM and did without it.
    guest_was_silent: bool,
}

/// Whether KVM works and who may open it. `supervisor` is the program that is started with
/// [`PROBE_ARGUMENT`]; without a state directory nothing is remembered.
pub fn facts(supervisor: &Path, state: Option<&Path>) -> KvmFacts {
    match probe(supervisor, state) {
        Ok(node) => KvmFacts::Works { node },
        Err(reason) => KvmFacts::Unusable { reason },
    }
}

fn probe(supervisor: &Path, state: Option<&Path>) -> Result<KvmNode, String> {
    let node = fs::metadata(NODE).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{NODE} does not exist"),
        _ => format!("{NODE} cannot be looked at: {error}"),
    })?;
    processor_virtualizes(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())?;
    OpenOptions::new().read(true).write(true).open(NODE).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{NODE} is not open to you"),
        _ => format!("{NODE} cannot be opened: {error}"),
    })?;
    let groups = getgroups().unwrap_or_default();
    let node = class(node.mode(), Gid::from_raw(node.gid()), &groups);

    let remembered = recall(state);
    if remembered.guest_was_silent {
        return Err("a guest stayed silent under KVM since this machine was started".into());
    }
    let answer = remembered.probe.clone().unwrap_or_else(|| {
        let answer = ask(supervisor);
        let kept = change(state, |remembered| remembered.probe = Some(answer.clone()));
        if let Err(error) = kept {
            tracing::debug!("the answer of the KVM probe is not kept: {error}");
        }
        answer
    });
    answer.map(|()| node)
}

/// The flags of the first processor in `/proc/cpuinfo`.
pub(crate) fn cpu_flags(cpuinfo: &str) -> impl Iterator<Item = &str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    line.and_then(|line| line.split_once(':')).map_or("", |line| line.1).split_whitespace()
}

/// On x86, KVM for stock kernels needs `vmx` or `svm`. Elsewhere the node's existence says as much.
fn processor_virtualizes(cpuinfo: &str) -> Result<(), String> {
    if cfg!(target_arch = "x86_64") && !cpu_flags(cpuinfo).any(|flag| matches!(flag, "vmx" | "svm"))
    {
        return Err("the processor offers neither VT-x nor AMD-V here".into());
    }
    Ok(())
}

/// Who may open a node with this mode and group. The caller's primary group does not count unless
/// it is among the supplementary ones: a jail keeps only those.
fn class(mode: u32, group: Gid, groups: &[Gid]) -> KvmNode {
    if mode & 0o006 == 0o006 {
        KvmNode::World
    } else if mode & 0o060 == 0o060 && groups.contains(&group) {
        KvmNode::Group
    } else {
        KvmNode::Caller
    }
}

/// Remembers until the next boot that a guest said nothing under KVM though it did without it.
///
/// # Errors
/// The state directory cannot be written; the fallback then happens again next time.
pub fn remember_silent_guest(state: &Path) -> Result<(), DurableError> {
    change(Some(state), |remembered| remembered.guest_was_silent = true)
}

/// Whether that is remembered.
pub fn is_silent_guest_remembered(state: &Path) -> bool {
    recall(Some(state)).guest_was_silent
}

fn recall(state: Option<&Path>) -> Remembered {
    let kept = state.and_then(|state| durable::load(&file(state)).ok().flatten());
    of_this_boot(kept.unwrap_or_default())
}

fn change(state: Option<&Path>, change: impl FnOnce(&mut Remembered)) -> Result<(), DurableError> {
    let Some(state) = state else { return Ok(()) };
    // When it cannot be made, writing into it says so.
    let _ = places::make_directory(state);
    durable::update(&file(state), |kept: &mut Remembered| {
        *kept = of_this_boot(std::mem::take(kept));
        change(kept);
    })
}

fn of_this_boot(kept: Remembered) -> Remembered {
    match boot::id() {
        Some(boot) if boot == kept.boot => kept,
        boot => Remembered { boot: boot.unwrap_or_default(), ..Remembered::default() },
    }
}

fn file(state: &Path) -> PathBuf {
    state.join("kvm.json")
}

/// Has a child process probe. What it prints is the reason why not.
fn ask(supervisor: &Path) -> Result<(), String> {
    let could_not = |error: io::Error| format!("the probe of KVM could not be run: {error}");
    let mut child = Command::new(supervisor)
        .arg(PROBE_ARGUMENT)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(could_not)?;
    let ended = PidFd::open(child.id()).map(|pidfd| {
        let mut ends = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(PROBE_DEADLINE).unwrap_or(PollTimeout::MAX);
        poll(&mut ends, timeout).is_ok_and(|ready| ready == 1)
    });
    if !matches!(ended, Ok(true)) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(could_not)?;
    let mut reason = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(4096).read_to_string(&mut reason);
    }
    match (ended.map_err(could_not)?, status.success(), reason.trim()) {
        (false, ..) => Err(format!("its probe did not end within {} s", PROBE_DEADLINE.as_secs())),
        (_, true, _) => Ok(()),
        (_, false, "") => Err(format!("its probe failed ({status})")),
        (_, false, reason) => Err(reason.to_owned()),
    }
}

/// What the hidden argument does: probes, prints the reason why not, and says by the exit code.
pub fn answer_probe() -> ExitCode {
    match probe_in_this_process() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            use io::Write;
            let _ = writeln!(io::stdout(), "{reason}");
            ExitCode::FAILURE
        }
    }
}

/// Makes a machine and runs instructions in it. May hang or crash where KVM is broken: call it in a
/// process that nobody needs.
///
/// # Errors
/// Why it does not work, as a clause.
pub fn probe_in_this_process() -> Result<(), String> {
    #[cfg(target_arch = "x86_64")]
    return machine::run();
    #[cfg(not(target_arch = "x86_64"))]
    return fs::File::open(NODE)
        .map(drop)
        .map_err(|error| format!("{NODE} cannot be opened: {error}"));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn node_is_classed_by_mode_and_group() {
        let (kvm, other) = (Gid::from_raw(108), Gid::from_raw(5));
        assert_eq!(class(0o20666, kvm, &[]), KvmNode::World);
        assert_eq!(class(0o20660, kvm, &[other, kvm]), KvmNode::Group);
        assert_eq!(class(0o20660, kvm, &[other]), KvmNode::Caller);
        assert_eq!(class(0o20600, kvm, &[kvm]), KvmNode::Caller);
    }

    #[test]
    fn processor_without_virtualization_is_told() {
        let without = "processor\t: 0\nflags\t\t: fpu lm vmxnet\nbogomips\t: 1\n";
        assert!(processor_virtualizes(without).is_err() || !cfg!(target_arch = "x86_64"));
        processor_virtualizes("flags\t\t: fpu vmx lm\n").expect("VT-x");
        processor_virtualizes("flags\t\t: svm\n").expect("AMD-V");
    }

    #[test]
    fn silent_guest_is_remembered_until_the_next_boot() {
        let state = tempfile::tempdir().expect("a directory");
        let state = state.path().join("made");
        assert!(!is_silent_guest_remembered(&state));
        remember_silent_guest(&state).expect("kept");
        assert!(is_silent_guest_remembered(&state));

        let other =
            Remembered { boot: "another".into(), probe: Some(Ok(())), guest_was_silent: true };
        durable::store(&file(&state), &other).expect("kept");
        assert!(!is_silent_guest_remembered(&state));
        assert_eq!(recall(Some(&state)).probe, None);
    }

    #[test]
    fn probe_has_a_deadline_and_its_reason_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let program = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
            path
        };
        assert_eq!(ask(&program("good", "test $1 = --probe-kvm")), Ok(()));
        assert_eq!(ask(&program("bad", "echo the reason; exit 1")), Err("the reason".into()));
        let hanging = ask(&program("hanging", "exec sleep 60"));
        assert_eq!(hanging, Err("its probe did not end within 2 s".into()));
        assert!(ask(Path::new("/none")).expect_err("none").contains("could not be run"));
    }

    #[test]
    fn instructions_run_where_there_is_kvm() {
        if OpenOptions::new().read(true).write(true).open(NODE).is_err() {
            println!("skipped: {NODE} cannot be opened here");
            return;
        }
        assert_eq!(probe_in_this_process(), Ok(()));
    }
}
