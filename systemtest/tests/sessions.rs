//! Many sessions side by side, detached ones, signals, and what becomes of a command whose client
//! is gone.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use systemtest::{SHORT, Shared, Terminal, World, here, until};

static WORLD: OnceLock<World> = OnceLock::new();

fn world(test: &'static str) -> Shared {
    let world = World::shared(test, &WORLD, "memory = 512");
    world.start();
    world
}

/// Waits until no process of the guest has this command line.
#[track_caller]
fn ends_in_guest(world: &World, command: &str) {
    until(&format!("the end of `{command}` in the guest"), SHORT, || {
        (world.run(["pgrep", "-f", &format!("^{command}")]).done().code == Some(1)).then_some(())
    });
}

#[track_caller]
fn runs_in_guest(world: &World, command: &str) {
    world.run(["pgrep", "-f", &format!("^{command}")]).done().ok();
}

#[test]
fn sixty_four_sessions_run_at_once() {
    let world = world(here!());
    let mut calls: Vec<_> = (0..64)
        .map(|number| {
            world
                .run(["sh", "-c", &format!("echo ready; cat; echo {number} >&2")])
                .hold_input()
                .start()
        })
        .collect();
    for call in &calls {
        call.expect("ready");
    }
    let sessions = world.status(world.name())["sessions"].as_array().map(Vec::len);
    assert!(sessions >= Some(64), "{sessions:?}");
    for (number, call) in calls.iter_mut().enumerate() {
        call.give(format!("input {number}\n").as_bytes());
    }
    for (number, mut call) in calls.into_iter().enumerate() {
        call.expect(&format!("input {number}\n"));
        call.close_input();
        let done = call.done().ok();
        assert_eq!(done.text(), format!("ready\ninput {number}"));
        assert!(done.error().ends_with(&format!("{number}\n")), "{done}");
    }
}

#[test]
fn one_session_more_than_allowed_is_refused_with_a_word() {
    let world = World::new(here!(), "memory = 512");
    world.start();
    let numbers: Vec<_> =
        (0..256).map(|_| world.run_with(["--detach"], ["sleep", "1000"]).start()).collect();
    for call in numbers {
        call.done().ok();
    }
    world.run(["true"]).done().exits(125).says("as many sessions").says("hint:");
    world.stop_force().ok();
    world.assert_gone(world.name());
}

#[test]
fn reader_that_stalls_holds_up_nobody_else() {
    let world = world(here!());
    // Its output is never read: the pipe is full at once.
    let program = systemtest::programs::program("casemate");
    let line = format!(
        "exec '{}' --config '{}' run {} -- sh -c 'exec yes stalled-flood' | sleep 1000",
        program.display(),
        world.config().display(),
        world.name(),
    );
    let stalled = world.host_shell(&line).start();
    until("the flood", SHORT, || {
        (world.run(["pgrep", "-f", "^yes stalled-flood"]).done().code == Some(0)).then_some(())
    });
    for _ in 0..20 {
        let begin = Instant::now();
        world.run(["true"]).done().ok();
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    // Nor does it hold up what others send.
    let done = world.run(["wc", "-c"]).input(vec![b'x'; 4_000_000]).done().ok();
    assert_eq!(done.text(), "4000000");
    drop(stalled);
    ends_in_guest(&world, "yes stalled-flood");
}

#[test]
fn stopped_client_goes_on_where_it_stopped() {
    let world = world(here!());
    let call = world.run(["seq", "1", "2000000"]).start();
    call.expect("1000\n");
    call.signal(Signal::SIGSTOP);
    world.run(["true"]).within(SHORT).done().ok();
    call.signal(Signal::SIGCONT);
    let done = call.done().ok();
    assert!(done.stdout.ends_with(b"\n1999999\n2000000\n"), "the end is missing");
    assert_eq!(done.stdout.iter().filter(|&&byte| byte == b'\n').count(), 2_000_000);
}

#[test]
fn command_that_reads_nothing_holds_up_nobody_else() {
    let world = world(here!());
    let call =
        world.run(["sh", "-c", "echo ready; sleep 3; wc -c"]).input(vec![b'y'; 3_000_000]).start();
    call.expect("ready");
    world.run(["true"]).within(SHORT).done().ok();
    assert!(call.done().ok().text().ends_with("3000000"));
}

#[test]
fn detached_command_goes_on_without_its_client_and_has_a_log() {
    let world = world(here!());
    let line = "echo out; echo err >&2; cat; echo $((20 + 22)); exec sleep 1357";
    let number = world.run_with(["--detach"], ["sh", "-c", line]).done().ok().text();
    let number: u64 = number.parse().expect("the number of the session");
    let log =
        || world.casemate(["logs", "--session", &number.to_string(), world.name()]).done().ok();
    until("its output in the log", SHORT, || log().text().contains("42").then_some(()));
    let text = log().text();
    assert!(text.contains("out") && text.contains("err"), "{text}");
    runs_in_guest(&world, "sleep 1357");
    let status = world.status(world.name());
    let session = status["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|session| session["session"] == number);
    assert_eq!(session.expect("it is there")["detached"], true);
    world.run(["pkill", "-f", "^sleep 1357"]).done().ok();
    until("the end of the session", SHORT, || {
        let status = world.status(world.name());
        let sessions = status["sessions"].as_array().expect("a list").clone();
        (!sessions.iter().any(|session| session["session"] == number)).then_some(())
    });
    // Its log stays.
    assert!(log().text().contains("42"));
}

#[test]
fn detached_command_that_cannot_be_run_is_told_at_once() {
    let world = world(here!());
    let done = world.run_with(["--detach"], ["no-such-program"]).done();
    assert_ne!(done.code, Some(0), "{done}");
    done.says("error:").says("no-such-program");
}

#[test]
fn detached_command_starts_the_compartment() {
    let world = World::new(here!(), "");
    world.run_with(["--detach"], ["sh", "-c", "echo x > /tmp/started; sleep 1000"]).done().ok();
    world.run(["test", "-e", "/tmp/started"]).done().ok();
}

#[test]
fn killed_client_ends_its_command() {
    let world = world(here!());
    let call = world.run(["sh", "-c", "echo ready; exec sleep 9753"]).start();
    call.expect("ready");
    runs_in_guest(&world, "sleep 9753");
    call.signal(Signal::SIGKILL);
    assert_eq!(call.done().signal, Some(9));
    ends_in_guest(&world, "sleep 9753");
}

#[test]
fn killed_client_ends_a_command_that_ignores_hang_ups() {
    let world = world(here!());
    let line = "trap '' HUP TERM INT PIPE; echo ready; exec sleep 9754";
    let call = world.run(["sh", "-c", line]).start();
    call.expect("ready");
    call.signal(Signal::SIGKILL);
    call.done();
    ends_in_guest(&world, "sleep 9754");
}

#[test]
fn killed_client_ends_what_its_command_started() {
    let world = world(here!());
    let call = world.run(["sh", "-c", "sleep 9755 & sleep 9756 & echo ready; wait"]).start();
    call.expect("ready");
    call.signal(Signal::SIGKILL);
    call.done();
    ends_in_guest(&world, "sleep 9755");
    ends_in_guest(&world, "sleep 9756");
}

#[test]
fn signals_reach_the_command() {
    let world = world(here!());
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGHUP, "HUP"),
    ] {
        let line = format!(
            "trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.1; done"
        );
        let call = world.run(["bash", "-c", &line]).start();
        call.expect("ready");
        call.signal(signal);
        let done = call.done().exits(7);
        assert_eq!(done.text(), format!("ready\ngot {name}"));
    }
}

#[test]
fn signal_that_the_command_does_not_take_ends_it() {
    let world = world(here!());
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGUSR1, 138)] {
        let call = world.run(["sh", "-c", "echo ready; exec sleep 1000"]).start();
        call.expect("ready");
        call.signal(signal);
        call.done().exits(code);
    }
}

#[test]
fn signal_overtakes_input_that_nobody_reads() {
    let world = world(here!());
    let line = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let call = world.run(["bash", "-c", line]).input(vec![0; 8_000_000]).start();
    call.expect("ready");
    call.signal(Signal::SIGTERM);
    call.done().exits(7);
}

#[test]
fn client_ended_while_the_machine_boots_runs_nothing() {
    let world = World::new(here!(), "");
    let call = world.run(["sh", "-c", "echo x > /tmp/ran"]).start();
    until("the supervisor", SHORT, || (!world.crew(world.name()).is_empty()).then_some(()));
    call.signal(Signal::SIGTERM);
    call.done();
    world.start();
    world.run(["test", "-e", "/tmp/ran"]).done().exits(1);
}

#[test]
fn background_process_that_holds_the_output_does_not_keep_the_client() {
    let world = world(here!());
    // As ssh does it, the exit of the command ends the session once its output is closed; sshd
    // waits for ever here, casemate must not.
    let call = world.run(["sh", "-c", "sleep 2468 & echo done"]).within(Duration::from_secs(60));
    assert_eq!(call.done().ok().text(), "done");
    world.run(["pkill", "-f", "^sleep 2468"]).done();
}

#[test]
fn sessions_with_and_without_terminal_run_side_by_side() {
    let world = world(here!());
    let mut terminal = Terminal::start(world.run(["cat"]), 24, 80);
    let mut plain = world.run(["cat"]).hold_input().start();
    plain.give(b"plain\n");
    plain.expect("plain");
    terminal.send("typed\r");
    // Once echoed, once from cat.
    terminal.expect("typed");
    terminal.expect("typed");
    terminal.send("\x04");
    assert_eq!(terminal.code(), 0);
    plain.close_input();
    assert_eq!(plain.done().ok().text(), "plain");
}
