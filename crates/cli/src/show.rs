//! `list`, `status`, `plan`, `check`: what is, and what would be.

use std::fmt::Write as _;
use std::path::Path;

use casemate_config::{CompartmentName, Diagnostic, Span};
use casemate_host::durable;
use casemate_supervise::control::{Request, Status};
use casemate_supervise::keeper::{LastRun, last_run_path};
use casemate_supervise::prepare::{Purpose, Target, World};
use casemate_supervise::volumes::Passphrases;
use serde::Serialize;

use crate::arguments::{Check, Json, NameJson};
use crate::failure::Problem;
use crate::{event_loop, failed_units, print_json, running, say_notes};

/// A compartment in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    name: String,
    state: String,
    engine: String,
    image: String,
    memory_mib: Option<u64>,
    sessions: usize,
    acceleration: Option<String>,
    reason: Option<String>,
}

/// `casemate list`.
pub(crate) fn list(world: &World, form: Json) -> Result<u8, Problem> {
    let running = running::names(world)?;
    let mut statuses: Vec<Status> = Vec::new();
    event_loop()?.block_on(async {
        for name in &running {
            // One that ends just now is shown as it will be: stopped.
            if let Ok(Some(mut supervisor)) = running::supervisor(world, name)
                && let Ok(status) = supervisor.ask::<Status>(&Request::Status).await
            {
                statuses.push(status);
            }
        }
    });
    let rows = rows(world, &statuses);
    if form.json {
        return print_json(&rows);
    }
    out!("{}", table(&rows));
    let mut notes: Vec<String> = statuses.into_iter().flat_map(|status| status.notes).collect();
    notes.sort();
    notes.dedup();
    say_notes(&notes);
    Ok(0)
}

fn rows(world: &World, statuses: &[Status]) -> Vec<Row> {
    let settings = world.settings();
    let mut rows = Vec::new();
    for (name, compartment) in &settings.compartments {
        let status = statuses.iter().find(|status| status.name == name.as_str());
        let (state, reason) = match status {
            Some(status) => (status.state.clone(), reason(status)),
            None => last_state(world, name),
        };
        rows.push(Row {
            name: name.to_string(),
            state,
            engine: compartment.engine.to_string(),
            image: compartment.image.to_string(),
            memory_mib: Some(compartment.memory.mib()),
            sessions: status.map_or(0, |status| status.sessions.len()),
            acceleration: status.map(|status| status.acceleration.clone()),
            reason,
        });
    }
    for (name, reason) in &settings.broken {
        rows.push(Row {
            name: name.clone(),
            state: "broken".into(),
            engine: String::new(),
            image: String::new(),
            memory_mib: None,
            sessions: 0,
            acceleration: None,
            reason: Some(reason.clone()),
        });
    }
    let declared = |name: &str| settings.compartments.keys().any(|known| known.as_str() == name);
    for status in statuses.iter().filter(|status| !declared(&status.name)) {
        rows.push(Row {
            name: status.name.clone(),
            state: status.state.clone(),
            engine: "qemu".into(),
            image: String::new(),
            memory_mib: None,
            sessions: status.sessions.len(),
            acceleration: Some(status.acceleration.clone()),
            reason: None,
        });
    }
    rows
}

/// Why a compartment that somebody keeps is not as it should be.
fn reason(status: &Status) -> Option<String> {
    match (status.state.as_str(), status.health.as_deref()) {
        ("waiting", _) => status.last_end.clone(),
        (_, Some("unhealthy")) => Some("unhealthy".into()),
        _ => None,
    }
}

fn last_run(world: &World, name: &str) -> Option<LastRun> {
    let state = world.places.state().ok()?;
    durable::load(&last_run_path(state, name)).ok().flatten()
}

fn last_state(world: &World, name: &CompartmentName) -> (String, Option<String>) {
    match last_run(world, name.as_str()) {
        Some(last) if last.failed => ("failed".into(), Some(last.reason)),
        _ => ("stopped".into(), None),
    }
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no compartments are declared\n".into();
    }
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(4);
    let mut out = format!(
        "{:width$}  {:<9}  {:<8}  {:<12}  {:>8}  {:>8}\n",
        "NAME", "STATE", "ENGINE", "IMAGE", "MEMORY", "SESSIONS"
    );
    for row in rows {
        let memory = row.memory_mib.map_or_else(String::new, |mib| format!("{mib}M"));
        let engine = match &row.acceleration {
            Some(acceleration) => format!("{}/{acceleration}", row.engine),
            None => row.engine.clone(),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{:width$}  {:<9}  {engine:<8}  {:<12}  {memory:>8}  {:>8}",
            row.name, row.state, row.image, row.sessions
        );
        if let Some(reason) = &row.reason {
            let _ = write!(out, "  {reason}");
        }
        out.push('\n');
    }
    out
}

/// `casemate status`.
pub(crate) fn status(world: &World, arguments: &NameJson) -> Result<u8, Problem> {
    let name = &arguments.name;
    // Clears what a supervisor that was killed left behind.
    running::names(world)?;
    let (status, failed) = event_loop()?.block_on(async {
        let Some(mut supervisor) = running::supervisor(world, name)? else {
            return Ok((None, None));
        };
        let status = match supervisor.ask::<Status>(&Request::Status).await {
            Ok(status) => status,
            // It ended while it was asked, which is an answer.
            Err(_) if running::supervisor(world, name)?.is_none() => return Ok((None, None)),
            Err(problem) => return Err(problem),
        };
        let asks = status.state == "running" && failed_units::can_be_asked(world, name);
        let failed = if asks { failed_units::of(world, name).await } else { None };
        Ok::<_, Problem>((Some(status), failed))
    })?;
    let Some(status) = status else {
        world.compartment(name)?;
        return stopped(world, name, arguments.json);
    };
    if arguments.json {
        let mut value = serde_json::to_value(&status).unwrap_or_default();
        if let (Some(failed), Some(fields)) = (&failed, value.as_object_mut()) {
            fields.insert("failedUnits".into(), serde_json::json!(failed));
        }
        return print_json(&value);
    }
    outln!("{}: {} for {} s", status.name, status.state, status.uptime);
    outln!("  engine      qemu ({})", status.acceleration);
    outln!("  image       {}", status.image);
    if let (Some(agent), Some(kernel)) = (&status.agent, &status.kernel) {
        outln!("  guest       kernel {kernel}, agent {agent}");
    }
    outln!("  supervisor  process {}", status.supervisor_pid);
    for process in &status.processes {
        outln!("  {:<10}  process {}", process.role, process.pid);
    }
    outln!("  sessions    {}", status.sessions.len());
    for session in &status.sessions {
        let kind = if session.detached { ", detached" } else { "" };
        outln!("    {:>4}  {} ({} s{kind})", session.session, session.command, session.age);
    }
    if let Some(health) = &status.health {
        outln!("  health      {health}");
    }
    if let Some(last_end) = &status.last_end {
        outln!("  restarts    {}; the last one because {last_end}", status.restarts);
    }
    if let Some(failed) = failed.filter(|failed| !failed.is_empty()) {
        outln!("  failed      {}", failed.join(", "));
    }
    say_notes(&status.notes);
    Ok(0)
}

fn stopped(world: &World, name: &str, json: bool) -> Result<u8, Problem> {
    let last = last_run(world, name);
    let state = if last.as_ref().is_some_and(|last| last.failed) { "failed" } else { "stopped" };
    if json {
        return print_json(&serde_json::json!({ "name": name, "state": state, "last": last }));
    }
    outln!("{name}: {state}");
    if let Some(last) = last {
        let ago = casemate_host::clock::now_ns().saturating_sub(last.ended) / 1_000_000_000;
        outln!("  ended       {ago} s ago: {}", last.reason);
    }
    Ok(0)
}

/// `casemate plan`.
pub(crate) fn plan(world: &World, arguments: &NameJson) -> Result<u8, Problem> {
    let prepared = world.prepare(
        &Target::Declared(arguments.name.clone()),
        Purpose::Print,
        &Passphrases::default(),
    )?;
    if arguments.json {
        return print_json(&prepared.plan);
    }
    out!("{}", casemate_plan::print(&prepared.plan));
    Ok(0)
}

/// `casemate check`.
pub(crate) fn check(world: &World, arguments: &Check) -> Result<u8, Problem> {
    let loaded = &world.loaded;
    let code = if loaded.has_errors() { 3 } else { 0 };
    if arguments.json {
        let diagnostics = diagnostics(&loaded.diagnostics, |span| loaded.position(span));
        print_json(&diagnostics)?;
        return Ok(code);
    }
    let text = loaded.render(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    if !text.is_empty() {
        eprintln!("{}", text.trim_end());
    }
    let settings = world.settings();
    let errors = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    if errors == 0 {
        let usable = counted(settings.compartments.len(), "compartment");
        outln!("the configuration is valid: {usable}");
    } else {
        outln!(
            "{}; usable: {}; not: {}",
            counted(errors, "error"),
            counted(settings.compartments.len(), "compartment"),
            settings.broken.len()
        );
    }
    Ok(code)
}

/// `casemate check --schema` and `--reference`, which need no configuration.
pub(crate) fn describe_configuration(arguments: &Check) -> Option<Result<u8, Problem>> {
    if arguments.schema {
        return Some(print_json(&casemate_config::json_schema()));
    }
    arguments.reference.then(|| {
        out!("{}", casemate_config::reference_markdown());
        Ok(0)
    })
}

/// Diagnostics for programs; `position` tells file, line and column of a place.
pub(crate) fn diagnostics<'d>(
    all: &'d [Diagnostic],
    position: impl Fn(Span) -> Option<(&'d Path, usize, usize)>,
) -> Vec<serde_json::Value> {
    let one = |diagnostic: &Diagnostic| {
        let place = diagnostic.place.and_then(&position);
        serde_json::json!({
            "severity": if diagnostic.is_error() { "error" } else { "warning" },
            "message": diagnostic.message,
            "hint": diagnostic.hint,
            "file": place.map(|(path, _, _)| path.display().to_string()),
            "line": place.map(|(_, line, _)| line),
            "column": place.map(|(_, _, column)| column),
        })
    };
    all.iter().map(one).collect()
}

/// `1 error`, `2 errors`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Shortens a digest for people.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}

/// A size in MiB with one decimal.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

/// The size of a file, 0 when it is not there.
pub(crate) fn size_of(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
