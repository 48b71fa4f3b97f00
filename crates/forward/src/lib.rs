//! Sends records of the audit log elsewhere: to a syslog server and to the kernel's audit.
//!
//! The log is the buffer. One process for each log reads it behind what arrived, sends, keeps how far
//! it came, and ends when nothing was written for a while; whoever writes the next record starts it
//! again ([`casemate_audit::Forwarded::lock`] tells whether it is there). While a place cannot be
//! reached it stays and tries again, each place by itself.
//!
//! **Invariant:** a record counts as sent only when it has arrived, but for UDP, which does not tell.

pub mod auditd;
pub mod confine;
pub mod message;
pub mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate_audit::{Entry, Forwarded, Progress, Reader};
use casemate_host::chain;

use auditd::Kernel;
use server::{SendError, Server};

/// Records that are sent at once.
const BATCH: usize = 500;

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How long nothing was written when the process ends.
const LINGER: Duration = Duration::from_secs(20);

/// Between two attempts: the first, and the longest that doubling gives.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Why forwarding cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The log.
    #[error("could not read the audit log in {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// How far it came.
    #[error("could not keep how far records were sent")]
    State(#[from] casemate_host::durable::DurableError),
    /// A place; only told when nobody waits for it to come back.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// A place that records are sent to.
#[derive(Debug)]
pub enum Place {
    /// A syslog server.
    Syslog(Server),
    /// The kernel's audit.
    Kernel(Kernel),
}

impl Place {
    fn send(&mut self, entries: &[Entry]) -> Result<(), SendError> {
        match self {
            Self::Syslog(server) => server.send(entries),
            Self::Kernel(kernel) => {
                entries.iter().try_for_each(|entry| kernel.send(entry)).map_err(SendError::Audit)
            }
        }
    }

    fn progress<'a>(&self, state: &'a mut Forwarded) -> &'a mut Progress {
        match self {
            Self::Syslog(_) => &mut state.syslog,
            Self::Kernel(_) => &mut state.auditd,
        }
    }
}

/// A place, and where its records are read.
#[derive(Debug)]
struct Lane {
    place: Place,
    reader: Option<Reader>,
    wait: Duration,
    /// Not before.
    next: Instant,
}

/// Sends what is in a log to all places. The caller has [`Forwarded::lock`].
#[derive(Debug)]
pub struct Forwarder {
    log: PathBuf,
    lanes: Vec<Lane>,
}

impl Forwarder {
    /// Sends what is in the log of this folder.
    pub fn new(log: &Path, places: Vec<Place>) -> Self {
        let lane = |place| Lane { place, reader: None, wait: FIRST_WAIT, next: Instant::now() };
        Self { log: log.to_owned(), lanes: places.into_iter().map(lane).collect() }
    }

    /// Ends when all has arrived and nothing came for a while; with `once`, after one attempt for what
    /// is there.
    ///
    /// # Errors
    /// The log cannot be read, how far it came not be kept, or, with `once`, a place not be reached.
    pub fn run(&mut self, once: bool) -> Result<(), ForwardError> {
        let mut state = Forwarded::load(&self.log)?;
        let mut last = Instant::now();
        loop {
            let (mut sent, mut failing, mut failed) = (false, false, None);
            for lane in &mut self.lanes {
                if Instant::now() < lane.next {
                    failing = true;
                    continue;
                }
                match lane.step(&self.log, &mut state)? {
                    Step::Nothing => {}
                    Step::Sent => sent = true,
                    Step::Failed(error) => {
                        failing = true;
                        failed = failed.or(Some(error));
                    }
                }
            }
            // Each place has had its turn.
            if let (true, Some(error)) = (once, failed) {
                return Err(error.into());
            }
            if sent {
                last = Instant::now();
            } else if !failing && (once || last.elapsed() >= LINGER) || !self.log.exists() {
                return Ok(());
            } else {
                std::thread::sleep(LOOK);
            }
        }
    }

    /// Whether there is something that has not arrived.
    ///
    /// # Errors
    /// The log cannot be read, or how far it came.
    pub fn has_more(&mut self) -> Result<bool, ForwardError> {
        let mut state = Forwarded::load(&self.log)?;
        for lane in &mut self.lanes {
            let progress = lane.place.progress(&mut state);
            let mut reader = behind(&self.log, progress)
                .map_err(|error| ForwardError::Read(self.log.clone(), error))?;
            let next = reader.next_entry();
            if next.map_err(|error| ForwardError::Read(self.log.clone(), error))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

enum Step {
    Nothing,
    Sent,
    Failed(SendError),
}

impl Lane {
    /// Sends the next batch, if there is one, and keeps what came of it.
    fn step(&mut self, log: &Path, state: &mut Forwarded) -> Result<Step, ForwardError> {
        let read = |error| ForwardError::Read(log.to_owned(), error);
        let progress = self.place.progress(state);
        let entries = self.read(log, progress).map_err(read)?;
        let Some(last) = entries.last() else {
            return Ok(Step::Nothing);
        };
        match self.place.send(&entries) {
            Ok(()) => {
                let head = last.head();
                *progress = Progress { number: head.number, digest: head.digest, error: None };
                (self.wait, self.next) = (FIRST_WAIT, Instant::now());
                state.store(log)?;
                Ok(Step::Sent)
            }
            Err(error) => {
                let text = Some(chain(&error));
                self.reader = None;
                self.next = Instant::now() + self.wait;
                self.wait = (self.wait * 2).min(LONGEST_WAIT);
                if progress.error != text {
                    progress.error = text;
                    state.store(log)?;
                }
                Ok(Step::Failed(error))
            }
        }
    }

    /// The records behind what arrived.
    fn read(&mut self, log: &Path, progress: &Progress) -> std::io::Result<Vec<Entry>> {
        let mut reader = match self.reader.take() {
            Some(reader) if !reader.is_behind(log) => reader,
            _ => behind(log, progress)?,
        };
        let mut entries = Vec::new();
        while entries.len() < BATCH {
            let Some(entry) = reader.next_entry()? else { break };
            entries.push(entry);
        }
        self.reader = Some(reader);
        Ok(entries)
    }
}

/// A reader of what comes behind the last record that arrived. Where that is not in the log, it is
/// another log, or older files are not there any more: then all that is.
fn behind(log: &Path, progress: &Progress) -> std::io::Result<Reader> {
    let mut reader = Reader::open(log)?;
    if progress.number == 0 {
        return Ok(reader);
    }
    reader.skip_files(progress.number);
    while let Some(entry) = reader.next_entry()? {
        if entry.record.number >= progress.number {
            let head = entry.head();
            if head.number == progress.number && head.digest == progress.digest {
                return Ok(reader);
            }
            break;
        }
    }
    Reader::open(log)
}
