//! `audit`: what the audit log says, and whether it was altered.

use std::time::Duration;

use casemate_audit::{Event, Forwarded, Head, Progress, Reader, Record, parse_since, verify};
use casemate_config::{CompartmentName, VolumeName};
use casemate_host::clock;
use casemate_supervise::audit::{Audit as Writer, Forwarder};
use casemate_supervise::prepare::World;
use casemate_wire::text::harmless_line;
use serde_json::{Value, json};

use crate::arguments::{Audit, AuditFilter, Json};
use crate::failure::Problem;
use crate::print_json;

/// How often `follow` looks.
const LOOK: Duration = Duration::from_millis(200);

/// Longest text of a field that is shown, in bytes.
const SHOWN: usize = 512;

/// `casemate audit …`.
pub(crate) fn audit(world: &World, command: &Audit) -> Result<u8, Problem> {
    let folder = world.audit_folder().ok_or_else(|| {
        Problem::new("there is no place for an audit log").hint("set HOME or XDG_STATE_HOME")
    })?;
    let failed = |error: std::io::Error| {
        Problem::new(format!("could not read the audit log in {}", folder.display()))
            .because(&error)
    };
    match command {
        Audit::Verify { head, json } => {
            let known = head.as_deref().map(str::parse::<Head>).transpose();
            let known = known.map_err(|why| Problem { code: 2, ..Problem::new(why) })?;
            tell(&verify(&folder, known.as_ref()).map_err(failed)?, *json)
        }
        Audit::Show { filter, json } => {
            let mut reader = Reader::open(&folder).map_err(failed)?;
            let wanted = Wanted::of(filter)?;
            let mut found = Vec::new();
            while let Some(record) = reader.next_record().map_err(failed)? {
                if wanted.covers(&record) {
                    match json {
                        true => found.push(record),
                        false => outln!("{}", text(&record)),
                    }
                }
            }
            if *json { print_json(&found) } else { Ok(0) }
        }
        Audit::Status(form) => status(world, &folder, *form),
        Audit::Forward => forward(world),
        Audit::Follow { filter } => {
            let wanted = Wanted::of(filter)?;
            let now = parse_since("0s", clock::now_ns() / 1_000_000_000)
                .map_err(|error| Problem::new(error.to_string()))?;
            let mut reader = Reader::open(&folder).map_err(failed)?;
            let mut last = 0;
            loop {
                while let Some(record) = reader.next_record().map_err(failed)? {
                    last = record.number;
                    let is_new = filter.since.is_some() || record.time >= now;
                    if is_new && wanted.covers(&record) {
                        outln!("{}", text(&record));
                    }
                }
                std::thread::sleep(LOOK);
                if reader.is_behind(&folder) {
                    // The file was closed: the next ones, behind what was shown.
                    reader = Reader::open(&folder).map_err(failed)?;
                    reader.skip_to(last).map_err(failed)?;
                }
            }
        }
    }
}

/// Where records go, and how far they are.
fn status(world: &World, folder: &std::path::Path, form: Json) -> Result<u8, Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(format!("could not read the audit log in {}", folder.display()))
            .because(&error)
    };
    let mut reader = Reader::open(folder).map_err(failed)?;
    let mut last = 0;
    while let Some(record) = reader.next_record().map_err(failed)? {
        last = record.number;
    }
    let state = Forwarded::load(folder).map_err(|error| {
        Problem::new("could not tell how far records were sent").because(&error)
    })?;
    let settings = &world.settings().audit;
    let syslog = settings.syslog.as_ref().map(|syslog| syslog.server.to_string());
    let kernel = settings.auditd.then(|| "the kernel's audit".to_owned());
    let places: Vec<(String, Progress)> = [(syslog, state.syslog), (kernel, state.auditd)]
        .into_iter()
        .filter_map(|(place, progress)| Some((place?, progress)))
        .collect();
    if form.json {
        let places: Vec<Value> = places
            .iter()
            .map(|(to, progress)| {
                let waiting = last.saturating_sub(progress.number);
                json!({ "to": to, "arrived": progress.number, "waiting": waiting, "error": progress.error })
            })
            .collect();
        return print_json(&json!({ "enabled": settings.enable, "last": last, "places": places }));
    }
    match (settings.enable, last) {
        (false, _) => outln!("no audit log is written: `enable = false` in [audit]"),
        (true, 0) => outln!("the audit log is empty"),
        (true, last) => outln!("the last record is {last}"),
    }
    if places.is_empty() {
        outln!("records are sent nowhere");
    }
    for (to, progress) in places {
        let waiting = last.saturating_sub(progress.number);
        outln!("{to}: {} arrived, {waiting} wait", progress.number);
        if let Some(error) = &progress.error {
            outln!("  {}", harmless_line(error, SHOWN));
        }
    }
    Ok(0)
}

/// Sends what has not arrived.
fn forward(world: &World) -> Result<u8, Problem> {
    let forwarder = Forwarder::of(world).ok_or_else(|| {
        Problem::new("the configuration sends records nowhere")
            .hint("set `syslog` in [audit], for example \"tls://logs.example.org\"")
    })?;
    let failed = |error| Problem::new("could not start what sends records").because(&error);
    let done = forwarder.command().arg("--once").status().map_err(failed)?;
    Ok(u8::from(!done.success()))
}

/// Writes a record of something that a command did.
pub(crate) fn note(world: &World, event: Event) {
    Writer::of(world).write(&event);
}

/// Something that happened to a volume.
pub(crate) fn of_volume(id: &(CompartmentName, VolumeName), kind: &'static str) -> Event {
    Event::of(id.0.as_str(), kind).with("volume", id.1.as_str())
}

/// Which records are asked for.
struct Wanted<'a> {
    since: Option<String>,
    compartment: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn of(filter: &'a AuditFilter) -> Result<Self, Problem> {
        let now = clock::now_ns() / 1_000_000_000;
        let since = filter.since.as_deref().map(|text| parse_since(text, now)).transpose();
        let since =
            since.map_err(|error| Problem { code: 2, ..Problem::new(error.to_string()) })?;
        Ok(Self { since, compartment: filter.compartment.as_deref() })
    }

    fn covers(&self, record: &Record) -> bool {
        self.since.as_ref().is_none_or(|since| record.time >= *since)
            && self.compartment.is_none_or(|name| record.compartment.as_deref() == Some(name))
    }
}

/// A record in a line for people. What stands in it may be a guest's words, or those of somebody who
/// altered the log.
fn text(record: &Record) -> String {
    let fields = record.fields.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text:?}"),
        other => format!("{name}={other}"),
    });
    let compartment = record.compartment.as_deref().unwrap_or("-");
    let words = [record.time.clone(), compartment.into(), record.event.clone()];
    let line: Vec<String> = words.into_iter().chain(fields).collect();
    harmless_line(&line.join("  "), 8 * SHOWN)
}

fn tell(found: &casemate_audit::Verified, json: bool) -> Result<u8, Problem> {
    let head = found.head.as_ref().map(ToString::to_string);
    let code = u8::from(!found.breaks.is_empty());
    if json {
        let breaks: Vec<_> = found
            .breaks
            .iter()
            .map(|one| json!({ "file": one.file, "line": one.line, "what": one.what }))
            .collect();
        print_json(&json!({
            "records": found.records, "head": head, "sealed": found.sealed,
            "unsealed": found.unsealed, "begins-at": found.begins_at, "breaks": breaks,
        }))?;
        return Ok(code);
    }
    if let Some(first) = found.begins_at {
        outln!("note: it begins with record {first}; the files before are not there");
    }
    if found.sealed > 0 {
        outln!("note: {} times a writer was killed in the middle of a record", found.sealed);
    }
    if found.unsealed > 0 {
        outln!("note: {} bytes at its end are no record; the next one seals them", found.unsealed);
    }
    if !found.breaks.is_empty() {
        let mut problem = Problem::new("the audit log was altered");
        problem.causes = found
            .breaks
            .iter()
            .map(|one| match one.line {
                0 => format!("{}: {}", one.file.display(), one.what),
                line => format!("{}:{line}: {}", one.file.display(), one.what),
            })
            .collect();
        return Err(
            problem.hint("what stands before the first of these lines is as it was written")
        );
    }
    match head {
        Some(head) => {
            outln!("the audit log is whole: {} records", found.records);
            outln!("head {head}");
        }
        None => outln!("the audit log is empty"),
    }
    Ok(0)
}
