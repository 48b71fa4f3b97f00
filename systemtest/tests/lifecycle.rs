//! `start`, `stop`, `restart`, `pause`, `resume`, `list`, `status`, `logs`, `plan`, `shell`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use systemtest::{BOOT, SHORT, Shared, Terminal, World, here, until};

static WORLD: OnceLock<World> = OnceLock::new();

fn world(test: &'static str) -> Shared {
    World::shared(test, &WORLD, "")
}

fn row(world: &World, name: &str) -> Value {
    let list = world.casemate(["list", "--json"]).done().ok().json();
    let rows = list.as_array().expect("a list");
    rows.iter().find(|row| row["name"] == name).expect("it is listed").clone()
}

#[test]
fn compartment_is_started_and_stopped_and_leaves_nothing() {
    let world = World::new(here!(), "");
    let name = world.name();
    assert_eq!(world.state(name), "stopped");
    assert_eq!(row(&world, name)["state"], "stopped");
    world.start();
    assert_eq!(world.state(name), "running");
    assert_eq!(row(&world, name)["state"], "running");
    // Starting what runs is no error and starts nothing.
    let supervisor = world.supervisor();
    world.start();
    assert_eq!(world.supervisor(), supervisor);
    let crew = world.crew(name);
    assert!(crew.len() >= 3, "supervisor, link and VMM: {crew:?}");
    world.casemate(["stop", name]).done().ok();
    world.assert_gone_with(name, &crew);
    assert_eq!(world.state(name), "stopped");
    // Nor is stopping what does not run.
    world.casemate(["stop", name]).done().ok();
    world.casemate(["stop", "--force", name]).done().ok();
}

#[test]
fn restart_gives_another_boot_of_the_same_compartment() {
    let world = World::new(here!(), "");
    let boot = || world.run(["cat", "/proc/sys/kernel/random/boot_id"]).done().ok().text();
    let identity = || world.run(["cat", "/etc/machine-id"]).done().ok().text();
    let (first, machine) = (boot(), identity());
    world.shell("echo x > /tmp/file").done().ok();
    world.casemate(["restart", world.name()]).done().ok();
    assert_ne!(boot(), first);
    assert_eq!(identity(), machine);
    world.run(["test", "-e", "/tmp/file"]).done().exits(1);
}

#[test]
fn several_compartments_are_started_and_stopped_by_one_command() {
    let world = World::with(here!(), &[("one", ""), ("two", "")]);
    let (one, two) = (world.named("one"), world.named("two"));
    world.casemate(["start", one, two]).done().ok();
    assert_eq!(world.state(one), "running");
    assert_eq!(world.state(two), "running");
    // One that is unknown does not keep the others from being stopped.
    let done = world.casemate(["stop", one, "no-such", two]).done();
    assert_eq!(done.code, Some(3), "{done}");
    world.assert_gone(one);
    world.assert_gone(two);
}

#[test]
fn run_starts_the_compartment_that_it_needs() {
    let world = World::new(here!(), "");
    let done = world.run(["uname", "-n"]).done().ok();
    assert_eq!(done.text(), world.name());
    assert_eq!(world.state(world.name()), "running");
}

#[test]
fn two_first_runs_start_one_machine() {
    let world = World::new(here!(), "");
    let calls: Vec<_> =
        (0..4).map(|_| world.run(["cat", "/proc/sys/kernel/random/boot_id"]).start()).collect();
    let boots: Vec<String> = calls.into_iter().map(|call| call.done().ok().text()).collect();
    assert!(boots.iter().all(|boot| *boot == boots[0]), "{boots:?}");
    let supervisors = world
        .crew(world.name())
        .into_iter()
        .filter(|process| process.name.starts_with("casemate-super"))
        .count();
    assert_eq!(supervisors, 1);
}

#[test]
fn status_says_what_runs() {
    let world = world(here!());
    let mut call = world.run(["sh", "-c", "echo ready; cat"]).hold_input().start();
    call.expect("ready");
    let status = world.status(world.name());
    assert_eq!(status["state"], "running");
    assert!(status["kernel"].as_str().is_some_and(|kernel| !kernel.is_empty()), "{status}");
    let command = |session: &Value| {
        session["command"].as_str().is_some_and(|command| command.contains("echo ready"))
    };
    let sessions = status["sessions"].as_array().expect("a list");
    let session = sessions.iter().find(|session| command(session)).expect("it is there");
    assert!(session["pid"].as_u64().is_some_and(|pid| pid > 1), "{session}");
    for role in ["vmm", "link"] {
        let processes = status["processes"].as_array().expect("a list");
        assert!(processes.iter().any(|process| process["role"] == role), "{status}");
    }
    let text = world.casemate(["status", world.name()]).done().ok().text();
    assert!(text.contains("running") && text.contains("echo ready"), "{text}");
    let text = world.casemate(["list"]).done().ok().text();
    assert!(text.contains(world.name()) && text.contains("STATE"), "{text}");
    call.close_input();
    call.done().ok();
    until("the end of the session", SHORT, || {
        let status = world.status(world.name());
        let sessions = status["sessions"].as_array().expect("a list").clone();
        (!sessions.iter().any(command)).then_some(())
    });
}

#[test]
fn paused_compartment_runs_nothing_until_it_is_resumed() {
    let world = World::new(here!(), "");
    world.start();
    let name = world.name();
    let mut call = world.run(["sh", "-c", "echo ready; cat"]).hold_input().start();
    call.expect("ready");
    world.casemate(["pause", name]).done().ok();
    assert_eq!(world.state(name), "paused");
    world.casemate(["pause", name]).done().ok();
    let done = world.run(["true"]).done().exits(125);
    done.says("paused").says("hint: run: casemate resume");
    call.give(b"while paused\n");
    world.casemate(["resume", name]).done().ok();
    assert_eq!(world.state(name), "running");
    call.expect("while paused");
    call.close_input();
    call.done().ok();
    world.run(["true"]).done().ok();
    // A paused one can be stopped.
    world.casemate(["pause", name]).done().ok();
    world.casemate(["stop", name]).within(SHORT).done().ok();
    world.assert_gone(name);
    world.casemate(["pause", name]).done().exits(1).says("is not running");
}

#[test]
fn clock_is_right_after_a_pause() {
    let world = World::new(here!(), "");
    let difference = || {
        let guest: i64 = world.run(["date", "+%s"]).done().ok().text().parse().expect("a number");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").as_secs() as i64 - guest
    };
    assert!(difference().abs() <= 2, "{} s off", difference());
    world.casemate(["pause", world.name()]).done().ok();
    std::thread::sleep(Duration::from_secs(4));
    world.casemate(["resume", world.name()]).done().ok();
    assert!(difference().abs() <= 2, "{} s off after a pause of 4 s", difference());
}

#[test]
fn logs_tell_of_supervisor_and_console() {
    let world = world(here!());
    world.start();
    world
        .run_with(["--root"], ["sh", "-c", "printf 'to the \\033[31mconsole\\n' > /dev/console"])
        .done()
        .ok();
    let console = || world.casemate(["logs", "--console", world.name()]).done().ok();
    let text = until("the line in the log", SHORT, || {
        let done = console();
        done.text().contains("to the ").then_some(done)
    });
    assert!(text.text().contains("to the \\u{1b}[31mconsole"), "{text}");
    assert!(!text.stdout.contains(&0x1b), "an escape sequence in {text}");
    let json = world.casemate(["logs", "--console", "--json", world.name()]).done().ok();
    for line in json.text().lines() {
        let value: Value = serde_json::from_str(line).expect("one object a line");
        assert!(value["line"].is_string(), "{line}");
    }
    assert!(json.text().contains("console"), "{json}");
    let last = world.casemate(["logs", "--console", "-n", "1", world.name()]).done().ok();
    assert_eq!(last.text().lines().count(), 1);
    world.casemate(["logs", world.name()]).done().ok();
    world.casemate(["logs", "--session", "4711", world.name()]).done().exits(1).says("hint:");
    world.casemate(["logs", "no-such"]).done().exits(3);
}

#[test]
fn logs_are_followed() {
    let world = world(here!());
    world.start();
    let follow = world.casemate(["logs", "--console", "--follow", world.name()]).start();
    world.run_with(["--root"], ["sh", "-c", "echo line-$((20 + 3)) > /dev/console"]).done().ok();
    follow.expect("line-23");
}

#[test]
fn verbose_shows_the_console_while_it_starts() {
    let world = World::new(here!(), "kernel-params = [\"loglevel=7\", \"ignore_loglevel\"]");
    let done = world.casemate(["-v", "run", world.name(), "--", "echo", "done"]).done().ok();
    assert_eq!(done.text(), "done");
    assert!(done.error().contains("Linux version"), "{done}");
    assert!(!done.stderr.contains(&0x1b), "an escape sequence in {done}");
}

#[test]
fn plan_tells_everything_and_starts_nothing() {
    let world = World::new(here!(), "");
    let name = world.name();
    let text = world.casemate(["plan", name]).done().ok().text();
    for wanted in [name, "-sandbox on", "no network", "boot deadline", "casemate-link"] {
        assert!(text.contains(wanted), "`{wanted}` is missing in\n{text}");
    }
    let plan = world.casemate(["plan", name, "--json"]).done().ok().json();
    assert_eq!(plan["processes"].as_array().map(Vec::len), Some(2));
    let again = world.casemate(["plan", name, "--json"]).done().ok().json();
    assert_eq!(plan, again);
    world.assert_gone(name);
    world.casemate(["plan", "no-such"]).done().exits(3).says("error:");
}

#[test]
fn what_is_not_available_yet_is_refused_and_named() {
    let world = World::new(here!(), "sound = true");
    let done = world.casemate(["plan", world.name()]).done().exits(3);
    let done = done.says("not available yet").says("sound");
    drop(done);
    world.run(["true"]).done().exits(125).says("not available yet");
    world.casemate(["start", world.name()]).done().exits(3).says("not available yet");
    world.assert_gone(world.name());
}

#[test]
fn machine_that_is_shut_down_from_inside_ends_cleanly() {
    let world = World::new(here!(), "");
    world.start();
    let crew = world.crew(world.name());
    let done = world.run_with(["--root"], ["sh", "-c", "kill -TERM 1; sleep 100"]).done();
    // The command ends with its machine: by the agent's SIGTERM, or when all is gone.
    assert!(matches!(done.code, Some(125 | 143)), "{done}");
    world.assert_gone_with(world.name(), &crew);
    let status = world.status(world.name());
    assert_eq!(status["state"], "stopped", "{status}");
    let why = status["last"]["reason"].as_str();
    assert!(why.is_some_and(|why| why.contains("shut itself down")), "{status}");
    world.run(["true"]).done().ok();
}

#[test]
fn stop_ends_sessions_and_tells_their_clients() {
    let world = World::new(here!(), "");
    let call = world.run(["sh", "-c", "echo ready; sleep 1000"]).start();
    call.expect("ready");
    let begin = Instant::now();
    world.casemate(["stop", world.name()]).done().ok();
    let done = call.within(SHORT).done().exits(125);
    assert!(begin.elapsed() < SHORT);
    assert!(done.error().contains("asked to stop"), "{done}");
    world.assert_gone(world.name());
}

#[test]
fn stop_does_not_wait_for_programs_that_will_not_end() {
    let world = World::new(here!(), "");
    let line = "trap '' TERM HUP INT; echo ready; while :; do sleep 1000; done";
    let call = world.run(["sh", "-c", line]).start();
    call.expect("ready");
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    call.within(SHORT).done().exits(125);
    world.assert_gone(world.name());
}

#[test]
fn terminated_supervisor_ends_in_order() {
    let world = World::new(here!(), "");
    world.start();
    let crew = world.crew(world.name());
    let pid = nix::unistd::Pid::from_raw(world.supervisor());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
    world.assert_gone_with(world.name(), &crew);
    assert_eq!(world.state(world.name()), "stopped");
}

#[test]
fn every_running_compartment_is_stopped_by_stop_all() {
    if systemtest::is_root() {
        // It would stop what others run on this machine.
        return systemtest::skip(here!(), "root's compartments are not the test's alone");
    }
    let world = World::with(here!(), &[("one", ""), ("two", "")]);
    world.casemate(["start", world.named("one"), world.named("two")]).done().ok();
    world.casemate(["stop", "--all"]).done().ok();
    world.assert_gone(world.named("one"));
    world.assert_gone(world.named("two"));
}

#[test]
fn console_has_a_shell_that_two_viewers_see() {
    let world = World::new(here!(), "");
    let mut first = Terminal::start(world.casemate(["shell", world.name()]), 24, 80);
    first.expect("Ctrl-] leaves");
    first.send("\r");
    first.expect("$ ");
    let mut second = Terminal::start(world.casemate(["shell", world.name()]), 24, 80);
    second.expect("Ctrl-] leaves");
    first.send("echo seen-by-$((1 + 1))\r");
    first.expect("seen-by-2");
    second.expect("seen-by-2");
    second.send("id -un; echo typed-by-$((2 + 2))\r");
    first.expect("user");
    first.expect("typed-by-4");
    second.expect("typed-by-4");
    first.send("\x1d");
    assert_eq!(first.code(), 0);
    second.send("echo still-$((3 + 3))\r");
    second.expect("still-6");
    second.send("\x1d");
    assert_eq!(second.code(), 0);
    assert_eq!(world.state(world.name()), "running");
}

#[test]
fn console_viewer_leaves_the_terminal_as_it_was() {
    let world = world(here!());
    let call = world
        .host_shell("stty -a > before; \"$@\"; stty -a > after; cmp before after && echo same")
        .directory(&world.path("."))
        .arg("sh")
        .arg(systemtest::programs::program("casemate"))
        .arg("--config")
        .arg(world.config())
        .args(["shell", world.name()]);
    let mut terminal = Terminal::start(call, 24, 80);
    terminal.expect("Ctrl-] leaves");
    terminal.send("\r");
    terminal.expect("$ ");
    terminal.send("\x1d");
    terminal.expect("same");
    assert_eq!(terminal.code(), 0);
}

#[test]
fn console_says_when_its_compartment_ended() {
    let world = World::new(here!(), "");
    let mut terminal = Terminal::start(world.casemate(["shell", world.name()]), 24, 80);
    terminal.expect("Ctrl-] leaves");
    terminal.send("\r");
    terminal.expect("$ ");
    world.casemate(["stop", world.name()]).done().ok();
    terminal.expect("has ended");
    assert_eq!(terminal.code(), 0);
}

#[test]
fn root_shell_is_a_session_of_root() {
    let world = world(here!());
    let mut terminal = Terminal::start(world.casemate(["shell", "--root", world.name()]), 24, 80);
    terminal.expect_within("# ", BOOT);
    terminal.send("id -un; exit 7\r");
    terminal.expect("root");
    assert_eq!(terminal.code(), 7);
}
