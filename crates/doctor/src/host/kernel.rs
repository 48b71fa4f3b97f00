//! How the machine's kernel is set: what helps an attack out of a virtual machine, or lays open what
//! is in one.

use casemate_plan::hardening::Severity::{Note, Warning};

use super::{Check, Machine, Outcome};

pub(super) const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";
pub(super) const PTRACE_SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";
pub(super) const KPTR: &str = "/proc/sys/kernel/kptr_restrict";
pub(super) const DMESG: &str = "/proc/sys/kernel/dmesg_restrict";
pub(super) const BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
pub(super) const ASLR: &str = "/proc/sys/kernel/randomize_va_space";
pub(super) const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
pub(super) const SMT: &str = "/sys/devices/system/cpu/smt/control";
pub(super) const KSM: &str = "/sys/kernel/mm/ksm/run";
pub(super) const MOUNTS: &str = "/proc/self/mounts";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "mitigations",
        severity: Warning,
        title: "known faults of the processor worked around",
        why: "through such faults a guest can read the memory of the machine and of other guests",
        mend: "install the processor's microcode, take `mitigations=off` from the kernel's command \
               line, and use a current kernel",
        run: mitigations,
    },
    Check {
        id: "smt",
        severity: Note,
        title: "no processor core shared by two threads",
        why: "what runs on the same core sees through its caches and buffers what the other does; \
              the kernel's work-arounds do not cover two guests on one core",
        mend: "where compartments must not learn from each other at any price: `nosmt` on the \
               kernel's command line; it costs about a third of the speed",
        run: |machine| judge(machine, SMT, |state| state != "on"),
    },
    Check {
        id: "ksm",
        severity: Warning,
        title: "no merging of equal memory (KSM)",
        why: "a guest that times its writes learns what other guests have in memory",
        mend: "echo 2 > /sys/kernel/mm/ksm/run, and switch ksmtuned off",
        run: |machine| judge(machine, KSM, |state| state != "1"),
    },
    Check {
        id: "swap",
        severity: Warning,
        title: "swap encrypted, or none",
        why: "the memory of guests is written there as it is, keys of volumes included, and stays \
              after the machine is off",
        mend: "use zram, or dm-crypt with a random key (crypttab: swap … /dev/urandom swap)",
        run: |machine| match &machine.swaps {
            Err(reason) => Outcome::Unknown(reason.clone()),
            Ok(swaps) => {
                let plain = swaps.iter().filter(|swap| !swap.safe);
                super::none_of(&plain.map(|swap| swap.path.clone()).collect::<Vec<_>>())
            }
        },
    },
    Check {
        id: "core-pattern",
        severity: Warning,
        title: "no collector of core dumps",
        why: "when a supervisor crashes, its memory goes to the collector's folder or to somebody \
              else, with the keys of opened volumes in it; QEMU's jail keeps a guest's memory from \
              that",
        mend: "kernel.core_pattern = |/bin/false, or for systemd-coredump Storage=none and \
               ProcessSizeMax=0, and no reporting of crashes",
        run: |machine| {
            judge(machine, CORE_PATTERN, |pattern| {
                !pattern.starts_with('|') || pattern == "|/bin/false" || pattern == "|/bin/true"
            })
        },
    },
    Check {
        id: "ptrace-scope",
        severity: Warning,
        title: "no looking into other programs (Yama)",
        why: "any program of the user's can else take over a supervisor, and with it all \
              compartments",
        mend: "kernel.yama.ptrace_scope = 1, in /etc/sysctl.d",
        run: |machine| judge(machine, PTRACE_SCOPE, |scope| scope != "0"),
    },
    Check {
        id: "kptr-restrict",
        severity: Note,
        title: "kernel addresses hidden",
        why: "an attack on the machine's kernel from a jail has to find out its addresses first",
        mend: "kernel.kptr_restrict = 2, in /etc/sysctl.d",
        run: |machine| judge(machine, KPTR, |value| value != "0"),
    },
    Check {
        id: "dmesg-restrict",
        severity: Note,
        title: "kernel log for root only",
        why: "the log holds addresses and tells how far an attack came",
        mend: "kernel.dmesg_restrict = 1, in /etc/sysctl.d",
        run: |machine| judge(machine, DMESG, |value| value != "0"),
    },
    Check {
        id: "unprivileged-bpf",
        severity: Warning,
        title: "BPF programs by root only",
        why: "the checker of BPF programs has had many holes that led into the kernel",
        mend: "kernel.unprivileged_bpf_disabled = 1, in /etc/sysctl.d",
        run: |machine| judge(machine, BPF, |value| value != "0"),
    },
    Check {
        id: "randomize-va-space",
        severity: Warning,
        title: "programs at other addresses each time",
        why: "an attack on QEMU cannot count on where its code lies",
        mend: "kernel.randomize_va_space = 2, and no `norandmaps` on the kernel's command line",
        run: |machine| judge(machine, ASLR, |value| value == "2"),
    },
    Check {
        id: "lockdown",
        severity: Note,
        title: "kernel locked against root",
        why: "who became root can else change the kernel, and stay unseen",
        mend: "start with Secure Boot, or with `lockdown=integrity` on the kernel's command line",
        run: |machine| judge(machine, LOCKDOWN, |modes| !modes.contains("[none]")),
    },
    Check {
        id: "hidepid",
        severity: Note,
        title: "processes of others hidden",
        why: "every user of the machine else sees which compartments run, and their arguments",
        mend: "mount /proc with hidepid=invisible, where other people use the machine",
        run: |machine| match machine.files.get(MOUNTS) {
            Some(Ok(mounts)) => hidepid(mounts),
            Some(Err(reason)) => Outcome::Unknown(reason.clone()),
            None => Outcome::Unknown(format!("{MOUNTS} was not read")),
        },
    },
];

/// Judges the content of one file.
fn judge(machine: &Machine, file: &'static str, good: impl Fn(&str) -> bool) -> Outcome {
    match machine.files.get(file) {
        Some(Ok(content)) if good(content) => Outcome::Good,
        Some(Ok(content)) => Outcome::Found(format!("{file}: {content}")),
        Some(Err(reason)) => Outcome::Unknown(reason.clone()),
        None => Outcome::Unknown(format!("{file} was not read")),
    }
}

fn mitigations(machine: &Machine) -> Outcome {
    match &machine.vulnerabilities {
        Err(reason) => Outcome::Unknown(reason.clone()),
        Ok(known) => {
            let open: Vec<String> = known
                .iter()
                .filter(|(_, state)| state.contains("Vulnerable"))
                .map(|(name, state)| format!("{name}: {state}"))
                .collect();
            super::none_of(&open)
        }
    }
}

fn hidepid(mounts: &str) -> Outcome {
    let options = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next() == Some("/proc")).then(|| fields.nth(1).unwrap_or_default())
    });
    let hides = |option: &str| {
        option.strip_prefix("hidepid=").is_some_and(|value| !matches!(value, "0" | "off"))
    };
    match options {
        Some(options) if options.split(',').any(hides) => Outcome::Good,
        Some(options) => Outcome::Found(format!("/proc is mounted with {options}")),
        None => Outcome::Unknown("/proc is not among the mounts".into()),
    }
}
