//! Sessions with a terminal: programs that paint it, job control, its size and settings.

use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use systemtest::{SHORT, Shared, Terminal, World, here, until};

static WORLD: OnceLock<World> = OnceLock::new();

fn world(test: &'static str) -> Shared {
    let world = World::shared(test, &WORLD, "");
    world.start();
    world
}

/// A shell in the compartment, its prompt awaited.
fn shell(world: &World) -> Terminal {
    let call = world.run_with(["--env", "PS1=ready> "], ["bash", "--norc", "--noprofile", "-i"]);
    let mut terminal = Terminal::start(call, 30, 100);
    terminal.expect("ready> ");
    terminal
}

#[test]
fn command_has_a_terminal_when_there_is_one() {
    let world = world(here!());
    let mut terminal =
        Terminal::start(world.run(["sh", "-c", "tty; stty size; echo $TERM"]), 33, 99);
    terminal.expect("/dev/pts/");
    terminal.expect("33 99");
    terminal.expect("xterm");
    assert_eq!(terminal.code(), 0);
}

#[test]
fn command_has_no_terminal_when_there_is_none_or_none_is_wanted() {
    let world = world(here!());
    let done = world.run(["tty"]).done().exits(1);
    assert_eq!(done.text(), "not a tty");
    let call = world.run_with(["--no-tty"], ["sh", "-c", "tty; echo err >&2"]);
    let mut terminal = Terminal::start(call, 24, 80);
    terminal.expect("not a tty");
    terminal.expect("err");
    assert_eq!(terminal.code(), 0);
    let mut terminal = Terminal::start(world.run_with(["-T"], ["test", "-t", "1"]), 24, 80);
    assert_eq!(terminal.code(), 1);
}

#[test]
fn terminal_can_be_asked_for_without_having_one() {
    let world = world(here!());
    let done = world.run_with(["--tty"], ["sh", "-c", "tty; echo err >&2"]).done().ok();
    assert!(done.text().starts_with("/dev/pts/"), "{done}");
    // A terminal is one stream.
    assert!(done.text().contains("err"), "{done}");
}

#[test]
fn login_shell_is_run_when_no_command_is_given() {
    let world = world(here!());
    let mut terminal = Terminal::start(world.casemate(["run", world.name()]), 24, 80);
    terminal.expect("$ ");
    terminal.send("echo $0 $((40 + 2)); exit 5\r");
    terminal.expect("bash 42");
    assert_eq!(terminal.code(), 5);
}

#[test]
fn size_follows_the_window() {
    let world = world(here!());
    let line = "trap 'stty size; exit 0' WINCH; stty size; echo ready; while :; do sleep 0.1; done";
    let mut terminal = Terminal::start(world.run(["bash", "-c", line]), 24, 80);
    terminal.expect("24 80");
    terminal.expect("ready");
    terminal.resize(50, 132);
    terminal.expect("50 132");
    assert_eq!(terminal.code(), 0);
}

#[test]
fn control_c_interrupts_the_command() {
    let world = world(here!());
    let mut terminal =
        Terminal::start(world.run(["sh", "-c", "echo ready; exec sleep 100"]), 24, 80);
    terminal.expect("ready");
    terminal.send("\x03");
    assert_eq!(terminal.code(), 130);
    // A command that takes it is not ended by it.
    let line = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.1; done";
    let mut terminal = Terminal::start(world.run(["bash", "-c", line]), 24, 80);
    terminal.expect("ready");
    terminal.send("\x03");
    terminal.expect("caught");
    assert_eq!(terminal.code(), 3);
}

#[test]
fn jobs_are_stopped_and_brought_back() {
    let world = world(here!());
    let mut shell = shell(&world);
    shell.send("sleep 300\r");
    until("the command's start", SHORT, || {
        (world.run(["pgrep", "-x", "sleep"]).done().code == Some(0)).then_some(())
    });
    shell.send("\x1a");
    shell.expect("Stopped");
    shell.expect("ready> ");
    shell.send("jobs\r");
    shell.expect("Stopped");
    shell.expect("sleep 300");
    shell.expect("ready> ");
    shell.send("fg\r");
    shell.expect("sleep 300");
    // The shell says so before it gives the terminal away; `+` marks who has it, ps(1).
    until("the command in the foreground", SHORT, || {
        world.run(["ps", "-o", "stat=", "-C", "sleep"]).done().text().contains('+').then_some(())
    });
    shell.send("\x03");
    shell.expect("ready> ");
    shell.send("echo code $?\r");
    shell.expect("code 130");
    shell.send("exit\r");
    shell.code();
}

#[test]
fn end_of_file_key_ends_the_shell() {
    let world = world(here!());
    let mut shell = shell(&world);
    shell.send("\x04");
    assert_eq!(shell.code(), 0);
}

#[test]
fn vim_edits_a_file() {
    let world = world(here!());
    let file = "/tmp/edited-by-vim";
    let mut vim = Terminal::start(world.run(["vim", "-u", "NONE", "-i", "NONE", file]), 24, 80);
    vim.expect("edited-by-vim");
    vim.send("iwritten in vim");
    vim.expect("written in vim");
    vim.send("\x1b");
    vim.send(":wq\r");
    assert_eq!(vim.code(), 0);
    assert_eq!(world.run(["cat", file]).done().ok().text(), "written in vim");
}

#[test]
fn top_shows_itself_and_quits() {
    let world = world(here!());
    let mut top = Terminal::start(world.run(["top", "-d", "1"]), 24, 80);
    top.expect("load average");
    top.expect("PID");
    top.expect("load average");
    top.send("q");
    assert_eq!(top.code(), 0);
}

#[test]
fn control_characters_pass_unchanged_in_raw_mode() {
    let world = world(here!());
    let line = "stty raw -echo; echo ready; head -c 6 | od -An -tx1; stty sane";
    let mut terminal = Terminal::start(world.run(["sh", "-c", line]), 24, 80);
    terminal.expect("ready");
    terminal.send("\x03\x1a\x04\x1d\x11\x13");
    terminal.expect("03 1a 04 1d 11 13");
    assert_eq!(terminal.code(), 0);
}

#[test]
fn much_output_arrives_whole_in_a_terminal() {
    let world = world(here!());
    let mut terminal = Terminal::start(world.run(["seq", "1", "100000"]), 24, 80);
    assert_eq!(terminal.code(), 0);
    terminal.expect("\r\n99999\r\n100000\r\n");
    assert_eq!(
        terminal.shown().lines().filter(|line| line.parse::<u32>().is_ok()).count(),
        100_000
    );
}

#[test]
fn settings_are_restored_after_the_command() {
    let world = world(here!());
    let before = {
        // The same pseudo terminal cannot be asked before the call; a fresh one is set the same.
        let terminal = Terminal::start(systemtest::Call::new("true"), 24, 80);
        terminal.settings()
    };
    let mut terminal =
        Terminal::start(world.run(["sh", "-c", "echo ready; read x; exit 9"]), 24, 80);
    terminal.expect("ready");
    assert_ne!(terminal.settings().local_flags, before.local_flags, "raw while it runs");
    terminal.send("\r");
    assert_eq!(terminal.code(), 9);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn settings_are_restored_when_the_compartment_ends_below() {
    let world = World::new(here!(), "");
    world.start();
    let before = Terminal::start(systemtest::Call::new("true"), 24, 80).settings();
    let mut terminal = Terminal::start(world.run(["sh", "-c", "echo ready; sleep 1000"]), 24, 80);
    terminal.expect("ready");
    let vmm = world.member("qemu");
    kill(nix::unistd::Pid::from_raw(vmm.pid), Signal::SIGKILL).expect("killed");
    assert_eq!(terminal.code(), 125);
    assert_eq!(terminal.settings(), before);
    assert!(terminal.showed("error:"), "{}", terminal.shown());
}

/// kill(1) without -9 gives the client the chance to restore them: the signal goes to the command,
/// and its end ends the client.
#[test]
fn settings_are_restored_when_the_client_is_terminated() {
    let world = world(here!());
    let before = Terminal::start(systemtest::Call::new("true"), 24, 80).settings();
    let mut terminal =
        Terminal::start(world.run(["sh", "-c", "echo ready; exec sleep 1000"]), 24, 80);
    terminal.expect("ready");
    kill(terminal.pid(), Signal::SIGTERM).expect("signalled");
    assert_eq!(terminal.code(), 128 + 15);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn closed_terminal_hangs_the_command_up() {
    let world = world(here!());
    let mut terminal =
        Terminal::start(world.run(["sh", "-c", "echo ready; exec sleep 8642"]), 24, 80);
    terminal.expect("ready");
    drop(terminal);
    until("the end of the command in the guest", SHORT, || {
        (world.run(["pgrep", "-f", "^sleep 8642"]).done().code == Some(1)).then_some(())
    });
}
