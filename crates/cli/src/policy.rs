//! `policy`: what the policy says, and what is wrong with it.
//!
//! The files and the compartments are gathered here and in [`casemate_supervise::policy`]; what they
//! mean is [`casemate_policy`]'s.

mod check;
mod explain;

pub(crate) use explain::placed;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use casemate_host::places::{Environment, Places};
use casemate_policy::vectors::Case;
use casemate_policy::{Engine, Graph, Link, System};
use casemate_supervise::policy::{self, Place, PolicyError, ReadPolicy};
use casemate_supervise::prepare::World;

use crate::arguments::{GraphFormat, Policy, PolicyFrom};
use crate::failure::Problem;
use crate::{print_json, running};

/// Largest description of a system that is read, in bytes.
const SYSTEM_LIMIT: u64 = 64 * 1024 * 1024;

/// Largest line of test vectors, in bytes.
const VECTOR_LIMIT: u64 = 64 * 1024 * 1024;

/// Exit code for mistakes in the policy: those of the configuration.
const CONFIGURATION: u8 = 3;

/// A policy and what it is judged by.
struct Judged {
    read: ReadPolicy,
    system: System,
    /// What the user should know about where these came from.
    notes: Vec<String>,
}

/// Whether everything the command goes by was named.
pub(crate) fn needs_no_configuration(command: &Policy) -> bool {
    match command {
        Policy::Eval { .. } => true,
        Policy::Check { from, .. } | Policy::Explain { from, .. } | Policy::Graph { from, .. } => {
            from.system_info.is_some()
        }
    }
}

/// A command that takes the compartments from a file.
pub(crate) fn of_files(command: &Policy) -> Result<u8, Problem> {
    match command {
        Policy::Eval { system_info } => eval(system_info),
        Policy::Check { from, .. } | Policy::Explain { from, .. } | Policy::Graph { from, .. } => {
            let system = described(from.system_info.as_deref().unwrap_or(Path::new("")))?;
            let places = Places::find(&Environment::current());
            let read = policy::load(Place::named(from.policy_dir.as_deref()), &places)?;
            carry_out(command, Judged { read, system, notes: Vec::new() })
        }
    }
}

/// A command that takes the compartments from the configuration.
pub(crate) fn policy(world: &World, command: &Policy) -> Result<u8, Problem> {
    let from = match command {
        Policy::Eval { system_info } => return eval(system_info),
        Policy::Check { from, .. } | Policy::Explain { from, .. } | Policy::Graph { from, .. } => {
            from
        }
    };
    carry_out(command, judged(world, from)?)
}

fn judged(world: &World, from: &PolicyFrom) -> Result<Judged, Problem> {
    let running: BTreeSet<String> = running::names(world)?.into_iter().collect();
    let settings = world.settings();
    let mut notes = Vec::new();
    if !settings.broken.is_empty() {
        let names: Vec<_> = settings.broken.keys().map(String::as_str).collect();
        notes.push(format!(
            "the configuration has errors, so these are not counted among the compartments: {}; \
             see `casemate check`",
            names.join(", ")
        ));
    }
    let read = policy::load(Place::of(world, from.policy_dir.as_deref()), &world.places)?;
    Ok(Judged { read, system: policy::system(settings, &running), notes })
}

fn carry_out(command: &Policy, mut judged: Judged) -> Result<u8, Problem> {
    let Judged { read, notes, .. } = &mut judged;
    if read.policy.documents.is_empty() {
        let places: Vec<_> =
            read.directories.iter().map(|place| place.display().to_string()).collect();
        notes.push(format!("there are no policy files in {}", places.join(" and ")));
    }
    let checks = matches!(command, Policy::Check { .. });
    if !checks && read.policy.has_errors() {
        let files: Vec<_> =
            read.policy.quarantined.iter().map(|path| path.display().to_string()).collect();
        notes.push(format!(
            "left out for their errors: {}; see `casemate policy check`",
            files.join(", ")
        ));
    }
    match command {
        Policy::Check { json, .. } => check::check(&judged, *json),
        Policy::Explain { json, source, target, service, .. } => {
            explain::explain(judged, source, target, service, *json)
        }
        Policy::Graph { service, format, .. } => graph(judged, service.as_deref(), *format),
        Policy::Eval { .. } => Ok(0),
    }
}

fn graph(judged: Judged, service: Option<&str>, format: GraphFormat) -> Result<u8, Problem> {
    crate::say_notes(&judged.notes);
    let engine = Engine::new(judged.read.policy, judged.system);
    let graph = Graph::of(&engine, service).map_err(|error| {
        Problem::new(error.to_string()).hint("ask for one service: --service SERVICE")
    })?;
    match format {
        GraphFormat::Text if graph.links.is_empty() => outln!("nobody can reach anybody"),
        GraphFormat::Text => out!("{}", graph.text()),
        GraphFormat::Dot => out!("{}", graph.dot()),
        GraphFormat::Svg => out!("{}", graph.svg()),
        GraphFormat::Json => {
            let link = |link: &Link| {
                serde_json::json!({
                    "source": link.source.to_string(),
                    "target": link.target.to_string(),
                    "service": link.service,
                    "verdict": link.verdict.name(),
                })
            };
            return print_json(&graph.links.iter().map(link).collect::<Vec<_>>());
        }
    }
    Ok(0)
}

/// Answers one line after the other.
fn eval(system_info: &Path) -> Result<u8, Problem> {
    let system = described(system_info)?;
    let mut input = BufReader::new(std::io::stdin().lock());
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let bad = |what: &str| Problem::new(format!("line {number} of standard input {what}"));
        let length = (&mut input)
            .take(VECTOR_LIMIT)
            .read_line(&mut line)
            .map_err(|error| bad("could not be read").because(&error))?;
        if length == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let case = Case::read(&line).map_err(|error| {
            bad("is no test vector")
                .because(&error)
                .hint("a line is {\"id\": …, \"files\": {…}, \"request\": {…}}")
        })?;
        outln!("{}", case.answer(&system));
    }
    Ok(0)
}

/// The system in a file.
fn described(path: &Path) -> Result<System, Problem> {
    let failed = |what: &str| Problem::new(format!("could not {what} {}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed("open").because(&error))?;
    file.take(SYSTEM_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| failed("read").because(&error))?;
    System::from_json(&text).map_err(|error| failed("use").because(&error))
}

/// `PATH:LINE`.
fn at(path: &Path, line: impl std::fmt::Display) -> String {
    format!("{}:{line}", path.display())
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        let denied = error.source.kind() == std::io::ErrorKind::PermissionDenied;
        let problem = Self::new(error.to_string()).because(&error.source);
        if denied {
            // What stands there may forbid something.
            return Self { code: 4, ..problem }
                .hint("nothing is allowed while it cannot be read; make it readable to everybody");
        }
        problem
    }
}

/// Paths as text.
fn texts(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}
