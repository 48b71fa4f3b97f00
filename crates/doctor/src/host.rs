//! The machine that compartments run on.
//!
//! One table. Each check judges a [`Machine`]: the facts a plan is made from, the text of a few files
//! of the kernel, and what casemate has on this machine.

mod casemate;
mod kernel;
mod start;

use std::collections::BTreeMap;

use casemate_plan::facts::HostFacts;
use casemate_plan::hardening::Severity;

use crate::report::{Finding, Report, Unseen};

/// Files of the kernel that the checks read; [`Machine::files`] has what they hold.
pub const FILES: &[&str] = &[
    kernel::CORE_PATTERN,
    kernel::PTRACE_SCOPE,
    kernel::KPTR,
    kernel::DMESG,
    kernel::BPF,
    kernel::LOCKDOWN,
    kernel::SMT,
    kernel::KSM,
    kernel::MOUNTS,
    kernel::ASLR,
];

/// Where the kernel tells which faults of the processor it knows and works around, one file each.
pub const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";

/// Something that was looked at, or why it could not be.
pub type Look<T> = Result<T, String>;

/// What is known about a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What plans are made from.
    pub facts: HostFacts,
    /// Contents of [`FILES`], without the last line break.
    pub files: BTreeMap<&'static str, Look<String>>,
    /// Names and contents of the files in [`VULNERABILITIES`].
    pub vulnerabilities: Look<BTreeMap<String, String>>,
    /// Swap areas.
    pub swaps: Look<Vec<Swap>>,
    /// Free bytes where casemate keeps something: what, where, how much.
    pub space: Vec<(&'static str, String, Look<u64>)>,
    /// casemate's own programs are there and static; else why not.
    pub programs: Result<(), String>,
    /// Libraries of allocators that are not there.
    pub missing_allocators: Vec<String>,
    /// Errors of the configuration, one sentence each.
    pub configuration: Vec<String>,
    /// Images of compartments that cannot be used, and why.
    pub damaged_images: Look<Vec<String>>,
    /// Volumes whose key protects little, or that are damaged: name and a clause.
    pub volumes: Look<Volumes>,
    /// Sockets and services of compartments.
    pub units: Units,
}

/// A swap area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Its device or file.
    pub path: String,
    /// What is written there cannot be read when the machine is off.
    pub safe: bool,
}

/// The volumes there is something to say about, each as `NAME: what`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volumes {
    /// Their key protects little.
    pub weak: Vec<String>,
    /// They cannot be read.
    pub damaged: Vec<String>,
}

/// What systemd is told of compartments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// systemd runs here.
    pub systemd: bool,
    /// `casemate@.socket` and `casemate@.service` lie where systemd looks.
    pub installed: bool,
    /// The program that the installed service starts, when it is another one or not there.
    pub stale: Option<String>,
    /// Compartments with `autostart` that nothing starts.
    pub not_enabled: Vec<String>,
}

/// What a check came to.
pub(crate) enum Outcome {
    /// As it should be.
    Good,
    /// Otherwise, as seen.
    Found(String),
    /// It could not be looked at.
    Unknown(String),
    /// There is nothing here it could be about.
    Nothing,
}

/// One check.
pub(crate) struct Check {
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    pub(crate) title: &'static str,
    pub(crate) why: &'static str,
    pub(crate) mend: &'static str,
    pub(crate) run: fn(&Machine) -> Outcome,
}

/// All checks, in the order of the page.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    start::CHECKS.iter().chain(casemate::CHECKS).chain(kernel::CHECKS)
}

/// Runs every check.
pub fn examine(machine: &Machine) -> Report {
    let mut report = Report::default();
    for check in checks() {
        match (check.run)(machine) {
            Outcome::Good => report.good.push(check.id.into()),
            Outcome::Nothing => {}
            Outcome::Unknown(reason) => report.unseen.push(Unseen {
                id: check.id.into(),
                title: check.title.into(),
                reason,
            }),
            Outcome::Found(found) => report.findings.push(Finding {
                id: check.id.into(),
                severity: check.severity,
                title: check.title.into(),
                found,
                why: check.why.into(),
                mend: check.mend.into(),
            }),
        }
    }
    report.sort();
    report
}

/// Judges a list of what is wrong.
fn none_of(found: &[String]) -> Outcome {
    if found.is_empty() { Outcome::Good } else { Outcome::Found(found.join("; ")) }
}

/// The same of a list that could perhaps not be had.
fn none_seen(found: &Look<Vec<String>>) -> Outcome {
    match found {
        Ok(found) => none_of(found),
        Err(reason) => Outcome::Unknown(reason.clone()),
    }
}

#[cfg(test)]
mod tests;
