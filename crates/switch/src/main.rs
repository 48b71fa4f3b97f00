//! `casemate-switch`: see the library. One process for each network.

use std::error::Error;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;

use casemate_switch::arguments::{ArgumentError, Arguments, HELP, Level, Socket};
use casemate_switch::switch::{Event, Settings, Switch};
use casemate_switch::{confine, descriptor, listen};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Lines about ports in the log: some megabytes. Guests cause them, and a log has to end somewhere.
const LINES: u32 = 20_000;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(ArgumentError::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\nhint: casemate-switch --help");
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {error}"));
            let mut cause = error.source();
            while let Some(error) = cause {
                say(format_args!("  {error}"));
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut said = 0_u32;
    let name = arguments.name.map_or_else(String::new, |name| format!("{name}: "));
    let mut switch = Switch::new(arguments.behaviour)?;
    let mut paths = Vec::new();
    for port in arguments.ports {
        let listener = listen::for_front_ends(&port.socket)?;
        if let Socket::Path(path) = port.socket {
            paths.push(path);
        }
        switch.add_port(Settings::new(port.name, port.binding, listener))?;
    }
    if let Some(socket) = arguments.control {
        switch.set_control(listen::for_supervisors(&socket)?)?;
        if let Socket::Path(path) = socket {
            paths.push(path);
        }
    }
    confine::confine(&paths)?;
    if let Some(number) = arguments.ready {
        std::fs::File::from(descriptor::inherited(number)).write_all(b"ready\n")?;
    }
    let result = switch.run(|event: &Event| {
        let level = if event.is_warning() { Level::Warn } else { Level::Info };
        if level <= arguments.level {
            said += 1;
            match said {
                ..LINES => say(format_args!("{name}{event}")),
                LINES => say(format_args!("it has said enough; the rest is not logged")),
                _ => {}
            }
        }
    });
    for path in &paths {
        let _ = std::fs::remove_file(path);
    }
    Ok(result?)
}

/// Writes a line to the log, which may be on a full disk, or a pipe that nobody reads: then the line
/// is lost, as waiting for its reader would stop the network.
fn say(line: std::fmt::Arguments<'_>) {
    let log = std::io::stderr();
    let mut descriptors = [PollFd::new(log.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut descriptors, PollTimeout::ZERO) == Ok(0) {
        return;
    }
    let line = format!("casemate-switch: {line}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
