//! The life of a guest: what the boot message makes of it, a host that goes and comes, the end.

#[allow(dead_code, unreachable_pub)]
mod machine;

use std::time::Duration;

use casemate_wire::{FromGuest, FromHost, OpenSession, WriteFile};
use machine::host::session;
use machine::{Machine, Options, Parts, boot_message};

fn parts(test: &str) -> Option<Parts> {
    match Parts::find(option_env!("CARGO_BIN_EXE_casemate-agent")) {
        Ok(parts) => Some(parts),
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            None
        }
    }
}

fn as_root(script: &str) -> OpenSession {
    OpenSession { user: Some("root".into()), ..session(&["sh", "-c", script]) }
}

fn output(guest: &mut Machine, script: &str) -> String {
    let ended = guest.host.run(as_root(script), b"");
    format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr))
}

#[test]
fn a_guest_is_what_its_boot_message_says() {
    let Some(parts) = parts("a_guest_is_what_its_boot_message_says") else { return };
    let mut guest = Machine::start(&parts, &Options::default()).expect("QEMU starts");
    assert!(!guest.host.wait_for_hello());
    let mut boot = boot_message();
    boot.files = vec![WriteFile {
        path: "/srv/a/secret".into(),
        content: b"secret".to_vec(),
        mode: 0o400,
        owner: "tess".into(),
    }];
    boot.users[0].groups.push("no-such-group".into());
    boot.sysctls.push(("kernel.no_such_setting".into(), "1".into()));
    boot.console_user = Some("tess".into());
    guest.host.send(&FromHost::Boot(Box::new(boot)));
    let mut logs = Vec::new();
    loop {
        match guest.host.message(Duration::from_secs(30)) {
            Some(FromGuest::Log { text }) => logs.push(text),
            Some(FromGuest::Ready) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        output(&mut guest, "hostname; cat /etc/hostname /etc/machine-id"),
        "testguest\ntestguest\n0123456789abcdef0123456789abcdef\n"
    );
    assert_eq!(
        output(&mut guest, "date +%Z%Y; cat /proc/sys/kernel/dmesg_restrict"),
        "CET2030\n0\n"
    );
    assert_eq!(
        output(&mut guest, "cd /srv/a; stat -c '%a %U:%G %n' . secret; cat secret"),
        "755 root:root .\n400 tess:tess secret\nsecret"
    );
    assert_eq!(
        output(
            &mut guest,
            "stat -c '%a %U' /home/tess /home/tess/.bashrc /home/tess/.ssh/authorized_keys"
        ),
        "700 tess\n644 tess\n600 tess\n"
    );
    assert_eq!(
        output(&mut guest, "getent passwd tess; getent group audio; getent hosts testguest"),
        "tess:x:1007:1007::/home/tess:/bin/bash\naudio:x:29:tess\n127.0.1.1       testguest\n"
    );
    assert_eq!(
        output(&mut guest, "cat /sys/class/net/lo/operstate; ls /init /modules 2>&1 | wc -l"),
        "unknown\n2\n"
    );
    let mounts = output(
        &mut guest,
        "while read a b c d m o rest; do echo $m $o; done < /proc/self/mountinfo",
    );
    for mount in [
        "/ rw",
        "/dev/pts rw,nosuid",
        "/dev/shm rw,nosuid,nodev",
        "/run rw,nosuid,nodev",
        "/tmp rw,nosuid,nodev",
        "/proc rw,nosuid",
        "/sys/fs/cgroup rw",
    ] {
        let mount = mount.replace("/ ", "");
        assert!(mounts.contains(&mount), "{mount}: {mounts}");
    }
    while let Some(message) = guest.host.message(Duration::from_millis(10)) {
        if let FromGuest::Log { text } = message {
            logs.push(text);
        }
    }
    assert!(logs.iter().any(|text| text.contains("no-such-group")), "{logs:?}");
    assert!(logs.iter().any(|text| text.contains("kernel.no_such_setting")), "{logs:?}");
    // The clock can be set again.
    guest.host.send(&FromHost::SetClock { nanoseconds: 2_000_000_000_000_000_000 });
    assert_eq!(output(&mut guest, "date +%Y"), "2033\n");
    // The console has its shell.
    guest.host.run_until(Duration::from_secs(3), |_| false);
    let console = guest.console();
    assert!(console.contains("casemate: a shell of tess"), "{console}");
    assert!(console.contains("tess@testguest"), "{console}");
}

#[test]
fn a_guest_that_cannot_be_set_up_says_why_and_ends() {
    let Some(parts) = parts("a_guest_that_cannot_be_set_up_says_why_and_ends") else { return };
    for (spoil, reason) in [
        (
            Box::new(|boot: &mut casemate_wire::Boot| boot.root.filesystem = "ext9".into())
                as Box<dyn Fn(&mut casemate_wire::Boot)>,
            "could not mount /dev/vda at /lower",
        ),
        (
            Box::new(|boot| {
                boot.files.push(WriteFile {
                    path: "/x".into(),
                    content: Vec::new(),
                    mode: 0,
                    owner: "ghost".into(),
                })
            }),
            "no user \"ghost\"",
        ),
    ] {
        let mut guest = Machine::start(&parts, &Options::default()).expect("QEMU starts");
        guest.host.wait_for_hello();
        let mut boot = boot_message();
        spoil(&mut boot);
        guest.host.send(&FromHost::Boot(Box::new(boot)));
        match guest.host.message(Duration::from_secs(30)) {
            Some(FromGuest::BootFailed { reason: got }) => assert!(got.contains(reason), "{got}"),
            other => panic!("{other:?}"),
        }
        assert!(guest.wait_for_end().is_some());
    }
}

#[test]
fn a_host_that_comes_again_finds_the_guest_up() {
    let Some(parts) = parts("a_host_that_comes_again_finds_the_guest_up") else { return };
    let mut guest = Machine::boot(&parts);
    guest.host.open(session(&["sleep", "4242"]));
    let detached = OpenSession {
        detached: true,
        ..session(&["sh", "-c", "yes | head -c 3000000; sleep 4343"])
    };
    let stream = guest.host.open(detached);
    assert!(
        guest
            .host
            .run_until(Duration::from_secs(20), |host| host.streams[&stream].started.is_some())
    );
    let flood = guest.host.open(session(&["cat", "/dev/zero"]));
    guest.host.stream(flood).forget = true;
    guest.host.run_until(Duration::from_secs(1), |_| false);
    // In the middle of everything.
    guest.reconnect();
    assert!(guest.host.wait_for_hello(), "it says that it is up");
    guest.host.run_until(Duration::from_millis(1500), |_| false);
    assert_eq!(
        output(&mut guest, "pgrep -fc 'sleep 424[2]'; pgrep -fc 'sleep 434[3]'; pgrep -c cat"),
        "0\n2\n0\n"
    );

    // A host that sends what is no frame is greeted anew.
    guest.host.send_raw(&[0xff; 64]);
    guest.host.forget_connection();
    assert!(guest.host.wait_for_hello());
    assert_eq!(output(&mut guest, "echo again"), "again\n");
}

#[test]
fn a_guest_ends_quickly_and_takes_its_processes_along() {
    let Some(parts) = parts("a_guest_ends_quickly_and_takes_its_processes_along") else { return };
    // Asked by the host with nothing running.
    let mut guest = Machine::boot(&parts);
    guest.host.send(&FromHost::Shutdown);
    assert_eq!(guest.host.message(Duration::from_secs(5)), Some(FromGuest::ShuttingDown));
    let took = guest.wait_for_end().expect("it ends");
    println!("shut down without processes: {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");

    // From inside, with a command that says good-bye and one that does not want to go.
    let mut guest = Machine::boot(&parts);
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let polite = guest.host.open(session(&["sh", "-c", script]));
    let stubborn =
        guest.host.open(session(&["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"]));
    for stream in [polite, stubborn] {
        assert!(
            guest.host.run_until(Duration::from_secs(20), |host| !host.streams[&stream]
                .stdout
                .is_empty())
        );
    }
    guest.host.open(as_root("kill -TERM 1"));
    assert_eq!(guest.host.message(Duration::from_secs(5)), Some(FromGuest::ShuttingDown));
    let ended = guest.host.wait_for_exit(polite);
    assert_eq!(
        (ended.stdout.as_slice(), ended.exit.map(|exit| exit.code())),
        (&b"up\nbye\n"[..], Some(3))
    );
    let ended = guest.host.wait_for_exit(stubborn);
    assert_eq!(ended.exit, Some(casemate_wire::ExitStatus::Signal(9)));
    assert!(guest.wait_for_end().is_some());
}

#[test]
fn an_image_with_systemd_gets_process_1_and_the_agent_goes_on_beside_it() {
    let test = "an_image_with_systemd_gets_process_1_and_the_agent_goes_on_beside_it";
    let Some(mut parts) = parts(test) else { return };
    let Some(root) = std::env::var_os("CASEMATE_TEST_SYSTEMD_ROOT") else {
        return println!("skipped: {test}: CASEMATE_TEST_SYSTEMD_ROOT is not set");
    };
    parts.root = root.into();
    let mut guest = Machine::start(&parts, &Options::default()).expect("QEMU starts");
    guest.host.wait_for_hello();
    let mut boot = boot_message();
    boot.init = casemate_wire::Init::Systemd;
    boot.users[0].shell = "/bin/sh".into();
    guest.host.send(&FromHost::Boot(Box::new(boot)));
    guest.wait_until_ready();
    assert_eq!(
        output(&mut guest, "tr '\\0' ' ' < /proc/$PPID/cmdline; readlink /proc/1/exe"),
        "@casemate-agent /usr/lib/systemd/systemd\n"
    );
    // systemd comes up beside the session that waits for it.
    let waits = "until systemctl is-active dbus.socket; do sleep 0.3; done 2>&1 | tail -n 1";
    assert_eq!(output(&mut guest, waits), "active\n");
    // It has not taken the agent's children, and orphans are its.
    let ended = guest.host.run(as_root("(sleep 0.5 & ) ; exit 6"), b"");
    assert_eq!(ended.exit.map(|exit| exit.code()), Some(6));
    assert_eq!(output(&mut guest, "cat /proc/self/cgroup | cut -c1-12"), "0::/casemate\n");
    guest.host.send(&FromHost::Shutdown);
    assert_eq!(guest.host.message(Duration::from_secs(5)), Some(FromGuest::ShuttingDown));
    let took = guest.wait_for_end();
    println!("systemd shut down: {took:?}");
    assert!(took.is_some(), "{}", guest.console());
}
