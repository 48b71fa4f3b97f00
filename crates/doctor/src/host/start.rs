//! What a start needs.

use std::net::IpAddr;

use casemate_plan::facts::KvmFacts;
use casemate_plan::hardening::Severity::{Error, Note, Warning};
use casemate_plan::helper::HelperFacts;

use super::{Check, Machine, Outcome};

/// The oldest QEMU casemate is tested with (Debian 12).
const OLDEST_QEMU: (u32, u32, u32) = (7, 2, 0);

/// A jail's rules are complete from this ABI on: moving files between folders (2), truncating (3).
/// Networks (4) and devices (5) are closed by other means.
const LANDLOCK: u32 = 3;

/// Fewer bytes are soon used up by an image (300 MiB while it is built) or a volume.
const LITTLE_SPACE: u64 = 1 << 30;

/// Subordinate ids that jails need: what adduser(8) gives to each new user.
const IDS: u32 = 65536;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "kvm",
        severity: Warning,
        title: "hardware virtualization",
        why: "without it guests are emulated, which is slow, and an emulator's translator is no \
              security boundary",
        mend: "switch virtualization on in the firmware, load kvm_intel or kvm_amd, and let the \
               user open /dev/kvm (group kvm)",
        run: |machine| match &machine.facts.kvm {
            KvmFacts::Works { .. } => Outcome::Good,
            KvmFacts::Unusable { reason } => Outcome::Found(reason.clone()),
        },
    },
    Check {
        id: "qemu",
        severity: Error,
        title: "QEMU 7.2 or later",
        why: "it runs the virtual machines, and older ones lack what their jails count on",
        mend: "install the package qemu-system-x86 (Debian), or give `binary` in [engine.qemu]",
        run: |machine| match &machine.facts.qemu {
            None => Outcome::Found("no QEMU was found".into()),
            Some(qemu) if qemu.version < OLDEST_QEMU => {
                let (major, minor, patch) = qemu.version;
                let path = qemu.path.display();
                Outcome::Found(format!("{path} is version {major}.{minor}.{patch}"))
            }
            Some(_) => Outcome::Good,
        },
    },
    Check {
        id: "user-namespaces",
        severity: Error,
        title: "user namespaces",
        why: "each process of a compartment runs in a jail made of them",
        mend: "set user.max_user_namespaces and, where it exists, \
               kernel.unprivileged_userns_clone so that they can be made",
        run: |machine| match &machine.facts.user_namespaces {
            Ok(()) => Outcome::Good,
            Err(reason) => Outcome::Found(reason.clone()),
        },
    },
    Check {
        id: "subordinate-ids",
        severity: Error,
        title: "subordinate ids",
        why: "each virtual machine runs as a user of its own, that owns nothing",
        mend: "run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER \
               (choose a range that nobody else has)",
        run: subordinate_ids,
    },
    Check {
        id: "newuidmap",
        severity: Error,
        title: "newuidmap and newgidmap",
        why: "an ordinary user can hand subordinate ids to a jail with them only",
        mend: "install the package uidmap",
        run: |machine| match (machine.facts.caller.uid, machine.facts.newidmap) {
            (0, _) => Outcome::Nothing,
            (_, true) => Outcome::Good,
            (_, false) => Outcome::Found("they are not installed".into()),
        },
    },
    Check {
        id: "landlock",
        severity: Note,
        title: "Landlock with all rules for files",
        why: "it is the second wall of a jail, should its mounts fail",
        mend: "use Linux 6.2 or later with landlock in CONFIG_LSM or `lsm=`",
        run: |machine| match machine.facts.landlock_abi {
            0 => Outcome::Found("the kernel has no Landlock".into()),
            abi if abi < LANDLOCK => Outcome::Found(format!("the kernel has its ABI {abi}")),
            _ => Outcome::Good,
        },
    },
    Check {
        id: "programs",
        severity: Error,
        title: "casemate's own programs",
        why: "a compartment cannot be started without one of them",
        mend: "build all of them: cargo xtask build",
        run: |machine| match &machine.programs {
            Ok(()) => Outcome::Good,
            Err(reason) => Outcome::Found(reason.clone()),
        },
    },
    Check {
        id: "allocators",
        severity: Note,
        title: "hardened allocators for guests",
        why: "compartments with `guest.allocator`, such as of the template `hardened`, need them",
        mend: "build them: cargo xtask build",
        run: |machine| super::none_of(&machine.missing_allocators),
    },
    Check {
        id: "network",
        severity: Warning,
        title: "links to the host without root",
        why: "compartments with `host-networking` reach the outside by pasta, through a firewall of \
              nft on a TAP device",
        mend: "install the packages passt and nftables; load the kernel module tun and let \
               everybody open /dev/net/tun",
        run: network,
    },
    Check {
        id: "network-helper",
        severity: Note,
        title: "links to the host through casemate-netd",
        why: "without them networks are rootless: compartments do not reach each other, and each \
              connection costs a process of the host some work",
        mend: "install and start casemate-netd.socket, and grant links to users in \
               /etc/casemate/casemate.toml: [network] grants = [\"user=NAME\"]",
        run: |machine| match &machine.facts.network.helper {
            HelperFacts::Ready { .. } => Outcome::Good,
            // Nobody has to have it.
            HelperFacts::Absent => Outcome::Nothing,
            HelperFacts::Refuses { reason } => Outcome::Found(format!("it says: {reason}")),
        },
    },
    Check {
        id: "resolver",
        severity: Note,
        title: "a name server for compartments",
        why: "compartments ask the host's first IPv4 name server, through pasta",
        mend: "name one in /etc/resolv.conf before a compartment is started",
        run: |machine| match machine.facts.network.resolvers.iter().any(IpAddr::is_ipv4) {
            true => Outcome::Good,
            false => Outcome::Found("/etc/resolv.conf names no IPv4 name server".into()),
        },
    },
    Check {
        id: "space",
        severity: Warning,
        title: "room for images and volumes",
        why: "a full file system ends compartments that write to their volumes",
        mend: "make room there: casemate image gc; casemate snapshot delete",
        run: space,
    },
];

fn subordinate_ids(machine: &Machine) -> Outcome {
    let caller = &machine.facts.caller;
    let enough = |range: Option<(u32, u32)>| range.is_some_and(|(_, count)| count >= IDS);
    let lacking: Vec<&str> =
        [(caller.subordinate_uids, "/etc/subuid"), (caller.subordinate_gids, "/etc/subgid")]
            .into_iter()
            .filter(|(range, _)| !enough(*range) && (caller.uid != 0 || range.is_some()))
            .map(|(_, file)| file)
            .collect();
    if lacking.is_empty() {
        return Outcome::Good;
    }
    let user = &caller.name;
    Outcome::Found(format!("`{user}` has no range of {IDS} ids in {}", lacking.join(" and ")))
}

fn network(machine: &Machine) -> Outcome {
    let facts = &machine.facts.network;
    let missing = [(&facts.pasta, "pasta"), (&facts.nft, "nft")];
    let missing = missing.iter().filter(|(found, _)| found.is_none());
    let mut lacking: Vec<String> =
        missing.map(|(_, name)| format!("{name} is not installed")).collect();
    lacking.extend(facts.tun.as_ref().err().cloned());
    super::none_of(&lacking)
}

fn space(machine: &Machine) -> Outcome {
    let mut little = Vec::new();
    let mut unknown = Vec::new();
    for (what, path, free) in &machine.space {
        match free {
            Ok(bytes) if *bytes < LITTLE_SPACE => {
                little.push(format!("{} MiB are free for {what} ({path})", bytes >> 20));
            }
            Ok(_) => {}
            Err(reason) => unknown.push(format!("{path}: {reason}")),
        }
    }
    match (little.is_empty(), unknown.is_empty()) {
        (true, true) => Outcome::Good,
        (true, false) => Outcome::Unknown(unknown.join("; ")),
        (false, _) => Outcome::Found(little.join("; ")),
    }
}
