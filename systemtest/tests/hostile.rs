//! A guest that has been taken over: whatever its agent does, the compartment ends (or goes on) in
//! a bounded time with a plain message, no control sequence of it reaches the user, the host's
//! processes stay small, and other compartments do not notice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use systemtest::{BOOT, Done, SHORT, World, here, skip, soak, until};

/// A well-behaved compartment beside the hostile ones.
static NEIGHBOUR: OnceLock<World> = OnceLock::new();

/// Most memory that link and supervisor may ever have, in KiB.
const MEMORY_LIMIT: u64 = 64 * 1024;

/// Beyond a boot: for a hostile guest to be found out.
const LIMIT: Duration = Duration::from_secs(60);

/// A compartment with a hostile agent that plays `mode`; none when there is no such agent, which
/// is said.
fn hostile(test: &'static str, mode: &str) -> Option<World> {
    let world = World::new(test, "");
    let initramfs = match systemtest::hostile::initramfs(&world, &world.path(".")) {
        Ok(path) => path,
        Err(reason) => {
            skip(test, &format!("no hostile agent: {reason}"));
            return None;
        }
    };
    world.configure(&format!(
        "[compartment.{}]\nmemory = 256\ncpus = 1\ndisposable = true\nidle-timeout = 600\n\
         initramfs = \"{}\"\nkernel-params = [\"hostile={mode}\"]\n",
        world.name(),
        initramfs.display(),
    ));
    Some(world)
}

/// Watches how large link and supervisor of a compartment become.
struct Watch {
    ended: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn new(name: &str) -> Self {
        let (ended, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, highest, name) = (ended.clone(), peak.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for process in systemtest::processes::of_compartment(&name) {
                    let ours = process.name.starts_with("casemate-link")
                        || process.name.starts_with("casemate-super");
                    if let Some(memory) = process.peak_memory().filter(|_| ours) {
                        highest.fetch_max(memory, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        });
        Self { ended, peak, thread: Some(thread) }
    }

    #[track_caller]
    fn assert_small(mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
        let peak = self.peak.load(Ordering::Relaxed);
        assert!(peak > 0, "nothing was measured");
        assert!(peak < MEMORY_LIMIT, "the host's processes grew to {peak} KiB");
    }
}

/// No byte a terminal would obey, nor a character that turns the text around.
#[track_caller]
fn assert_harmless(done: &Done) {
    for bytes in [&done.stdout, &done.stderr] {
        let text = String::from_utf8_lossy(bytes);
        let bad = text.chars().find(|&c| {
            (c.is_control() && c != '\n' && c != '\t')
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}')
        });
        assert!(bad.is_none(), "{bad:?} in {done}");
    }
}

/// Everything that casemate shows of a compartment is harmless.
#[track_caller]
fn assert_all_harmless(world: &World) {
    let name = world.name();
    let commands: [&[&str]; 6] = [
        &["status", name],
        &["status", name, "--json"],
        &["list"],
        &["logs", name],
        &["logs", "--console", name],
        &["logs", "--console", "--json", name],
    ];
    for command in commands {
        assert_harmless(&world.casemate(command).done());
    }
}

/// Another compartment works.
#[track_caller]
fn assert_neighbour_works(test: &'static str) {
    let neighbour = World::shared(test, &NEIGHBOUR, "");
    let begin = std::time::Instant::now();
    neighbour.run(["echo", "fine"]).done().ok();
    drop(neighbour);
    assert!(begin.elapsed() < BOOT);
}

/// Runs a command in a guest that must be found out: code 125, a message with this text, nothing
/// left, nothing harmful shown, and the next command on another compartment works.
#[track_caller]
fn is_found_out(test: &'static str, mode: &str, message: &str) {
    let Some(world) = hostile(test, mode) else { return };
    let watch = Watch::new(world.name());
    let done = world.run(["true"]).within(LIMIT).done();
    watch.assert_small();
    assert_harmless(&done);
    let done = done.exits(125).says("error:").says(message);
    world.assert_gone(world.name());
    let status = world.status(world.name());
    assert_eq!(status["state"], "failed", "{done}\n{status}");
    assert_all_harmless(&world);
    assert_neighbour_works(test);
}

#[test]
fn agent_of_another_version_is_refused() {
    is_found_out(here!(), "other-version", "speaks version 999 of the protocol");
}

#[test]
fn frame_of_an_unknown_kind_ends_the_compartment() {
    is_found_out(here!(), "unknown-kind", "kind 200 does not exist");
}

#[test]
fn frame_that_claims_to_be_huge_ends_the_compartment() {
    is_found_out(here!(), "too-long", "the limit is 65536");
}

#[test]
fn data_for_a_stream_nobody_opened_ends_the_compartment() {
    is_found_out(here!(), "unknown-stream", "stream 77 does not exist");
}

#[test]
fn session_data_before_hello_ends_the_compartment() {
    is_found_out(here!(), "early-data", "before its Hello");
}

#[test]
fn first_message_that_is_not_hello_ends_the_compartment() {
    is_found_out(here!(), "no-hello", "its first message was not Hello");
}

#[test]
fn more_credit_than_there_is_ends_the_compartment() {
    is_found_out(here!(), "credit-overflow", "credit");
}

#[test]
fn output_beyond_the_credit_ends_the_compartment() {
    let test = here!();
    let Some(world) = hostile(test, "overrun") else { return };
    let watch = Watch::new(world.name());
    // The reader stalls, so no credit comes back.
    let program = systemtest::programs::program("casemate");
    let line = format!(
        "'{}' --config '{}' run {} -- true | sleep 1000",
        program.display(),
        world.config().display(),
        world.name(),
    );
    let call = world.host_shell(&line).start();
    until("the end of the compartment", LIMIT, || {
        (world.status(world.name())["state"] == "failed").then_some(())
    });
    drop(call);
    watch.assert_small();
    let status = world.status(world.name()).to_string();
    assert!(status.contains("more than it was allowed"), "{status}");
    world.assert_gone(world.name());
    assert_neighbour_works(test);
}

#[test]
fn frame_for_the_other_direction_ends_the_compartment() {
    is_found_out(here!(), "wrong-direction", "does not come from a guest");
}

#[test]
fn flood_of_log_messages_ends_the_compartment() {
    is_found_out(here!(), "log-flood", "floods the host");
}

#[test]
fn flood_of_hellos_ends_the_compartment() {
    is_found_out(here!(), "hello-flood", "");
}

#[test]
fn message_without_an_end_ends_the_compartment() {
    is_found_out(here!(), "endless-parts", "longer than");
}

#[test]
fn empty_pieces_of_a_message_for_ever_end_the_compartment() {
    is_found_out(here!(), "empty-parts", "floods the host");
}

#[test]
fn exit_status_that_is_none_ends_the_compartment() {
    is_found_out(here!(), "bad-exit", "broke the protocol");
}

#[test]
fn guest_that_resets_at_once_is_told() {
    is_found_out(here!(), "reset", "stopped without shutting down");
}

#[test]
fn guest_that_powers_off_at_once_is_told() {
    is_found_out(here!(), "poweroff", "powered off without its agent");
}

#[test]
fn words_of_a_guest_that_cannot_be_set_up_are_harmless() {
    is_found_out(here!(), "boot-failed", "no disk \\u{1b}]0;owned");
}

#[test]
fn second_exit_of_a_session_does_no_harm() {
    let test = here!();
    let Some(world) = hostile(test, "exit-twice") else { return };
    let done = world.run(["true"]).within(LIMIT).done();
    // The first was in order; the second may come before its client has taken the first.
    assert!(matches!(done.code, Some(3 | 125)), "{done}");
    world.await_state("failed");
    world.stop_force().ok();
    world.assert_gone(world.name());
    assert_neighbour_works(test);
}

#[test]
fn escape_sequences_in_everything_an_agent_says_are_made_harmless() {
    let test = here!();
    let Some(world) = hostile(test, "escapes") else { return };
    let watch = Watch::new(world.name());
    let done = world.casemate(["-v", "run", world.name(), "--", "true"]).within(LIMIT).done();
    assert_harmless(&done);
    if done.code == Some(0) {
        let status = world.casemate(["status", world.name()]).done().ok();
        assert_harmless(&status);
        assert!(status.stdout.len() < 20_000, "{} bytes of status", status.stdout.len());
    }
    assert_all_harmless(&world);
    world.stop_force().ok();
    watch.assert_small();
    world.assert_gone(world.name());
    assert_neighbour_works(test);
}

#[test]
fn escape_sequences_on_the_console_are_made_harmless() {
    let Some(world) = hostile(here!(), "console") else { return };
    let done = world.casemate(["-v", "run", world.name(), "--", "true"]).within(LIMIT).done().ok();
    assert_harmless(&done);
    let log = until("the line in the log", SHORT, || {
        let log = world.casemate(["logs", "--console", world.name()]).done().ok();
        log.text().contains("owned").then_some(log)
    });
    assert_harmless(&log);
    assert_all_harmless(&world);
}

#[test]
fn escape_sequences_in_an_exit_status_are_made_harmless() {
    let Some(world) = hostile(here!(), "exit-escapes") else { return };
    let done = world.run(["true"]).within(LIMIT).done().exits(127);
    assert_harmless(&done);
    assert!(done.stderr.len() < 10_000, "{} bytes", done.stderr.len());
}

/// Ready comes from the guest, so it may lie; it gains nothing.
#[test]
fn ready_before_boot_does_no_harm() {
    let test = here!();
    let Some(world) = hostile(test, "ready-without-boot") else { return };
    let done = world.run(["true"]).within(LIMIT).done();
    assert!(matches!(done.code, Some(0 | 125)), "{done}");
    world.stop_force().ok();
    world.assert_gone(world.name());
    assert_neighbour_works(test);
}

/// A command may take for ever; its user can end it, and the compartment.
#[test]
fn session_that_is_never_answered_ends_with_its_client_or_compartment() {
    let test = here!();
    let Some(world) = hostile(test, "no-answer") else { return };
    let first = world.run(["true"]).start();
    world.await_state("running");
    let second = world.run(["true"]).start();
    until("both sessions", SHORT, || {
        let status = world.status(world.name());
        (status["sessions"].as_array().map(Vec::len) == Some(2)).then_some(())
    });
    // Ctrl-C.
    first.signal(Signal::SIGINT);
    first.within(SHORT).done();
    // It does not obey the order to shut down either: the host's patience is 15 s.
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    second.within(SHORT).done().exits(125).says("error:");
    world.assert_gone(world.name());
    assert_neighbour_works(test);
}

#[test]
fn session_that_never_exits_ends_with_its_compartment() {
    let test = here!();
    let Some(world) = hostile(test, "no-exit") else { return };
    let call = world.run(["true"]).start();
    world.await_state("running");
    world.stop_force().ok();
    call.within(SHORT).done().exits(125).says("error:");
    world.assert_gone(world.name());
}

#[test]
fn shutdown_that_never_comes_is_ended_by_stop() {
    let Some(world) = hostile(here!(), "shutting-down") else { return };
    world.start();
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    world.assert_gone(world.name());
}

#[test]
fn port_opened_again_and_again_leaves_the_host_small() {
    let test = here!();
    let Some(world) = hostile(test, "new-greetings") else { return };
    let watch = Watch::new(world.name());
    let call = world.run(["true"]).start();
    until("its processes", SHORT, || (!world.crew(world.name()).is_empty()).then_some(()));
    assert_neighbour_works(test);
    world.stop_force().ok();
    watch.assert_small();
    call.within(SHORT).done();
    world.assert_gone(world.name());
}

#[test]
fn garbage_without_end_harms_nobody_and_can_be_stopped() {
    let test = here!();
    let Some(world) = hostile(test, "garbage") else { return };
    let watch = Watch::new(world.name());
    let call = world.run(["true"]).start();
    until("its processes", SHORT, || (!world.crew(world.name()).is_empty()).then_some(()));
    for _ in 0..3 {
        assert_neighbour_works(test);
    }
    world.casemate(["status", world.name()]).within(SHORT).done().ok();
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    watch.assert_small();
    let done = call.within(SHORT).done().exits(125);
    assert_harmless(&done);
    world.assert_gone(world.name());
}

#[test]
fn guest_that_never_says_hello_is_given_up_after_the_boot_deadline() {
    if !soak() {
        return skip(here!(), "takes the boot deadline of 2 min twice; CASEMATE_SOAK=1 runs it");
    }
    for mode in ["silent", "garbage"] {
        let Some(world) = hostile(here!(), mode) else { return };
        let done = world.run(["true"]).within(2 * BOOT).done().exits(125);
        assert!(done.error().contains("did not say Hello within"), "{done}");
        world.assert_gone(world.name());
    }
}
