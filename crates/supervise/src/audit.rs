//! What goes to the audit log, and how: one shared log of all supervisors and commands of a user (or
//! of the system), in the state directory.
//!
//! A log that cannot be written does not end a compartment: that is said in its own log, and the next
//! record tries again.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use casemate_audit::{Event, Forwarded, Log};
use casemate_host::facts::{self, Sources};
use casemate_link::orders::Report;
use casemate_wire::text::harmless_line;
use casemate_wire::{OpenSession, Service};

use crate::broker::{Served, Verdict};
use crate::chain;
use crate::life::Outcome;
use crate::prepare::World;

/// Longest text of somebody else in a record, in bytes.
const MAX_TEXT: usize = 256;

/// Writes records; nothing when the configuration wants none.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Writer>>);

#[derive(Debug)]
struct Writer {
    log: Mutex<Log>,
    forwarder: Option<Forwarder>,
}

/// The program that sends records elsewhere, and its arguments.
#[derive(Clone, Debug)]
pub struct Forwarder {
    log: PathBuf,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Audit {
    /// The log of this user, as his configuration wants it.
    pub fn of(world: &World) -> Self {
        let settings = &world.settings().audit;
        let folder = world.audit_folder().filter(|_| settings.enable);
        let bytes = settings.max_file_size.bytes();
        Self(folder.map(|folder| {
            let forwarder = Forwarder::of(world);
            Arc::new(Writer { log: Mutex::new(Log::new(folder, bytes)), forwarder })
        }))
    }

    /// Writes a record.
    pub fn write(&self, event: &Event) {
        let Some(writer) = &self.0 else { return };
        let mut log = writer.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = log.write(event) {
            tracing::warn!("could not record `{}` in the audit log: {}", event.kind, chain(&error));
        }
        if let Some(forwarder) = &writer.forwarder {
            forwarder.see_to();
        }
    }
}

impl Forwarder {
    /// As the configuration wants it; none when records stay here.
    pub fn of(world: &World) -> Option<Self> {
        let settings = &world.settings().audit;
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(syslog) = &settings.syslog {
            arguments.extend(["--syslog".into(), syslog.server.to_string().into()]);
            let identity = syslog.identity.as_ref();
            for (option, file) in [
                ("--ca", syslog.ca.as_ref()),
                ("--certificate", identity.map(|(certificate, _)| certificate)),
                ("--key", identity.map(|(_, key)| key)),
            ] {
                if let Some(file) = file {
                    arguments.extend([option.into(), file.into()]);
                }
            }
        }
        if settings.auditd {
            arguments.push("--auditd".into());
        }
        if arguments.is_empty() {
            return None;
        }
        let log = world.audit_folder()?;
        arguments.splice(0..0, ["--log".into(), log.clone().into()]);
        let own = facts::own_programs(&Sources::current(&world.places));
        let program = own.supervisor.with_file_name("casemate-forward");
        Some(Self { log, program, arguments })
    }

    /// The command that sends what is in the log.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    /// Starts it if it does not run. It stays until all has arrived, whatever becomes of this process.
    fn see_to(&self) {
        match Forwarded::lock(&self.log) {
            Ok(Some(free)) => drop(free),
            Ok(None) => return,
            Err(error) => {
                return tracing::warn!("could not tell whether records are sent: {error}");
            }
        }
        let mut command = self.command();
        command.env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(mut child) => {
                // Nobody waits for it; this reaps it should it end first.
                std::thread::spawn(move || child.wait());
            }
            Err(error) => {
                tracing::warn!("could not start {}: {error}", self.program.display());
            }
        }
    }
}

impl World {
    /// The folder of the audit log.
    pub fn audit_folder(&self) -> Option<PathBuf> {
        self.places.state().ok().map(|state| state.join("audit"))
    }
}

fn short(text: &str) -> String {
    harmless_line(text, MAX_TEXT)
}

/// A compartment's supervisor has begun.
pub(crate) fn started(name: &str, image: &str, acceleration: &str) -> Event {
    Event::of(name, "start").with("image", image).with("acceleration", acceleration)
}

/// Its life is over.
pub(crate) fn stopped(name: &str, outcome: &Outcome) -> Event {
    let (failed, reason) = match outcome {
        Outcome::Stopped { why } => (false, why),
        Outcome::Failed { reason } => (true, reason),
    };
    Event::of(name, "stop").with("failed", failed).with("reason", short(reason))
}

/// A session was opened. Of its command the program alone: arguments may be secrets.
pub(crate) fn session(name: &str, stream: u32, session: &OpenSession) -> Event {
    let event = Event::of(name, "session").with("session", stream);
    let event = match (&session.service, session.argv.first()) {
        (Some(service), _) => {
            event.with("service", short(&service.name)).with("source", short(&service.source))
        }
        (None, Some(program)) => event.with("program", short(&String::from_utf8_lossy(program))),
        (None, None) => event.with("program", "(login shell)"),
    };
    match &session.user {
        Some(user) => event.with("user", short(user)),
        None => event,
    }
}

/// Something the guest reported is worth a record.
pub(crate) fn reported(name: &str, report: &Report) -> Option<Event> {
    match report {
        Report::Ended { stream, status } => {
            let event = Event::of(name, "session-end").with("session", *stream);
            Some(match status {
                Some(status) => event.with("code", status.code()),
                None => event,
            })
        }
        Report::RootDamaged { block } => {
            Some(Event::of(name, "root-damaged").with("block", *block))
        }
        Report::Broken { reason } => {
            Some(Event::of(name, "protocol-broken").with("reason", short(reason)))
        }
        _ => None,
    }
}

/// A call of the guest was decided.
pub(crate) fn call(name: &str, target: &str, service: &str, verdict: &Verdict) -> Event {
    let event =
        Event::of(name, "call").with("service", short(service)).with("wanted", short(target));
    match verdict {
        Verdict::Connected { target, by } => {
            event.with("allowed", true).with("target", short(target)).with("by", short(by))
        }
        Verdict::Refused { code, detail, .. } => {
            event.with("allowed", false).with("code", *code).with("why", short(detail))
        }
    }
}

/// A service of the host did something for the guest.
pub(crate) fn served(name: &str, served: &Served) -> Event {
    let Served::Copy { items, files, bytes, whole } = *served;
    let event = Event::of(name, "copy").with("from", name).with("to", Service::HOST);
    event.with("items", items).with("files", files).with("bytes", bytes).with("whole", whole)
}

/// A snapshot was taken.
pub(crate) fn snapshot(name: &str, snapshot: &str, memory: bool) -> Event {
    Event::of(name, "snapshot").with("snapshot", short(snapshot)).with("memory", memory)
}

/// Calls, and sessions that other guests' calls opened, more than there are records for in a while.
pub(crate) fn calls_left_out(name: &str, count: u32) -> Event {
    Event::of(name, "calls-left-out").with("count", count)
}

/// How fast one guest may fill the logs of everybody.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Since when it is counted.
    since: Instant,
    written: u32,
    left_out: u32,
}

impl Pace {
    /// Over which time it is counted.
    const SPAN: Duration = Duration::from_secs(60);

    /// Records in it. At 400 bytes each, 160 MB a day.
    const MOST: u32 = 300;

    /// Nothing was written yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, written: 0, left_out: 0 }
    }

    /// Whether one more may be written.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Self::SPAN {
            (self.since, self.written) = (now, 0);
        }
        let allowed = self.written < Self::MOST;
        match allowed {
            true => self.written += 1,
            false => self.left_out = self.left_out.saturating_add(1),
        }
        allowed
    }

    /// The same; with how many were left out before, which is to be written first.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u32> {
        self.allows(now).then(|| std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_calls_without_end_is_counted_and_not_quoted() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..Pace::MOST {
            assert_eq!(pace.admit(now), Some(0));
        }
        assert_eq!((pace.admit(now), pace.admit(now)), (None, None));
        now += Pace::SPAN;
        assert_eq!((pace.allows(now), pace.admit(now)), (true, Some(2)));
        assert_eq!(pace.admit(now), Some(0));
    }

    #[test]
    fn a_record_of_a_session_has_no_argument() {
        let session = OpenSession {
            argv: vec![b"mysql".to_vec(), b"--password=hunter2".to_vec()],
            environment: vec![(b"TOKEN".to_vec(), b"hunter2".to_vec())],
            cwd: None,
            user: Some("root".into()),
            terminal: None,
            detached: false,
            service: None,
        };
        let event = super::session("work", 3, &session);
        assert_eq!(event.fields[1], ("program", "mysql".into()));
        assert!(!format!("{event:?}").contains("hunter2"), "{event:?}");
    }
}
