//! The table itself. The order is that of the page it generates.
//!
//! Sources: the Kernel Self Protection Project's recommended settings, and the kernel's own
//! `Documentation/admin-guide/{kernel-parameters.txt,sysctl/}`.

use super::modules::{DRIVERS, FILESYSTEMS, PROTOCOLS};
use super::{Level, Measure, Row, Severity};
use Level::{Standard, Strict};
use Severity::{Note, Warning};

/// A word of the command line: level, severity, word, title, why.
type Parameter = (Level, Severity, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const PARAMETERS: [Parameter; 11] = [
    (Standard, Warning, "slab_nomerge", "kernel heaps kept apart", "an object that is overflowed or freed twice lies beside its like only, not beside one an attacker chose"),
    (Standard, Warning, "init_on_alloc=1", "kernel memory zeroed when it is given out", "what was in memory before does not leak through what the kernel forgot to fill in"),
    (Strict, Note, "init_on_free=1", "kernel memory zeroed when it is given back", "a use after free finds zeros, and secrets do not stay in free memory"),
    (Standard, Note, "page_alloc.shuffle=1", "page allocator shuffled", "where the next page lies is harder to foretell"),
    (Standard, Warning, "randomize_kstack_offset=on", "kernel stack at another place in each system call", "an overwrite of the kernel's stack cannot count on what lies where"),
    (Standard, Note, "vsyscall=none", "no code at a fixed address in each program", "the vsyscall page helps attacks and serves programs of before 2011 only"),
    (Standard, Warning, "debugfs=off", "no debugfs", "it shows kernel addresses and offers interfaces that were never reviewed for security"),
    (Standard, Warning, "oops=panic", "end at the kernel's first error", "a kernel that has made an error may be under attack; the compartment ends, and an attack cannot be tried again and again"),
    (Strict, Note, "lockdown=confidentiality", "kernel locked against root", "root in the guest can neither change nor read the kernel's memory"),
    (Strict, Note, "module.sig_enforce=1", "only signed kernel modules", "root in the guest cannot bring code into the kernel"),
    (Strict, Note, "kfence.sample_interval=100", "samples of kernel memory guarded", "errors of memory in the kernel are found while the compartment is used, at little cost"),
];

/// A kernel setting: level, severity, name, value, other good values, title, why.
type Setting = (
    Level,
    Severity,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
);

// A table is read along its lines.
#[rustfmt::skip]
const SETTINGS: [Setting; 46] = [
    (Standard, Warning, "kernel.kptr_restrict", "2", &[], "kernel addresses hidden", "an attack on the kernel has to find out its addresses first"),
    (Standard, Warning, "kernel.dmesg_restrict", "1", &[], "kernel log for root only", "the log holds addresses and tells how far an attack came"),
    (Standard, Note, "kernel.perf_event_paranoid", "3", &["4"], "performance counters for root only", "perf has had many holes, and its counters tell about other programs"),
    (Standard, Warning, "kernel.unprivileged_bpf_disabled", "1", &["2"], "BPF programs by root only", "the checker of BPF programs has had many holes that led into the kernel"),
    (Standard, Warning, "net.core.bpf_jit_harden", "2", &[], "compiled BPF code blinded", "constants of a BPF program cannot be used as code"),
    (Standard, Warning, "kernel.yama.ptrace_scope", "1", &["2", "3"], "no looking into another program", "a program that was taken over cannot take what the user's other programs hold; debuggers still can start their programs"),
    (Standard, Warning, "kernel.kexec_load_disabled", "1", &[], "no other kernel in place of this", "root in the guest cannot start an unhardened kernel"),
    (Standard, Note, "kernel.sysrq", "0", &[], "no magic keys", "the keys of kernel debugging are of no use in a compartment"),
    (Standard, Warning, "kernel.randomize_va_space", "2", &[], "programs at other addresses each time", "an attack cannot count on where code and data lie"),
    (Standard, Note, "vm.mmap_rnd_bits", "32", &["33"], "as many random bits in addresses as there can be", "guessing an address takes longer"),
    (Standard, Note, "vm.mmap_rnd_compat_bits", "16", &[], "as many random bits for 32-bit programs", "guessing an address takes longer"),
    (Standard, Warning, "vm.mmap_min_addr", "65536", &[], "nothing at address 0", "a null pointer in the kernel does not lead into memory of an attacker"),
    (Standard, Warning, "vm.unprivileged_userfaultfd", "0", &[], "page faults of the kernel not in users' hands", "attacks win races by stopping the kernel in the middle of a copy"),
    (Standard, Note, "dev.tty.ldisc_autoload", "0", &[], "line disciplines of terminals not loaded by users", "rare ones have had holes"),
    (Standard, Warning, "dev.tty.legacy_tiocsti", "0", &[], "no typing into another's terminal", "a program started with less rights cannot type commands into the terminal it was started from"),
    (Standard, Warning, "fs.protected_symlinks", "1", &[], "links in shared folders not followed", "another user's link in /tmp cannot lead a program astray"),
    (Standard, Warning, "fs.protected_hardlinks", "1", &[], "no second names for others' files", "a file that is deleted or made safe does not live on under a name of an attacker"),
    (Standard, Warning, "fs.protected_fifos", "2", &[], "others' pipes in shared folders not opened", "a program that wants to make a file does not write to a waiting attacker"),
    (Standard, Warning, "fs.protected_regular", "2", &[], "others' files in shared folders not opened for writing", "a program that wants to make a file does not write into one of an attacker"),
    (Standard, Warning, "fs.suid_dumpable", "0", &[], "no core of a program that changed its user", "its memory holds what its caller may not see"),
    (Standard, Warning, "kernel.core_pattern", "|/bin/false", &[""], "core dumps go nowhere", "a core holds passwords and keys of the program that crashed"),
    (Standard, Note, "net.ipv4.tcp_syncookies", "1", &[], "connections survive a flood of requests", "half-open connections cannot use up a server's memory"),
    (Standard, Note, "net.ipv4.tcp_rfc1337", "1", &[], "late packets do not end new connections", "RFC 1337 tells how a stray reset could"),
    (Standard, Note, "net.ipv4.conf.all.rp_filter", "1", &["2"], "packets only from where an answer would go", "addresses of others cannot be used as sender"),
    (Standard, Note, "net.ipv4.conf.default.rp_filter", "1", &["2"], "packets only from where an answer would go, on interfaces to come", "addresses of others cannot be used as sender"),
    (Standard, Warning, "net.ipv4.conf.all.accept_redirects", "0", &[], "routes not changed by messages", "a neighbour cannot lead the traffic over itself"),
    (Standard, Warning, "net.ipv4.conf.default.accept_redirects", "0", &[], "routes not changed by messages, on interfaces to come", "a neighbour cannot lead the traffic over itself"),
    (Standard, Warning, "net.ipv4.conf.all.secure_redirects", "0", &[], "routes not changed by a gateway's messages", "its messages are as easily forged"),
    (Standard, Warning, "net.ipv4.conf.default.secure_redirects", "0", &[], "routes not changed by a gateway's messages, on interfaces to come", "a gateway's messages are as easily forged"),
    (Standard, Note, "net.ipv4.conf.all.send_redirects", "0", &[], "others' routes not changed", "a compartment tells its neighbours nothing about routes"),
    (Standard, Note, "net.ipv4.conf.default.send_redirects", "0", &[], "others' routes not changed, on interfaces to come", "a compartment tells its neighbours nothing about routes"),
    (Standard, Warning, "net.ipv4.conf.all.accept_source_route", "0", &[], "senders do not choose the way", "source routes lead around filters"),
    (Standard, Warning, "net.ipv4.conf.default.accept_source_route", "0", &[], "senders do not choose the way, on interfaces to come", "source routes lead around filters"),
    (Standard, Warning, "net.ipv6.conf.all.accept_redirects", "0", &[], "IPv6 routes not changed by messages", "a neighbour cannot lead the traffic over itself"),
    (Standard, Warning, "net.ipv6.conf.default.accept_redirects", "0", &[], "IPv6 routes not changed by messages, on interfaces to come", "a neighbour cannot lead the traffic over itself"),
    (Standard, Warning, "net.ipv6.conf.all.accept_source_route", "0", &["-1"], "IPv6 senders do not choose the way", "source routes lead around filters"),
    (Standard, Warning, "net.ipv6.conf.default.accept_source_route", "0", &["-1"], "IPv6 senders do not choose the way, on interfaces to come", "source routes lead around filters"),
    (Standard, Note, "net.ipv4.icmp_echo_ignore_broadcasts", "1", &[], "no answer to questions to everybody", "a compartment cannot be made to flood another"),
    (Standard, Note, "net.ipv4.icmp_ignore_bogus_error_responses", "1", &[], "senseless errors not logged", "routers that err do not fill the log"),
    (Standard, Note, "kernel.ctrl-alt-del", "0", &[], "keys do not restart the guest", "an init that has gone is not a reason to lose what was not written"),
    (Standard, Note, "kernel.panic_on_oops", "1", &[], "end at the kernel's first error, later changes too", "the word of the command line can be changed at run time"),
    (Strict, Note, "kernel.yama.ptrace_scope", "3", &[], "no debugging at all", "no program can look into another one, whoever started it, and root cannot change that"),
    (Strict, Note, "kernel.io_uring_disabled", "2", &[], "no io_uring", "it has had more holes than any other part of the kernel in its years, and programs have another way"),
    (Strict, Note, "user.max_user_namespaces", "0", &[], "no user namespaces", "they give each user the kernel's code that was written for root alone; sandboxes of browsers need them, so they stay in `standard`"),
    (Strict, Note, "vm.memfd_noexec", "1", &["2"], "memory files not executable by default", "code from the network is not run without having been a file"),
    (Strict, Note, "kernel.modules_disabled", "1", &[], "no more kernel modules", "all that a compartment needs is loaded before its first program, and root cannot bring more"),
];

/// A file: level, severity, id, title, why, path, content, only with systemd.
type Written =
    (Level, Severity, &'static str, &'static str, &'static str, &'static str, &'static str, bool);

#[rustfmt::skip]
const FILES: [Written; 6] = [
    (Standard, Warning, "ssh", "ssh by key only, not as root", "a password can be guessed, and what root does should have a name", "/etc/ssh/sshd_config.d/00-casemate.conf", SSHD, false),
    (Standard, Warning, "limits", "no core dumps after a login", "a core holds passwords and keys of the program that crashed", "/etc/security/limits.d/zz-casemate.conf", "# By guest.hardening.\n* hard core 0\nroot hard core 0\n", false),
    (Standard, Warning, "coredump", "nothing kept by systemd-coredump", "a core holds passwords and keys of the program that crashed", "/etc/systemd/coredump.conf.d/zz-casemate.conf", "# By guest.hardening.\n[Coredump]\nStorage=none\nProcessSizeMax=0\n", true),
    (Standard, Warning, "manager", "no core dumps of services", "a core holds passwords and keys of the program that crashed", "/etc/systemd/system.conf.d/zz-casemate.conf", "# By guest.hardening.\n[Manager]\nDefaultLimitCORE=0\n", true),
    (Standard, Warning, "services", "services gain no privileges", "a service that was taken over gets no more rights than it was given", "/etc/systemd/system/service.d/zz-casemate.conf", "# By guest.hardening. A unit's own file can say otherwise.\n[Service]\nNoNewPrivileges=yes\n", true),
    (Standard, Note, "journal", "journal limited", "a service that writes without end does not use up the guest's memory, in which its root lies", "/etc/systemd/journald.conf.d/zz-casemate.conf", "# By guest.hardening.\n[Journal]\nSystemMaxUse=32M\nRuntimeMaxUse=16M\nMaxRetentionSec=1week\nRateLimitIntervalSec=30s\nRateLimitBurst=5000\n", true),
];

const SSHD: &str = "# By guest.hardening; sshd takes the first value it reads.
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
AuthenticationMethods publickey
X11Forwarding no
AllowAgentForwarding no
PermitUserEnvironment no
MaxAuthTries 3
LoginGraceTime 30
";

/// All rows.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::with_capacity(128);
    for (level, severity, word, title, why) in PARAMETERS {
        let name = word.split('=').next().unwrap_or(word);
        rows.push(Row {
            id: format!("kernel-{}", name.replace(['_', '.'], "-")),
            title,
            why,
            severity,
            level,
            measure: Measure::KernelParameter(word),
        });
    }
    for (level, severity, name, value, also, title, why) in SETTINGS {
        let suffix = if level == Strict { "-strict" } else { "" };
        rows.push(Row {
            id: format!("sysctl-{}{suffix}", name.replace(['_', '.'], "-")),
            title,
            why,
            severity,
            level,
            measure: Measure::Sysctl { name, value, also },
        });
    }
    for (modules, title, why) in [
        (
            &PROTOCOLS[..],
            "rare network protocol blocked",
            "any program can have it loaded by asking for a socket, and few have ever looked for its holes",
        ),
        (&FILESYSTEMS, "rare file system blocked", "its parser was never made for hostile disks"),
        (
            &DRIVERS,
            "driver of devices that a guest has not blocked",
            "code that nothing needs is not there to be attacked",
        ),
    ] {
        rows.extend(modules.iter().map(|module| Row {
            id: format!("module-{}", module.replace('_', "-")),
            title,
            why,
            severity: Note,
            level: Standard,
            measure: Measure::Module(module),
        }));
    }
    for (level, severity, name, title, why, path, content, systemd) in FILES {
        rows.push(Row {
            id: format!("file-{name}"),
            title,
            why,
            severity,
            level,
            measure: Measure::File { path, content, systemd },
        });
    }
    for (id, title, why, measure) in [
        (
            "mount-nosuid",
            "nothing set-user-id",
            "a program that gives root's rights to who starts it is the usual way from a user to root",
            Measure::Nosuid,
        ),
        (
            "session-no-new-privs",
            "sessions gain no privileges",
            "nothing that a session starts gets rights which the session has not",
            Measure::NoNewPrivs,
        ),
        (
            "session-no-core",
            "no core dumps of sessions",
            "a core holds passwords and keys of the program that crashed",
            Measure::NoCoreDumps,
        ),
        (
            "allocator",
            "hardened allocator in every dynamic program",
            "errors of memory in programs end them, instead of giving them to an attacker",
            Measure::Allocator,
        ),
    ] {
        rows.push(Row { id: id.into(), title, why, severity: Warning, level: Standard, measure });
    }
    rows
}
