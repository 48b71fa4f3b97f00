//! `casemate`: runs applications and services in isolated compartments.
//!
//! Parses the command line, hands each command to its module, prints what fails. It keeps nothing:
//! a running compartment belongs to its supervisor ([`casemate_supervise`]).

#[macro_use]
mod output;

mod arguments;
mod audit;
mod call;
mod clipboard;
mod confine;
mod connect;
mod console;
mod desk;
mod doctor;
mod failed_units;
mod failure;
mod files;
mod image;
mod lifecycle;
mod logs;
mod manual;
mod menu;
mod net;
mod passphrase;
mod policy;
mod progress;
mod run;
mod running;
mod secret;
mod session;
mod show;
mod snapshot;
mod terminal;
mod units;
mod verify;
mod volume;

use std::process::ExitCode;

use casemate_supervise::prepare::World;
use clap::{CommandFactory, Parser};

use arguments::{Arguments, Command};
use failure::Problem;

fn main() -> ExitCode {
    let words = arguments::expand(std::env::args_os().collect());
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && arguments::are_of_run(&words) => {
            // A closed standard error is no reason for another code.
            let _ = error.print();
            return ExitCode::from(run::OWN_FAILURE);
        }
        Err(error) => error.exit(),
    };
    match dispatch(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            eprint!("{problem}");
            // They have the exit codes 1 to 124 for what they run.
            let of_run = matches!(arguments.command, Command::Run(_) | Command::Call(_));
            ExitCode::from(if of_run { run::OWN_FAILURE } else { problem.code })
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<u8, Problem> {
    let verbose = arguments.verbose;
    let world = match &arguments.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "casemate", &mut script);
            out!("{}", String::from_utf8_lossy(&script));
            return Ok(0);
        }
        Command::Man { directory } => return manual::write(directory),
        Command::Take(arguments) => return Ok(files::take::take(arguments)),
        Command::Policy(command) if policy::needs_no_configuration(command) => {
            return policy::of_files(command);
        }
        Command::Check(check) => {
            if let Some(done) = show::describe_configuration(check) {
                return done;
            }
            World::load(arguments.config.as_deref())?
        }
        _ => World::load(arguments.config.as_deref())?,
    };
    match &arguments.command {
        Command::Run(run) => run::run(&world, run, verbose),
        Command::Start(start) => lifecycle::start(&world, start, verbose),
        Command::Stop(stop) => lifecycle::stop(&world, stop),
        Command::Restart(names) => lifecycle::restart(&world, &names.names, verbose),
        Command::Pause(name) => lifecycle::execute(&world, &name.name, false),
        Command::Resume(name) => lifecycle::execute(&world, &name.name, true),
        Command::List(form) => show::list(&world, *form),
        Command::Status(arguments) => show::status(&world, arguments),
        Command::Shell(arguments) => console::shell(&world, arguments, verbose),
        Command::Logs(arguments) => logs::logs(&world, arguments),
        Command::Plan(arguments) => show::plan(&world, arguments),
        Command::Check(arguments) => show::check(&world, arguments),
        Command::Doctor(arguments) => doctor::doctor(&world, arguments),
        Command::Image(command) => image::image(&world, command),
        Command::Volume(command) => volume::volume(&world, command),
        Command::Secret(command) => secret::secret(&world, command),
        Command::Snapshot(command) => snapshot::snapshot(&world, command),
        Command::Policy(command) => policy::policy(&world, command),
        Command::Call(arguments) => call::call(&world, arguments, verbose),
        Command::Audit(command) => audit::audit(&world, command),
        Command::Ask => call::ask::answer_here(&world),
        Command::Broker(arguments) => call::broker(&world, arguments),
        Command::Clipboard(command) => clipboard::clipboard(&world, command),
        Command::Net(command) => net::net(&world, command),
        Command::Verify(arguments) => verify::verify(&world, arguments),
        Command::Units(arguments) => units::units(&world, arguments.output.as_deref()),
        Command::Copy(arguments) => files::copy(&world, arguments, false, verbose),
        Command::Move(arguments) => files::copy(&world, arguments, true, verbose),
        Command::Open(arguments) => files::open::open(&world, arguments, verbose),
        Command::Menu(command) => menu::menu(&world, command, verbose),
        Command::Completions { .. } | Command::Man { .. } | Command::Take(_) => Ok(0),
    }
}

/// The event loop that talks to supervisors.
fn event_loop() -> Result<tokio::runtime::Runtime, Problem> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?)
}

/// Says what the user should know, once each.
fn say_notes(notes: &[String]) {
    for note in notes {
        eprintln!("note: {note}");
    }
}

/// Prints a value for programs.
fn print_json(value: &impl serde::Serialize) -> Result<u8, Problem> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Problem::new("could not print JSON").because(&error))?;
    outln!("{text}");
    Ok(0)
}
