//! Switches that several supervisors need at once: one starts it, none is left, and one that was killed
//! is there again for all. With the real jail and the real switch.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate_host::lock::{Lock, Taking};
use casemate_host::switch::{Control, SwitchError, join, tidy};
use casemate_plan::jail::{IdMapMethod, Identity, Jail, Limits, Reach, VisibleFile};
use casemate_plan::process::{Descriptor, DescriptorSource, Process, Role, SharedPart};
use casemate_plan::switch::{Port, Switch};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// Supervisors at once.
const MANY: u8 = 6;

/// A program as cargo builds it beside the tests; none, said aloud, when it is not built or this user
/// cannot have a jail with ids that root may choose.
fn program(name: &str) -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: these jails take ids that only root may map");
        return None;
    }
    let tests = std::env::current_exe().expect("the test");
    let program = tests.parent()?.parent()?.join(name);
    if !program.exists() {
        println!("skipped: {} is not built (cargo build -p {name})", program.display());
        return None;
    }
    Some(program)
}

/// A switch below a directory.
fn switch(directory: &Path, program: PathBuf, network: &str) -> Switch {
    let shared = |number, part| Descriptor { number, what: DescriptorSource::Shared { part } };
    let system = ["/usr", "/bin", "/lib", "/lib64"];
    Switch {
        control: directory.join(format!("switches/{network}.sock")),
        lock: directory.join(format!("switches/{network}.lock")),
        log: directory.join(format!("logs/{network}.log")),
        process: Process {
            role: Role::Switch(0),
            program,
            arguments: ["--control", "fd:3", "--end-with-clients", "--name", network]
                .map(String::from)
                .to_vec(),
            environment: vec![],
            descriptors: vec![shared(3, SharedPart::Control), shared(4, SharedPart::Lock)],
            jail: Jail {
                identity: Identity {
                    uid: 211_000,
                    gid: 211_000,
                    map: IdMapMethod::Direct,
                    keep_groups: false,
                },
                // As cargo builds it, it is not static.
                files: system.map(|path| VisibleFile::execute(path).if_there()).into(),
                limits: Limits {
                    open_files: 1024,
                    address_space: None,
                    file_size: 1 << 20,
                    processes: 4,
                },
                reach: Reach::Nothing,
            },
        },
    }
}

fn port(directory: &Path, switch: &Switch, number: u8) -> Port {
    Port {
        network: "lan".into(),
        name: format!("port{number}"),
        router: number == 1,
        cidr: "10.88.0.0/24".parse().expect("a network"),
        address: [10, 88, 0, number].into(),
        mac: format!("02:00:00:00:00:{number:02x}").parse().expect("an address"),
        gateway: None,
        name_servers: vec![],
        not_from: vec![],
        mtu: 1500,
        socket: directory.join(format!("run{number}/ports/lan")),
        switch: switch.clone(),
    }
}

/// All of them at once.
fn join_all(directory: &Path, switch: &Switch, jail: &Path) -> Vec<OwnedFd> {
    std::thread::scope(|scope| {
        let join = |number| join(&port(directory, switch, number), jail).expect("a port");
        let threads: Vec<_> = (1..=MANY).map(|number| scope.spawn(move || join(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// The switches that run for this network.
fn running(network: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("it is there").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        let is_switch = words.next().is_some_and(|word| word.ends_with(b"casemate-switch"));
        if is_switch && words.any(|word| word == network.as_bytes()) {
            let pid = entry.file_name().to_string_lossy().parse().expect("a number");
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

fn count(switch: &Switch) -> usize {
    let control = Control::connect(&switch.control).expect("asked").expect("it runs");
    let stats = control.ask(&json!({ "stats": {} }), None).expect("answered");
    stats["ports"].as_array().expect("ports").len()
}

fn is_free(switch: &Switch) -> bool {
    matches!(Lock::take(&switch.lock).expect("tried"), Taking::Ours(_))
}

#[track_caller]
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !look() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn of_many_supervisors_one_starts_the_switch_and_it_ends_with_the_last_port() {
    let (Some(jail), Some(own)) = (program("casemate-jail"), program("casemate-switch")) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let network = format!("test-{}", std::process::id());
    let switch = switch(directory.path(), own, &network);
    for round in 0..10 {
        let mut ports = join_all(directory.path(), &switch, &jail);
        assert_eq!(count(&switch), usize::from(MANY));
        assert_eq!(running(&network).len(), 1);
        if round == 0 {
            // Another of the same name or address is refused.
            let error = join(&port(directory.path(), &switch, 3), &jail).expect_err("taken");
            assert!(error.to_string().contains("its name is taken"), "{error}");
            let other = Port { name: "other".into(), ..port(directory.path(), &switch, 3) };
            assert!(matches!(join(&other, &jail), Err(SwitchError::Taken)));
        }
        // Who comes when the last one goes gets a port all the same.
        let (first, rest) = (ports.pop().expect("one"), ports);
        drop(rest);
        let again = std::thread::scope(|scope| {
            let last = scope.spawn(move || drop(first));
            let again = join(&port(directory.path(), &switch, 1), &jail).expect("a port");
            last.join().expect("no panic");
            again
        });
        until("the end of the others", || count(&switch) == 1);
        drop(again);
        tidy(&switch);
        assert!(!switch.control.exists() && !switch.lock.exists());
        until("the end of the switch", || running(&network).is_empty());
    }
}

#[test]
fn a_switch_that_was_killed_is_there_again_for_all_once() {
    let (Some(jail), Some(own)) = (program("casemate-jail"), program("casemate-switch")) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let network = format!("killed-{}", std::process::id());
    let switch = switch(directory.path(), own, &network);
    let mut ports = join_all(directory.path(), &switch, &jail);
    for _ in 0..5 {
        let before = running(&network);
        assert_eq!(before.len(), 1);
        kill(before[0], Signal::SIGKILL).expect("it is ours");
        for port in &ports {
            let mut ready = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut ready, PollTimeout::from(20_000_u16)), Ok(1), "it sees the end");
        }
        ports = join_all(directory.path(), &switch, &jail);
        assert_eq!(count(&switch), usize::from(MANY));
        let after = running(&network);
        assert!(after.len() == 1 && after != before, "{after:?}");
    }
    drop(ports);
    until("the end of the switch", || is_free(&switch));
}

#[test]
fn a_switch_whose_starter_was_killed_at_once_ends() {
    let (Some(jail), Some(own)) = (program("casemate-jail"), program("casemate-switch")) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let network = format!("left-{}", std::process::id());
    let switch = switch(directory.path(), own, &network);
    // As a kill would: the connection goes before the switch has seen it.
    drop(join(&port(directory.path(), &switch, 1), &jail).expect("a port"));
    until("the end of the switch", || is_free(&switch) && running(&network).is_empty());
}

#[test]
fn a_switch_that_ends_at_once_is_not_started_for_ever() {
    let Some(jail) = program("casemate-jail") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let mut switch = switch(directory.path(), "/bin/sh".into(), "none");
    switch.process.arguments = ["-c", "echo no such thing >&2"].map(String::from).to_vec();
    let error = join(&port(directory.path(), &switch, 1), &jail).expect_err("it ends");
    let text = "could not start the switch of the network `lan`: it ends at once (no such thing)";
    assert_eq!(error.to_string(), text);
    assert!(is_free(&switch));
}

#[test]
fn nobody_listens_where_no_switch_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let none = Control::connect(&directory.path().join("none.sock")).expect("asked");
    assert!(none.is_none());
}

#[test]
fn what_a_switch_says_moves_no_cursor() {
    let text = casemate_host::switch::plain(&format!("a\x1b[2Jb\n{}", "x".repeat(1000)));
    assert!(text.starts_with("a[2Jbxxx") && text.len() == 256, "{text}");
}
