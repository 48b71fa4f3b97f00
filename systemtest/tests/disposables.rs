//! Disposables: they forget, they end by themselves, and no two share anything.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use systemtest::{SHORT, World, here, until};

const TEMPLATE: &str = "disposable-template = true\nidle-timeout = 60\ndisposable = true";

/// A call of `run --disposable` of a line for the guest's shell.
fn fresh(world: &World, line: &str) -> systemtest::Call {
    world.casemate(["run", "--disposable", world.name(), "--", "sh", "-c", line])
}

/// Names of the fresh disposables that run.
fn running(world: &World) -> Vec<String> {
    let list = world.casemate(["list", "--json"]).done().ok().json();
    let begin = format!("{}-d", world.name());
    let rows = list.as_array().expect("a list").iter();
    let names = rows.filter_map(|row| row["name"].as_str()).filter(|name| name.starts_with(&begin));
    names.map(str::to_owned).collect()
}

/// No fresh disposable of this world is left, nor a file of one.
#[track_caller]
fn assert_none_left(world: &World, names: &[String]) {
    for name in names {
        world.assert_gone(name);
    }
    until("the end of all disposables", SHORT, || running(world).is_empty().then_some(()));
    let begin = format!("{}-d", world.name());
    for place in [world.runtime(), world.state_directory().join("logs")] {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(!name.starts_with(&begin), "{} is left", entry.path().display());
        }
    }
}

#[test]
fn idle_disposable_ends_and_forgets() {
    let world = World::new(here!(), "disposable = true\nidle-timeout = 2");
    world.shell("echo x > /home/user/file").done().ok();
    let begin = Instant::now();
    world.assert_gone(world.name());
    assert!(begin.elapsed() >= Duration::from_millis(1500), "too early: {:?}", begin.elapsed());
    let status = world.status(world.name());
    assert_eq!(status["state"], "stopped", "{status}");
    assert!(status["last"]["reason"].as_str().is_some_and(|why| why.contains("idle")), "{status}");
    world.run(["test", "-e", "/home/user/file"]).done().exits(1);
}

#[test]
fn disposable_with_a_session_is_not_idle() {
    let world = World::new(here!(), "disposable = true\nidle-timeout = 2");
    assert_eq!(world.shell("sleep 5; echo still").done().ok().text(), "still");
    world.run_with(["--detach"], ["sleep", "5"]).done().ok();
    let begin = Instant::now();
    world.assert_gone(world.name());
    assert!(begin.elapsed() > Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn disposable_that_is_started_and_never_used_ends_too() {
    let world = World::new(here!(), "disposable = true\nidle-timeout = 2");
    world.start();
    world.assert_gone(world.name());
}

#[test]
fn run_just_when_the_idle_time_is_over_works() {
    let world = World::new(here!(), "disposable = true\nidle-timeout = 1");
    for pause in [900, 1000, 1050] {
        world.run(["true"]).done().ok();
        std::thread::sleep(Duration::from_millis(pause));
    }
    world.run(["true"]).done().ok();
}

#[test]
fn fresh_disposable_knows_nothing_of_the_one_before() {
    let world = World::new(here!(), TEMPLATE);
    fresh(&world, "echo x > /home/user/file; sync").done().ok();
    let done = fresh(&world, "test -e /home/user/file").done();
    assert_eq!(done.code, Some(1), "{done}");
    assert_none_left(&world, &[]);
    // The template itself never ran.
    assert_eq!(world.state(world.name()), "stopped");
}

#[test]
fn code_output_and_signals_of_a_fresh_disposable_pass_through() {
    let world = World::new(here!(), TEMPLATE);
    let done = fresh(&world, "cat; echo err >&2; exit 42").input("in\n").done().exits(42);
    assert_eq!(done.text(), "in");
    assert!(done.error().contains("err"), "{done}");
    let call = fresh(&world, "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done").start();
    call.expect("ready");
    call.signal(Signal::SIGTERM);
    call.done().exits(9);
    assert_none_left(&world, &[]);
}

#[test]
fn two_fresh_disposables_at_once_share_nothing() {
    let world = World::new(here!(), TEMPLATE);
    let line = "uname -n; cat /etc/machine-id /proc/sys/kernel/random/boot_id; \
                head -c 32 /dev/urandom | od -An -tx1 | tr -d '\\n'; echo; \
                cat /sys/class/net/*/address; echo mine > /tmp/mine; echo ready; read x; ls /tmp";
    let start = || fresh(&world, line).hold_input().start();
    let mut both = [start(), start()];
    for call in &both {
        call.expect("ready");
    }
    let names = running(&world);
    assert_eq!(names.len(), 2, "{names:?}");
    let told: Vec<Vec<String>> =
        both.iter().map(|call| call.stdout().lines().map(str::to_owned).collect()).collect();
    for (what, line) in [("name", 0), ("machine id", 1), ("boot id", 2), ("random bytes", 3)] {
        assert_ne!(told[0][line], told[1][line], "the same {what}");
    }
    assert!(names.contains(&told[0][0]) && names.contains(&told[1][0]), "{names:?} {told:?}");
    let crews = names.iter().map(|name| world.crew(name)).collect::<Vec<_>>();
    let users = |crew: &std::collections::BTreeSet<systemtest::processes::Process>| {
        let vmm = crew.iter().find(|process| process.name.starts_with("qemu")).expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", vmm.pid)).expect("read");
        status.lines().find(|line| line.starts_with("Uid:")).expect("a user").to_owned()
    };
    assert_ne!(users(&crews[0]), users(&crews[1]), "the same user on the host");
    for call in &mut both {
        call.give(b"\n");
        call.close_input();
    }
    for call in both {
        call.done().ok();
    }
    assert_none_left(&world, &names);
}

#[test]
fn fresh_disposable_is_erased_when_its_client_is_killed() {
    let world = World::new(here!(), TEMPLATE);
    let call = fresh(&world, "echo ready; sleep 1000").start();
    call.expect("ready");
    let names = running(&world);
    let crew = world.crew(&names[0]);
    call.signal(Signal::SIGKILL);
    call.done();
    world.assert_gone_with(&names[0], &crew);
    assert_none_left(&world, &names);
}

#[test]
fn fresh_disposable_is_erased_when_its_client_is_killed_at_boot() {
    let world = World::new(here!(), TEMPLATE);
    let call = fresh(&world, "sleep 1000").start();
    until("its supervisor", SHORT, || (!running(&world).is_empty()).then_some(()));
    let names = running(&world);
    call.signal(Signal::SIGKILL);
    call.done();
    until("its end", SHORT + SHORT, || running(&world).is_empty().then_some(()));
    assert_none_left(&world, &names);
}

#[test]
fn fresh_disposable_is_erased_when_its_supervisor_is_killed() {
    let world = World::new(here!(), TEMPLATE);
    let call = fresh(&world, "echo ready; sleep 1000").start();
    call.expect("ready");
    let names = running(&world);
    let crew = world.crew(&names[0]);
    let pid = world.status(&names[0])["supervisorPid"].as_i64().expect("it runs");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("killed");
    call.within(SHORT).done().exits(125).says("error:");
    // The next command clears what is left.
    world.casemate(["list"]).done().ok();
    world.assert_gone_with(&names[0], &crew);
    assert_none_left(&world, &names);
}

#[test]
fn fresh_disposable_is_erased_when_its_machine_is_killed() {
    let world = World::new(here!(), TEMPLATE);
    let call = fresh(&world, "echo ready; sleep 1000").start();
    call.expect("ready");
    let names = running(&world);
    let crew = world.crew(&names[0]);
    let vmm = crew.iter().find(|process| process.name.starts_with("qemu")).expect("it runs");
    kill(Pid::from_raw(vmm.pid), Signal::SIGKILL).expect("killed");
    call.within(SHORT).done().exits(125).says("error:");
    world.assert_gone_with(&names[0], &crew);
    assert_none_left(&world, &names);
}

#[test]
fn fresh_disposable_that_is_stopped_tells_its_client() {
    let world = World::new(here!(), TEMPLATE);
    let call = fresh(&world, "echo ready; sleep 1000").start();
    call.expect("ready");
    let names = running(&world);
    world.casemate(["stop", &names[0]]).done().ok();
    call.within(SHORT).done().exits(125).says("asked to stop");
    assert_none_left(&world, &names);
}

#[test]
fn only_a_template_for_disposables_gives_fresh_ones() {
    let world = World::new(here!(), "");
    let done = fresh(&world, "true").done().exits(125);
    done.says("no template").says("hint: set `disposable-template = true`");
    assert_none_left(&world, &[]);
}
