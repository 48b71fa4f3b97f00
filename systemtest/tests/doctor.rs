//! Hardened guests, and `casemate doctor`, which looks at them and at the machine.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;
use systemtest::{SHORT, World, has, here, programs};

/// Makes a set-user-id program that tells whose rights it has.
const SETUID: &str = "cp /usr/bin/id /usr/local/bin/whose && chmod 4755 /usr/local/bin/whose";

/// What doctor says of the guest of `main`, and its exit code.
#[track_caller]
fn doctor(world: &World, code: i32) -> Value {
    world.casemate(["doctor", "--guest", world.name(), "--json"]).done().exits(code).json()
}

/// The findings as `id: severity`.
fn findings(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    findings.map(|one| format!("{}: {}", text(&one["id"]), text(&one["severity"]))).collect()
}

#[test]
fn hardened_guest_is_what_its_doctor_says() {
    let world =
        World::new(here!(), "template = \"hardened\"\nguest.sysctls = { \"kernel.sysrq\" = 4 }\n");
    world.start();
    let report = doctor(&world, 0);
    // A kernel may lack a setting; nothing else may be otherwise but what the compartment sets.
    for finding in report["findings"].as_array().expect("a list") {
        assert_eq!(finding["severity"], "note", "{finding}");
    }
    assert!(findings(&report).contains(&"sysctl-kernel-sysrq: note".into()), "{report}");
    assert_eq!(report["unseen"], serde_json::json!([]));
    let good = report["good"].as_array().expect("a list");
    for id in ["mount-nosuid", "kernel-slab-nomerge", "allocator", "session-no-core", "file-ssh"] {
        assert!(good.iter().any(|known| known == id), "{id} is not good: {report}");
    }
    let line = "cat /proc/sys/kernel/sysrq; grep -c hardened-malloc /proc/self/maps; ulimit -Hc; \
                dmesg >/dev/null 2>&1 || echo no log";
    let text = world.shell(line).done().ok().text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[2], lines[3]), ("4", "0", "no log"), "{text}");
    assert_ne!(lines[1], "0", "the allocator is in every program");
}

#[test]
fn setuid_program_gains_root_where_nothing_is_hardened_and_nothing_where_it_is() {
    for (settings, user) in [("", "0"), ("guest.hardening = \"standard\"\n", "1000")] {
        let world = World::new(here!(), settings);
        world.run_with(["--root"], ["sh", "-c", SETUID]).done().ok();
        let done = world.run(["/usr/local/bin/whose", "-u"]).done().ok();
        assert_eq!(done.text(), user, "with {settings:?}");
        world.stop_force().ok();
    }
}

#[test]
fn crash_leaves_no_core_in_a_hardened_guest() {
    // Whoever crashes asks for a core first, where he may.
    let line = "cd /tmp; ulimit -c unlimited 2>/dev/null; sh -c 'kill -SEGV $$'; echo $?; ls";
    for (settings, cores) in [("", true), ("guest.hardening = \"standard\"\n", false)] {
        let world = World::new(here!(), settings);
        let text = world.shell(line).done().ok().text();
        assert!(text.starts_with("139"), "it crashed: {text}");
        assert_eq!(text.contains("core"), cores, "with {settings:?}: {text}");
        world.stop_force().ok();
    }
}

#[test]
fn guest_without_hardening_has_findings_and_no_errors() {
    let world = World::new(here!(), "");
    world.start();
    let report = doctor(&world, 0);
    let found = findings(&report);
    for wanted in ["mount-nosuid: warning", "kernel-slab-nomerge: warning", "module-dccp: note"] {
        assert!(found.iter().any(|known| known == wanted), "{wanted} is missing: {found:?}");
    }
    let text = world.casemate(["doctor", "--guest", world.name()]).done().ok().text();
    for wanted in ["found  without nosuid: /", "why    ", "mend   set `guest.hardening"] {
        assert!(text.contains(wanted), "{wanted:?} is missing in {text}");
    }
}

#[test]
fn what_somebody_undoes_in_a_hardened_guest_is_an_error() {
    let world = World::new(here!(), "guest.hardening = \"standard\"\n");
    let line = "echo 0 > /proc/sys/kernel/kptr_restrict; mount -o remount,suid /; rm /etc/ssh/sshd_config.d/*";
    world.run_with(["--root"], ["sh", "-c", line]).done().ok();
    let found = findings(&doctor(&world, 1));
    let wanted = ["sysctl-kernel-kptr-restrict: error", "file-ssh: error", "mount-nosuid: error"];
    assert!(wanted.iter().all(|id| found.iter().any(|known| known == id)), "{found:?}");
}

#[test]
fn strict_guest_has_neither_user_namespaces_nor_new_modules() {
    let world =
        World::new(here!(), "guest.hardening = \"strict\"\nguest.allocator = \"hardened\"\n");
    world.shell("! unshare --user true 2>/dev/null").done().ok();
    let line =
        "cat /proc/sys/kernel/modules_disabled; ! echo 0 > /proc/sys/kernel/modules_disabled";
    assert_eq!(world.run_with(["--root"], ["sh", "-c", line]).done().ok().text(), "1");
    let report = doctor(&world, 0);
    assert!(findings(&report).iter().all(|one| one.ends_with("note")), "{report}");
}

#[test]
fn hardened_guest_with_systemd_is_good_too() {
    let world = World::new(
        here!(),
        "memory = 600\ntemplate = \"hardened\"\nguest.init = \"systemd\"\n\
         guest.sysctls = { \"net.ipv4.conf.default.rp_filter\" = 0 }\n",
    );
    world.start();
    let report = doctor(&world, 0);
    let found = findings(&report);
    assert!(found.contains(&"sysctl-net-ipv4-conf-default-rp-filter: note".into()), "{found:?}");
    assert!(found.iter().all(|one| one.ends_with("note")), "{found:?}");
    // What systemd-sysctl sets when it starts does not take the place of what was asked for.
    let line = "until systemctl is-active systemd-sysctl >/dev/null; do sleep 0.2; done; \
                cat /proc/sys/net/ipv4/conf/default/rp_filter; \
                grep NoNewPrivs /proc/$(systemctl show -P MainPID systemd-journald)/status; \
                systemctl show -P DefaultLimitCORE; systemctl --failed --no-legend | wc -l";
    let text = world.run_with(["--root"], ["sh", "-c", line]).done().ok().text();
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "NoNewPrivs:", "1", "0", "0"]);
}

#[test]
fn hardened_allocator_ends_a_program_that_frees_twice() {
    let test = here!();
    if !has(test, "cc") {
        return;
    }
    let world = World::new(test, "guest.allocator = \"hardened-light\"\n");
    let (source, program) = (world.path("twice.c"), world.path("twice"));
    let text = "#include <stdlib.h>\n\
                int main(void) { char *volatile p = malloc(40); free(p); free(p); return 0; }\n";
    fs::write(&source, text).expect("written");
    let make = format!("cc -w -O0 -o {} {}", program.display(), source.display());
    world.host_shell(&make).done().ok();
    let line = "cat > /tmp/twice; chmod 755 /tmp/twice; /tmp/twice; echo $?";
    let done = world.shell(line).input(fs::read(&program).expect("read")).done().ok();
    assert_eq!(done.text(), "134", "{done}");
    assert!(done.error().contains("fatal allocator error: double free"), "{done}");
}

#[test]
fn allocator_that_was_not_built_is_missed_only_when_it_is_asked_for() {
    let test = here!();
    let world = World::with(test, &[("main", "guest.allocator = \"hardened\"\n"), ("other", "")]);
    let folder = world.path("programs");
    fs::create_dir(&folder).expect("made");
    for name in ["casemate-supervisor", "casemate-link", "casemate-jail", "casemate-agent"] {
        symlink(programs::program(name), folder.join(name)).expect("linked");
    }
    let plan = |name: &str| {
        world.casemate(["plan", name]).env("CASEMATE_LIBEXEC", &folder).within(SHORT).done()
    };
    plan(world.named("other")).ok();
    plan(world.name())
        .exits(4)
        .says("casemate-malloc-hardened.so, which `guest.allocator` asks for")
        .says("hint: build all of them: cargo xtask build");
}

#[test]
fn machine_is_looked_at_by_whoever_asks() {
    let world = World::new(here!(), "");
    let done = world.casemate(["doctor", "--json"]).within(SHORT).done();
    let report = done.json();
    let errors = findings(&report).iter().any(|one| one.ends_with(": error"));
    assert_eq!(done.code, Some(i32::from(errors)), "{done}");
    for finding in report["findings"].as_array().expect("a list") {
        for field in ["id", "severity", "title", "found", "why", "mend"] {
            assert!(finding[field].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        }
    }
    // What every other test needs is there.
    let good = report["good"].as_array().expect("a list");
    for id in ["qemu", "user-namespaces", "subordinate-ids", "programs", "allocators"] {
        assert!(good.iter().any(|known| known == id), "{id} is not good: {report}");
    }
    let text = world.casemate(["doctor"]).within(SHORT).done().text();
    assert!(text.starts_with("this machine\n"), "{text}");
    assert!(text.lines().last().expect("a line").ends_with("good"), "{text}");
}

#[test]
fn broken_configuration_is_a_finding_of_the_machine() {
    let world = World::new(here!(), "");
    world.configure_more("[compartment.broken]\nmemory = 1\n");
    let done = world.casemate(["doctor", "--json"]).within(SHORT).done().exits(1);
    let found = findings(&done.json());
    assert!(found.contains(&"configuration: error".into()), "{found:?}");
}

#[test]
fn guest_that_does_not_run_is_not_started_to_be_looked_at() {
    let world = World::new(here!(), "");
    let done = world.casemate(["doctor", "--guest", world.name()]).within(SHORT).done().exits(1);
    done.says("is not running").says("hint: run: casemate start");
    assert_eq!(world.state(world.name()), "stopped");
}
