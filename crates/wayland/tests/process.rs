//! The program from outside: its command line, the descriptors it is given, what it may do.

mod common;

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use casemate_wayland::connector;
use casemate_wayland::socket::pair;
use command_fds::{CommandFdExt, FdMapping};
use common::client::Client;
use common::until;
use common::window::{BLUE, Bound, Window};

const PROGRAM: &str = env!("CARGO_BIN_EXE_casemate-wayland");

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it starts")
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let wrong = output(Command::new(PROGRAM).args(["--compartment", "a", "--color", "red"]));
    assert_eq!(wrong.status.code(), Some(2));
    let text = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(
        text,
        "casemate-wayland: error: --color cannot be `red`: six hexadecimal digits; \
         `casemate-wayland --help` tells more\n"
    );
    let help = output(Command::new(PROGRAM).arg("--help"));
    assert!(help.status.success() && help.stdout.starts_with(b"Shows the windows"));
}

#[test]
fn no_compositor_is_said_with_the_name_of_the_variable() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(PROGRAM);
    command.args(["--compartment", "a", "--color", "112233", "--listen"]);
    command.arg(folder.path().join("socket")).env_clear();
    let failed = output(&mut command);
    assert_eq!(failed.status.code(), Some(1));
    let text = String::from_utf8_lossy(&failed.stderr);
    assert!(text.contains("WAYLAND_DISPLAY is not set"), "{text}");
    let failed = output(command.env("WAYLAND_DISPLAY", "wayland-1"));
    let text = String::from_utf8_lossy(&failed.stderr);
    assert!(text.contains("XDG_RUNTIME_DIR is not set"), "{text}");
}

#[test]
fn a_socket_that_somebody_serves_is_not_taken_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let _listener = UnixListener::bind(&path).expect("a listener");
    let mut command = Command::new(PROGRAM);
    command.args(["--compartment", "a", "--color", "112233", "--upstream", "/x", "--listen"]);
    let failed = output(command.arg(&path));
    assert_eq!(failed.status.code(), Some(1));
    let text = String::from_utf8_lossy(&failed.stderr);
    assert!(text.contains("could not listen on"), "{text}");
    // A file is never removed.
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    let mut command = Command::new(PROGRAM);
    command.args(["--compartment", "a", "--color", "112233", "--upstream", "/x", "--listen"]);
    assert_eq!(output(command.arg(&file)).status.code(), Some(1));
    assert_eq!(std::fs::read(&file).expect("still there"), b"x");
}

#[test]
fn a_supervisor_hands_everything_over_and_is_not_outlived() {
    let desktop = desktop!();
    let path = desktop.path("handed");
    let listener = OwnedFd::from(UnixListener::bind(&path).expect("a listener"));
    let (connector_end, theirs) = pair().expect("a pair");
    let wayland = desktop.wayland();
    let answers = std::thread::spawn(move || connector::answer(connector_end, &wayland));
    let (broker, control) = UnixStream::pair().expect("a pair");
    let mut command = Command::new(PROGRAM);
    command
        .args(["--compartment", "work", "--color", "cc2222", "--listen-fd", "3"])
        .args(["--upstream-fd", "4", "--control-fd", "5"])
        .env_clear()
        .fd_mappings(vec![
            FdMapping { parent_fd: listener, child_fd: 3 },
            FdMapping { parent_fd: theirs, child_fd: 4 },
            FdMapping { parent_fd: control.into(), child_fd: 5 },
        ])
        .expect("no number twice");
    let mut child = command.spawn().expect("it starts");
    drop(command);
    let mut client = Client::connect(&path);
    let bound = Bound::new(&mut client);
    Window::show(&mut client, bound, (100, 100), BLUE.0);
    assert_eq!(desktop.windows(), [("[work] test".into(), "casemate.work.test".into())]);
    drop(broker);
    let status = until("it ends with its supervisor", || child.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    client.until_disconnected();
    answers.join().expect("no panic").expect("it ended with the program");
}

#[test]
fn what_is_not_allowed_kills_the_process() {
    let program = Path::new(PROGRAM).parent().expect("a folder").join("examples/confined");
    let run = |role: &str, what: &str| output(Command::new(&program).args([role, what])).status;
    for role in ["server", "connector"] {
        assert_eq!(run(role, "nothing").code(), Some(7), "{role}");
        for what in ["open", "network", "exec", "threads"] {
            assert_eq!(run(role, what).signal(), Some(libc::SIGSYS), "{role}: {what}");
        }
    }
    assert_eq!(run("server", "socket").signal(), Some(libc::SIGSYS));
    // What it is for.
    assert_eq!(run("connector", "socket").code(), Some(7));
}
