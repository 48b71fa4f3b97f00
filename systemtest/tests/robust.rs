//! What dies, fills up or is missing: the user is told, the next command works, nothing is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use systemtest::processes::Process;
use systemtest::{BOOT, SHORT, SmallDisk, World, can_mount, here, is_root, skip, soak, until};

/// Longest time until a client hears of the end of its compartment.
const QUICK: Duration = Duration::from_secs(10);

fn kill_now(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it can be killed");
}

/// Kills a process of a compartment. One that an ordinary user may not signal, because it is about
/// to become another, goes with the process that watches over it.
fn kill_member(process: &Process) {
    let mut next = Some(process.clone());
    while let Some(process) = next {
        match kill(Pid::from_raw(process.pid), Signal::SIGKILL) {
            Err(nix::Error::EPERM) => next = process.parent(),
            _ => return,
        }
    }
    panic!("{process:?} cannot be killed");
}

/// A world with a running session, and the process of it whose name begins so.
fn victim(world: &World, who: &str) -> (systemtest::Background, Process) {
    let call = world.run(["sh", "-c", "echo ready; exec sleep 1000"]).start();
    call.expect("ready");
    let process = if who == "supervisor" {
        Process::of(world.supervisor()).expect("it runs")
    } else {
        world.member(who)
    };
    (call, process)
}

/// Kills a process while a session runs: its client is told within [`QUICK`], nothing is left, and
/// the next command works.
#[track_caller]
fn dies_in_a_session(test: &'static str, who: &str, message: &str) {
    let world = World::new(test, "");
    let (call, process) = victim(&world, who);
    let crew =
        world.crew(world.name()).into_iter().filter(|p| p.pid != call.pid().as_raw()).collect();
    let begin = Instant::now();
    kill_member(&process);
    let done = call.within(SHORT).done().exits(125).says("error:").says(message);
    assert!(begin.elapsed() < QUICK, "told after {:?}: {done}", begin.elapsed());
    let next = world.run(["echo", "again"]).done().ok();
    assert_eq!(next.text(), "again");
    world.stop_force().ok();
    world.assert_gone_with(world.name(), &crew);
}

/// Kills a process while the machine boots.
#[track_caller]
fn dies_at_boot(test: &'static str, who: &str) {
    let world = World::new(test, "");
    let call = world.run(["true"]).start();
    let process = until("the process", SHORT, || {
        let mut crew = world.crew(world.name()).into_iter();
        // What asks QEMU for its version is no machine.
        let is_machine = |arguments: &[String]| arguments.iter().any(|word| word == "-name");
        crew.find(|process| {
            process.name.starts_with(who)
                && process.pid != call.pid().as_raw()
                && (who != "qemu" || is_machine(&process.arguments))
        })
    });
    kill_member(&process);
    let done = call.within(SHORT).done();
    // A supervisor killed before its client had asked it for anything is started again.
    let again = done.code == Some(0) && done.error().contains("did not end in order");
    if !(again && who.starts_with("casemate-super")) {
        drop(done.exits(125).says("error:"));
    }
    world.run(["true"]).done().ok();
    world.stop_force().ok();
    world.assert_gone(world.name());
}

/// Kills a process while the machine is being stopped.
#[track_caller]
fn dies_at_stop(test: &'static str, who: &str) {
    let world = World::new(test, "");
    // Something that makes the stop take a while.
    let line = "trap '' TERM HUP INT; echo ready; while :; do sleep 1000; done";
    let call = world.run(["sh", "-c", line]).start();
    call.expect("ready");
    let crew: std::collections::BTreeSet<_> = world
        .crew(world.name())
        .into_iter()
        .filter(|process| process.pid != call.pid().as_raw())
        .collect();
    let process = crew.iter().rfind(|process| process.name.starts_with(who)).expect("it runs");
    let stop = world.casemate(["stop", world.name()]).within(SHORT).start();
    call.within(SHORT).done().exits(125);
    // It may have ended just now.
    let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    stop.done();
    world.casemate(["list"]).done().ok();
    world.assert_gone_with(world.name(), &crew);
    world.run(["true"]).done().ok();
}

#[test]
fn killed_machine_in_a_session_is_told_and_leaves_nothing() {
    dies_in_a_session(here!(), "qemu", "signal 9");
}

#[test]
fn killed_link_in_a_session_is_told_and_leaves_nothing() {
    dies_in_a_session(here!(), "casemate-link", "link");
}

#[test]
fn killed_supervisor_in_a_session_is_told_and_leaves_nothing() {
    dies_in_a_session(here!(), "supervisor", "supervisor");
}

#[test]
fn killed_jail_in_a_session_is_told_and_leaves_nothing() {
    dies_in_a_session(here!(), "casemate-jail", "");
}

#[test]
fn killed_machine_at_boot_is_told_and_leaves_nothing() {
    dies_at_boot(here!(), "qemu");
}

#[test]
fn killed_link_at_boot_is_told_and_leaves_nothing() {
    dies_at_boot(here!(), "casemate-link");
}

#[test]
fn killed_supervisor_at_boot_is_told_and_leaves_nothing() {
    dies_at_boot(here!(), "casemate-super");
}

#[test]
fn killed_machine_at_stop_leaves_nothing() {
    dies_at_stop(here!(), "qemu");
}

#[test]
fn killed_link_at_stop_leaves_nothing() {
    dies_at_stop(here!(), "casemate-link");
}

#[test]
fn killed_supervisor_at_stop_leaves_nothing() {
    dies_at_stop(here!(), "casemate-super");
}

#[test]
fn killed_client_at_boot_leaves_a_compartment_that_works() {
    let world = World::new(here!(), "");
    let call = world.run(["sh", "-c", "echo x > /tmp/ran"]).start();
    until("its processes", SHORT, || (world.crew(world.name()).len() > 1).then_some(()));
    kill_now(call.pid().as_raw());
    call.done();
    world.run(["test", "-e", "/tmp/ran"]).done().exits(1);
}

#[test]
fn killed_client_of_stop_does_not_keep_the_compartment_from_ending() {
    let world = World::new(here!(), "");
    world.start();
    let crew = world.crew(world.name());
    let stop = world.casemate(["stop", world.name()]).start();
    until("the stop", SHORT, || {
        let status = world.status(world.name());
        (status["state"] != "running").then_some(())
    });
    kill_now(stop.pid().as_raw());
    stop.done();
    world.assert_gone_with(world.name(), &crew);
}

/// Whoever stops a compartment does not want those who wait for it to start it again.
#[test]
fn compartment_stopped_while_it_boots_stays_stopped() {
    let world = World::new(here!(), "");
    let call = world.run(["true"]).start();
    until("it to boot", SHORT, || (world.state(world.name()) == "booting").then_some(()));
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    call.within(SHORT).done().exits(125).says("stop");
    world.assert_gone(world.name());
}

#[test]
fn agent_cannot_be_killed_from_inside() {
    let world = World::new(here!(), "");
    world.run_with(["--root"], ["sh", "-c", "kill -9 1; kill -SEGV 1; true"]).done().ok();
    world.run(["echo", "alive"]).done().ok();
}

#[test]
fn kernel_panic_is_told_quickly_and_leaves_nothing() {
    let world = World::new(here!(), "");
    world.start();
    let crew = world.crew(world.name());
    let call = world.run(["sleep", "1000"]).start();
    let begin = Instant::now();
    let line = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 1000";
    let done = world.run_with(["--root"], ["sh", "-c", line]).within(SHORT).done().exits(125);
    assert!(begin.elapsed() < SHORT, "{done}");
    let done = done.says("kernel stopped without shutting down");
    assert!(!done.stderr.contains(&0x1b), "{done}");
    call.within(SHORT).done().exits(125);
    world.assert_gone_with(world.name(), &crew);
    let status = world.status(world.name());
    assert_eq!(status["state"], "failed", "{status}");
    assert_eq!(world.run(["echo", "again"]).done().ok().text(), "again");
}

#[test]
fn guest_out_of_memory_loses_the_command_and_nothing_else() {
    let world = World::new(here!(), "");
    let mut other = world.run(["cat"]).hold_input().start();
    other.give(b"before\n");
    other.expect("before");
    // perl doubles a string until it is killed.
    let line = "my $x = 'x' x 1048576; $x .= $x while 1;";
    let done = world.run(["perl", "-e", line]).within(SHORT).done();
    // 137 by the kernel, or perl's own word when the kernel refuses the memory first.
    assert!(matches!(done.code, Some(137 | 1)), "{done}");
    other.give(b"after\n");
    other.expect("after");
    other.close_input();
    other.done().ok();
    world.run(["true"]).done().ok();
}

#[test]
fn guest_with_a_full_root_goes_on() {
    let world = World::new(here!(), "");
    let done = world.shell("head -c 1000000000 /dev/zero > /tmp/big; rm /tmp/big; echo $?").done();
    assert_eq!(done.text(), "0", "{done}");
    world.run(["true"]).done().ok();
}

/// Under emulation two processors have shown a kernel that patches itself and fails.
#[test]
fn boots_with_two_processors_succeed() {
    let world = World::new(here!(), "cpus = 2");
    for _ in 0..if soak() { 60 } else { 3 } {
        assert_eq!(world.run(["nproc"]).done().ok().text(), "2");
        world.stop_force().ok();
    }
}

#[test]
fn start_after_start_works_whatever_the_end_was() {
    let world = World::new(here!(), "");
    for round in 0..if soak() { 30 } else { 4 } {
        world.run(["true"]).done().ok();
        let crew = world.crew(world.name());
        match round % 4 {
            0 => drop(world.casemate(["stop", world.name()]).done().ok()),
            1 => kill_now(world.supervisor()),
            2 => drop(world.stop_force().ok()),
            _ => kill_member(&world.member("qemu")),
        }
        until("the end of all processes", SHORT, || {
            (!crew.iter().any(Process::runs)).then_some(())
        });
    }
    world.run(["true"]).done().ok();
}

#[test]
fn supervisor_that_was_killed_is_told_by_the_next_command() {
    let world = World::new(here!(), "");
    world.start();
    let pid = world.supervisor();
    kill_now(pid);
    until("its end", SHORT, || {
        Process::of(pid).is_none_or(|process| !process.runs()).then_some(())
    });
    let done = world.run(["true"]).done().ok();
    assert!(done.error().contains("did not end in order"), "{done}");
    let done = world.run(["true"]).done().ok();
    assert!(!done.error().contains("did not end in order"), "{done}");
}

/// A full state directory for a compartment: its log folder on a tiny file system.
#[test]
fn full_disk_for_the_logs_does_not_keep_a_compartment_from_working() {
    if !can_mount(here!()) {
        return;
    }
    let world = World::new(here!(), "");
    let logs = world.logs(world.name());
    let small = SmallDisk::over(&logs, "64k");
    let _ = fs::write(logs.join("filler"), vec![0; 1 << 20]);
    let done = world.run(["echo", "works"]).done();
    if done.code == Some(0) {
        assert_eq!(done.text(), "works");
        let flood = "yes console | head -n 20000 > /dev/console; echo done";
        let done = world.run_with(["--root"], ["sh", "-c", flood]).done().ok();
        assert_eq!(done.text(), "done");
        let done = world.run_with(["--detach"], ["sh", "-c", "yes | head -n 100000"]).done();
        assert!(done.code.is_some(), "{done}");
        world.run(["true"]).done().ok();
    } else {
        assert_eq!(done.code, Some(125), "{done}");
        assert!(done.error().contains("No space left"), "{done}");
        assert!(done.error().contains("hint:"), "{done}");
    }
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    world.assert_gone(world.name());
    drop(small);
}

#[test]
fn user_without_a_runtime_directory_has_a_private_one() {
    if is_root() {
        return skip(here!(), "root has fixed places");
    }
    let world = World::new(here!(), "");
    let place = format!("/tmp/casemate-{}", nix::unistd::geteuid());
    let call = |call: systemtest::Call| call.without_env("XDG_RUNTIME_DIR");
    let done = call(world.run(["echo", "works"])).done().ok();
    assert_eq!(done.text(), "works");
    let mode = fs::metadata(&place).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    call(world.casemate(["stop", world.name()])).done().ok();
    let left = Path::new(&place).join(world.name());
    assert!(!left.exists() && !Path::new(&format!("{}.sock", left.display())).exists());
    world.assert_gone(world.name());
}

#[test]
fn runtime_directory_may_have_a_very_long_path() {
    if is_root() {
        return skip(here!(), "root has fixed places");
    }
    let world = World::new(here!(), "");
    let mut long = world.path("long");
    while long.as_os_str().len() < 300 {
        long.push("a-folder-with-a-rather-long-name");
    }
    fs::create_dir_all(&long).expect("made");
    fs::set_permissions(&long, fs::Permissions::from_mode(0o700)).expect("set");
    let call = |call: systemtest::Call| call.env("XDG_RUNTIME_DIR", &long);
    assert_eq!(call(world.run(["echo", "works"])).done().ok().text(), "works");
    call(world.casemate(["status", world.name()])).done().ok();
    call(world.casemate(["stop", world.name()])).done().ok();
    let left: Vec<_> = fs::read_dir(long.join("casemate")).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    world.assert_gone(world.name());
}

#[test]
fn home_may_have_spaces_and_odd_letters() {
    if is_root() {
        return skip(here!(), "root has fixed places");
    }
    let world = World::new(here!(), "");
    let home = world.path("a home with spaces, 'quotes' and ünïcödé");
    for folder in [".config/casemate", ".local/state", ".cache"] {
        fs::create_dir_all(home.join(folder)).expect("made");
    }
    fs::copy(world.config(), home.join(".config/casemate/casemate.toml")).expect("copied");
    let call = |arguments: &[&str]| {
        world
            .program("casemate")
            .args(arguments)
            .env("HOME", &home)
            .without_env("XDG_CONFIG_HOME")
            .without_env("XDG_STATE_HOME")
            .without_env("XDG_CACHE_HOME")
    };
    let done = call(&["run", world.name(), "--", "echo", "works"]).done().ok();
    assert_eq!(done.text(), "works");
    call(&["stop", world.name()]).done().ok();
    assert!(home.join(".local/state/casemate/logs").is_dir());
    world.assert_gone(world.name());
}

#[test]
fn home_that_cannot_be_written_is_named() {
    if is_root() {
        return skip(here!(), "root may write everywhere");
    }
    let world = World::new(here!(), "");
    let home = world.path("home");
    fs::create_dir(&home).expect("made");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o500)).expect("set");
    let call = |arguments: &[&str]| {
        world.casemate(arguments).env("HOME", &home).without_env("XDG_STATE_HOME")
    };
    let done = call(&["run", world.name(), "--", "true"]).done().exits(125);
    let done = done.says("error:").says("hint:");
    assert!(done.error().contains(&home.display().to_string()), "it must name the path: {done}");
    let done = call(&["start", world.name()]).done().exits(4);
    assert!(done.error().contains(&home.display().to_string()), "{done}");
    world.assert_gone(world.name());
}

#[test]
fn broken_neighbour_is_reported_and_does_not_stop_a_good_compartment() {
    let world = World::new(here!(), "");
    world.configure_more("[compartment.broken]\nmemory = \"many\"\nno-such-key = 1\n");
    assert_eq!(world.run(["echo", "works"]).done().ok().text(), "works");
    world.casemate(["run", "broken", "--", "true"]).done().exits(125).says("memory");
    let done = world.casemate(["start", "broken"]).done().exits(3).says("no-such-key");
    assert!(done.error().contains("casemate.toml"), "{done}");
    world.casemate(["check"]).done().exits(3).says("no-such-key");
    let list = world.casemate(["list", "--json"]).done().ok().json();
    let rows = list.as_array().expect("a list");
    let row = rows.iter().find(|row| row["name"] == "broken").expect("it is listed");
    assert_eq!(row["state"], "broken");
}

#[test]
fn file_that_is_no_configuration_stops_everything_with_its_place() {
    let world = World::new(here!(), "");
    world.configure_more("[compartment.x\n");
    let done = world.casemate(["check"]).done().exits(3);
    assert!(done.error().contains("casemate.toml:"), "{done}");
    let missing = world.path("none.toml");
    let call = world.program("casemate").arg("--config").arg(&missing).args(["list"]);
    call.done().exits(3).says("none.toml").says("hint:");
}

/// `run`, `start` and `plan` in a world whose QEMU is not as it should be.
#[track_caller]
fn is_refused(world: &World, change: impl Fn(systemtest::Call) -> systemtest::Call, words: &str) {
    for (arguments, code) in [
        (vec!["run", world.name(), "--", "true"], 125),
        (vec!["start", world.name()], 4),
        (vec!["plan", world.name()], 4),
    ] {
        let done = change(world.casemate(&arguments)).within(SHORT).done().exits(code);
        done.says("error:").says(words).says("hint:");
    }
    world.assert_gone(world.name());
}

#[test]
fn missing_qemu_is_told_with_its_package() {
    let world = World::new(here!(), "");
    let empty = world.path("empty");
    fs::create_dir(&empty).expect("made");
    is_refused(&world, |call| call.env("PATH", &empty), "QEMU is not installed");
    world.configure_more("[engine.qemu]\nbinary = \"/no/such/qemu\"");
    is_refused(&world, |call| call, "/no/such/qemu");
}

#[test]
fn qemu_may_be_named_without_its_folder() {
    let world = World::new(here!(), "");
    world.configure_more("[engine.qemu]\nbinary = \"qemu-system-x86_64\"");
    world.casemate(["plan", world.name()]).done().ok();
    let world = World::new(here!(), "");
    world.configure_more("[engine.qemu]\nbinary = \"no-such-qemu\"");
    is_refused(&world, |call| call, "no-such-qemu");
}

/// Writes a program for the shell.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
}

#[test]
fn qemu_that_is_too_old_is_told_with_the_version_needed() {
    let world = World::new(here!(), "");
    let old = world.path("old-qemu");
    script(&old, "echo 'QEMU emulator version 4.2.1 (Debian 1:4.2-3ubuntu6)'");
    world.configure_more(&format!("[engine.qemu]\nbinary = \"{}\"", old.display()));
    is_refused(&world, |call| call, "QEMU 4.2.1 is too old");
}

#[test]
fn qemu_that_ends_at_once_is_told_with_its_words() {
    let world = World::new(here!(), "extra-args = [\"-no-such-option\"]");
    let done = world.run(["true"]).within(SHORT).done().exits(125);
    assert!(done.error().contains("no-such-option"), "{done}");
    world.assert_gone(world.name());
    let status = world.status(world.name());
    assert_eq!(status["state"], "failed");
}

#[test]
fn kernel_that_is_none_is_told() {
    let world = World::new(here!(), "");
    let kernel = world.path("kernel");
    fs::write(&kernel, "not a kernel").expect("written");
    let name = world.name().to_owned();
    world.configure(&format!(
        "[compartment.{name}]\nmemory = 256\nkernel = \"{}\"",
        kernel.display()
    ));
    let done = world.run(["true"]).within(BOOT).done().exits(125);
    assert!(done.error().contains("kernel"), "{done}");
    world.assert_gone(world.name());
    world.configure(&format!("[compartment.{name}]\nmemory = 256\nkernel = \"/no/such/kernel\""));
    let done = world.run(["true"]).within(SHORT).done().exits(125);
    assert!(done.error().contains("/no/such/kernel"), "{done}");
    world.assert_gone(world.name());
}

#[test]
fn working_directory_that_is_gone_is_no_hindrance() {
    let world = World::new(here!(), "");
    let line = format!(
        "mkdir gone && cd gone && rmdir ../gone && '{}' --config '{}' run {} -- echo works",
        systemtest::programs::program("casemate").display(),
        world.config().display(),
        world.name(),
    );
    let done = world.host_shell(&line).directory(&world.path(".")).done().ok();
    assert_eq!(done.text(), "works");
}
