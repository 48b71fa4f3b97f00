//! Machines as they should be, and one thing at a time otherwise.

use std::collections::BTreeSet;

use casemate_plan::facts::{KvmFacts, KvmNode};
use casemate_plan::hardening::Severity;
use casemate_plan::helper::{self, HelperFacts, Terms};

use super::*;

/// A machine without a fault.
fn machine() -> Machine {
    // The machine of the plan's cases, with KVM.
    let facts = include_str!("../../../plan/tests/cases/facts.json");
    let mut facts: HostFacts = serde_json::from_str(facts).expect("facts");
    facts.kvm = KvmFacts::Works { node: KvmNode::Group };
    let contents = [
        (kernel::CORE_PATTERN, "|/bin/false"),
        (kernel::PTRACE_SCOPE, "1"),
        (kernel::KPTR, "1"),
        (kernel::DMESG, "1"),
        (kernel::BPF, "2"),
        (kernel::ASLR, "2"),
        (kernel::LOCKDOWN, "none [integrity] confidentiality"),
        (kernel::SMT, "notsupported"),
        (kernel::KSM, "0"),
        (kernel::MOUNTS, "proc /proc proc rw,nosuid,hidepid=invisible 0 0"),
    ];
    let terms = Terms {
        cidr: "172.16.200.0/24".parse().expect("a network"),
        nat: true,
        interface: None,
        ids: None,
    };
    facts.network.helper = HelperFacts::Ready { socket: helper::SOCKET.into(), terms };
    Machine {
        facts,
        files: contents.map(|(file, content)| (file, Ok(content.to_owned()))).into(),
        vulnerabilities: Ok([("meltdown".to_owned(), "Mitigation: PTI".to_owned())].into()),
        swaps: Ok(vec![Swap { path: "/dev/zram0".into(), safe: true }]),
        space: vec![("images", "/data".into(), Ok(1 << 40))],
        programs: Ok(()),
        missing_allocators: vec![],
        configuration: vec![],
        damaged_images: Ok(vec![]),
        volumes: Ok(Volumes::default()),
        units: Units { systemd: true, installed: true, ..Units::default() },
    }
}

/// The only finding about a machine.
fn only(machine: &Machine) -> Finding {
    let mut findings = examine(machine).findings;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

/// A machine with one file otherwise.
fn with_file(file: &'static str, content: &str) -> Machine {
    let mut machine = machine();
    machine.files.insert(file, Ok(content.into()));
    machine
}

#[test]
fn machine_as_it_should_be_has_no_findings() {
    let report = examine(&machine());
    assert_eq!(report.findings, []);
    assert_eq!(report.unseen, []);
    assert_eq!(report.good.len(), checks().count());
}

#[test]
fn helper_that_gives_nothing_is_a_note_and_none_is_nothing() {
    let mut machine = machine();
    let reason = "user `owner` has no grant of links".to_owned();
    machine.facts.network.helper = HelperFacts::Refuses { reason };
    let found = only(&machine);
    assert_eq!((found.id.as_str(), found.severity), ("network-helper", Severity::Note));
    assert_eq!(found.found, "it says: user `owner` has no grant of links");
    machine.facts.network.helper = HelperFacts::Absent;
    assert_eq!(examine(&machine).findings, []);
}

#[test]
fn every_file_is_read_and_used() {
    let machine = machine();
    assert_eq!(
        machine.files.keys().copied().collect::<BTreeSet<_>>(),
        FILES.iter().copied().collect()
    );
    for file in FILES {
        let mut machine = machine.clone();
        machine.files.insert(file, Err("permission denied".into()));
        let report = examine(&machine);
        assert_eq!(report.unseen.len(), 1, "{file}");
        assert_eq!(report.unseen[0].reason, "permission denied");
        assert_eq!(report.findings, []);
    }
}

#[test]
fn ids_are_unique_and_each_check_says_why_and_what_to_do() {
    let ids: BTreeSet<&str> = checks().map(|check| check.id).collect();
    assert_eq!(ids.len(), checks().count());
    for check in checks() {
        for text in [check.title, check.why, check.mend] {
            assert!(!text.is_empty() && !text.ends_with('.'), "{}: {text}", check.id);
        }
    }
}

#[test]
fn settings_of_the_kernel_are_found_one_by_one() {
    for (file, content, id) in [
        (kernel::CORE_PATTERN, "|/usr/lib/systemd/systemd-coredump %P", "core-pattern"),
        (kernel::PTRACE_SCOPE, "0", "ptrace-scope"),
        (kernel::KPTR, "0", "kptr-restrict"),
        (kernel::DMESG, "0", "dmesg-restrict"),
        (kernel::BPF, "0", "unprivileged-bpf"),
        (kernel::ASLR, "1", "randomize-va-space"),
        (kernel::LOCKDOWN, "[none] integrity confidentiality", "lockdown"),
        (kernel::SMT, "on", "smt"),
        (kernel::KSM, "1", "ksm"),
        (kernel::MOUNTS, "proc /proc proc rw,nosuid,hidepid=0 0 0", "hidepid"),
    ] {
        assert_eq!(only(&with_file(file, content)).id, id);
    }
}

#[test]
fn core_dumps_into_a_file_are_kept_away_by_limits() {
    assert_eq!(examine(&with_file(kernel::CORE_PATTERN, "core")).findings, []);
}

#[test]
fn faults_of_the_processor_are_named() {
    let mut machine = machine();
    machine.vulnerabilities = Ok([
        ("mds".to_owned(), "Vulnerable: Clear CPU buffers attempted, no microcode".to_owned()),
        ("l1tf".to_owned(), "Not affected".to_owned()),
    ]
    .into());
    let finding = only(&machine);
    assert!(finding.found.starts_with("mds: Vulnerable"), "{}", finding.found);
}

#[test]
fn plain_swap_is_found() {
    let mut machine = machine();
    machine.swaps = Ok(vec![Swap { path: "/dev/sda2".into(), safe: false }]);
    assert_eq!(only(&machine).found, "/dev/sda2");
}

#[test]
fn what_a_start_needs_is_an_error_but_kvm() {
    let mut kvm = machine();
    kvm.facts.kvm = KvmFacts::Unusable { reason: "/dev/kvm does not exist".into() };
    assert_eq!(only(&kvm).severity, Severity::Warning);
    let mut old = machine();
    old.facts.qemu.as_mut().expect("one").version = (6, 1, 0);
    assert!(only(&old).found.ends_with("version 6.1.0"));
    let mut none = machine();
    none.facts.qemu = None;
    assert_eq!(only(&none).severity, Severity::Error);
    let mut ids = machine();
    ids.facts.caller.subordinate_gids = None;
    assert!(only(&ids).found.ends_with("/etc/subgid"));
    ids.facts.caller.uid = 0;
    assert_eq!(examine(&ids).findings, [], "root has a range without being given one");
}

#[test]
fn little_room_is_found_and_room_that_cannot_be_seen_is_unknown() {
    let mut machine = machine();
    machine.space = vec![("images", "/data".into(), Ok(5 << 20))];
    assert_eq!(only(&machine).found, "5 MiB are free for images (/data)");
    machine.space = vec![("images", "/data".into(), Err("permission denied".into()))];
    assert_eq!(examine(&machine).unseen[0].id, "space");
}

#[test]
fn what_casemate_has_is_looked_at() {
    let mut machine = machine();
    machine.configuration = vec!["two compartments have the id 3".into()];
    machine.damaged_images = Ok(vec!["debian".into()]);
    machine.volumes =
        Ok(Volumes { weak: vec!["a/home: beside".into()], damaged: vec!["b/home".into()] });
    machine.units.not_enabled = vec!["mail".into()];
    let report = examine(&machine);
    let ids: Vec<&str> = report.findings.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids, ["configuration", "images", "volumes", "volume-keys", "units"]);
    assert!(report.has_errors());
}

#[test]
fn units_are_no_matter_where_nothing_starts_by_itself() {
    let mut machine = machine();
    machine.units = Units::default();
    assert_eq!(examine(&machine).findings, []);
    machine.units = Units { systemd: true, ..Units::default() };
    assert_eq!(examine(&machine).findings, []);
    machine.units.stale = Some("/old/casemate-supervisor".into());
    assert_eq!(only(&machine).severity, Severity::Note);
}
