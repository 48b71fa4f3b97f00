//! `casemate-wayland`: see the library. `--help` prints the command line.

use std::alloc::System;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;

use cap::Cap;
use casemate_wayland::arguments::{self, Arguments, HELP, Place};
use casemate_wayland::control::Control;
use casemate_wayland::label::Label;
use casemate_wayland::server::{Descriptors, Server, unblock};
use casemate_wayland::settings::Settings;
use casemate_wayland::{confine, connector};

/// Counts what is allocated, for the limits of clients.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        let _ = io::stdout().write_all(HELP.as_bytes());
        return ExitCode::SUCCESS;
    }
    if let [first, upstream] = &words[..]
        && first == connector::ANSWER
    {
        return done(answer(Path::new(upstream)));
    }
    match arguments::read(words) {
        Ok(arguments) => done(serve(&arguments)),
        Err(error) => {
            log(&format!("error: {error}; `casemate-wayland --help` tells more"));
            ExitCode::from(2)
        }
    }
}

fn done(result: Result<(), Failure>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    log(&format!("error: {error}"));
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        log(&format!("  {error}"));
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// Why it could not begin, or ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("could not listen on {path}")]
    Listen { path: String, source: io::Error },
    #[error("could not find the compositor: {0}")]
    Upstream(&'static str),
    #[error("could not start what connects to the compositor")]
    Start(#[source] io::Error),
    #[error("could not use an inherited descriptor")]
    Inherited(#[source] io::Error),
    #[error("could not confine this process")]
    Confine(#[from] confine::ConfineError),
    #[error("could not go on serving")]
    Serve(#[source] io::Error),
}

fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let listener = socket(&arguments.listen)?;
    unblock(&listener).map_err(Failure::Inherited)?;
    let control = match &arguments.control {
        None => Control::default(),
        Some(Place::Fd(fd)) => Control::connected(inherited(*fd)),
        Some(place) => {
            let listener = socket(place)?;
            unblock(&listener).map_err(Failure::Inherited)?;
            Control::listening(listener)
        }
    };
    // Kept until the end, which is its end too.
    let (connector, _child) = match &arguments.upstream {
        Some(Place::Fd(fd) | Place::Listener(fd)) => (inherited(*fd), None),
        Some(Place::Path(path)) => start(path)?,
        None => {
            let display = std::env::var_os("WAYLAND_DISPLAY").filter(|it| !it.is_empty());
            let display = display.ok_or(Failure::Upstream(
                "WAYLAND_DISPLAY is not set, and --upstream is not given",
            ))?;
            start(Path::new(&display))?
        }
    };
    let settings = Settings {
        name: arguments.compartment.clone(),
        color: arguments.color,
        label: Label::draw(&arguments.label, arguments.color),
        allow_fullscreen: arguments.allow_fullscreen,
        allow_activation: arguments.allow_activation,
        allow_constraints: arguments.allow_constraints,
    };
    let heap = || HEAP.allocated();
    let mut server = Server::new(settings, Descriptors { listener, connector }, control, log, heap);
    confine::server()?;
    server.run().map_err(Failure::Serve)
}

/// Connects to the compositor when asked on standard input.
fn answer(upstream: &Path) -> Result<(), Failure> {
    confine::connector()?;
    connector::answer(io::stdin(), upstream).map_err(Failure::Serve)
}

fn start(upstream: &Path) -> Result<(OwnedFd, Option<std::process::Child>), Failure> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR");
    let place = connector::place(upstream, runtime.as_deref().map(Path::new));
    let place = place.ok_or(Failure::Upstream("XDG_RUNTIME_DIR is not set"))?;
    let (socket, child) = connector::start(&place).map_err(Failure::Start)?;
    Ok((socket, Some(child)))
}

/// A listening socket, made or inherited. One that is made is the user's alone.
fn socket(place: &Place) -> Result<OwnedFd, Failure> {
    let path = match place {
        Place::Fd(fd) | Place::Listener(fd) => return Ok(inherited(*fd)),
        Place::Path(path) => path,
    };
    let failed = |source| Failure::Listen { path: path.display().to_string(), source };
    // The socket of a proxy that is gone, and only that.
    let old = path.symlink_metadata().is_ok_and(|it| it.file_type().is_socket());
    if old && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(failed)?;
    }
    // No other user connects in between: the mask is set before the socket is there.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener.into())
}

fn log(line: &str) {
    // Standard error may be a log on a full disk.
    let _ = writeln!(io::stderr(), "casemate-wayland: {line}");
}

#[expect(unsafe_code, reason = "descriptors are inherited as plain numbers")]
fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: whoever starts this program names descriptors that it hands over, each once; they are
    // taken before any other is opened here, and 0 to 2 are refused. A missing one fails at its
    // first use with EBADF.
    unsafe { OwnedFd::from_raw_fd(number) }
}
