//! The process that reads what a guest sends: started, listened to, ended. What it does is in
//! [`super::take`].
//!
//! It has the session's socket as standard input, and reports on standard error, a line of JSON each.
//! When its reports are read no more, it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use casemate_files::{Reply, Totals};
use casemate_menu::Application;
use serde::{Deserialize, Serialize};

use crate::failure::Problem;

/// Name of the hidden command.
pub(crate) const COMMAND: &str = "take";

/// Longest report, in bytes: a thousand names.
const MAX_REPORT: u64 = 1024 * 1024;

/// What shall be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A receiver's reply.
    Reply,
    /// Files, into `Incoming/SOURCE` of a home.
    Folder {
        /// The home.
        home: PathBuf,
        /// From whom.
        source: String,
        /// A guest calls, and the service is here.
        served: bool,
    },
    /// A reply, and a file of at most so many bytes, to the file that is standard output.
    Single {
        /// The bytes.
        bytes: u64,
    },
    /// Applications, with pixels to the file that is standard output.
    Menu,
}

/// What the process reports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// So many bytes have come.
    Progress {
        /// So far.
        bytes: u64,
        /// That were announced.
        total: u64,
    },
    /// A receiver's reply.
    Reply(Said),
    /// It is over.
    Done(Done),
    /// An application that may be shown.
    Application {
        /// As it may be.
        application: Box<Application>,
        /// Pixels of its picture follow in the file.
        icon: bool,
    },
    /// What the user should know. In a guest's words, perhaps.
    Note(String),
}

/// A reply, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    items: u32,
    entries: u32,
    bytes: u64,
    sum: u64,
    problem: Option<String>,
}

impl From<Reply> for Said {
    fn from(reply: Reply) -> Self {
        let Totals { items, entries, bytes } = reply.totals;
        Self { items, entries, bytes, sum: reply.sum, problem: reply.problem }
    }
}

impl From<Said> for Reply {
    fn from(said: Said) -> Self {
        let Said { items, entries, bytes, sum, problem } = said;
        Self { totals: Totals { items, entries, bytes }, sum, problem }
    }
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Of what was named, so many are in place.
    pub(crate) items: u32,
    /// Files and folders.
    pub(crate) entries: u32,
    /// Bytes.
    pub(crate) bytes: u64,
    /// Where they are.
    pub(crate) folder: PathBuf,
    /// Under which names.
    pub(crate) names: Vec<String>,
    /// A file came back.
    pub(crate) came: bool,
    /// Why not everything is. In a guest's words, perhaps.
    pub(crate) problem: Option<String>,
    /// What the guest said aside.
    pub(crate) said: String,
    /// The exit code of the guest's side, if it has said so.
    pub(crate) code: Option<u8>,
}

/// The process.
#[derive(Debug)]
pub(crate) struct Taker {
    child: Child,
    reports: BufReader<ChildStderr>,
}

impl Taker {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(
        what: &What,
        socket: &UnixStream,
        file: Option<File>,
    ) -> Result<Self, Problem> {
        let failed =
            |error: std::io::Error| Problem::new("could not start the receiver").because(&error);
        let mut command = Command::new("/proc/self/exe");
        command.arg0("casemate").arg(COMMAND);
        match what {
            What::Reply => drop(command.arg("reply")),
            What::Menu => drop(command.arg("menu")),
            What::Single { bytes } => drop(command.args(["single", &bytes.to_string()])),
            What::Folder { home, source, served } => {
                command.arg(if *served { "served" } else { "folder" }).arg(home).arg(source);
            }
        }
        let socket: OwnedFd = socket.as_fd().try_clone_to_owned().map_err(failed)?;
        command.current_dir("/").stdin(Stdio::from(socket)).stderr(Stdio::piped());
        command.stdout(file.map_or_else(Stdio::null, Stdio::from));
        let mut child = command.spawn().map_err(failed)?;
        let Some(stderr) = child.stderr.take() else {
            return Err(Problem::new("could not hear the receiver"));
        };
        Ok(Self { child, reports: BufReader::new(stderr) })
    }

    /// The next report; none at the end.
    ///
    /// # Errors
    /// It says something else.
    pub(crate) fn next(&mut self) -> Result<Option<Report>, Problem> {
        let mut line = String::new();
        let read = (&mut self.reports).take(MAX_REPORT).read_line(&mut line)?;
        if read == 0 {
            return Ok(None);
        }
        let report = serde_json::from_str(&line);
        report.map(Some).map_err(|_| {
            let line = casemate_wire::text::harmless_line(line.trim_end(), 512);
            let problem = Problem::new("the receiver failed");
            Problem { causes: vec![line], ..problem }
        })
    }

    /// It has ended without a last word.
    pub(crate) fn vanished(&mut self) -> Problem {
        let how = self.child.wait().map_or_else(|error| error.to_string(), |how| how.to_string());
        let problem = Problem::new("the receiver ended before its end");
        Problem { causes: vec![how], ..problem }
            .hint("what it had not finished is removed with the next copy")
    }

    /// The reply that it hears.
    ///
    /// # Errors
    /// There was none.
    pub(crate) fn next_reply(&mut self) -> Result<Reply, Problem> {
        while let Some(report) = self.next()? {
            match report {
                Report::Reply(said) => return Ok(said.into()),
                Report::Progress { .. } | Report::Application { .. } | Report::Note(_) => {}
                Report::Done(done) => {
                    let mut problem = Problem::new("the guest did not take everything");
                    problem.causes.extend(done.problem);
                    if !done.said.is_empty() {
                        problem.causes.push(done.said);
                    }
                    for cause in &mut problem.causes {
                        *cause = casemate_wire::text::harmless_line(cause, 1024);
                    }
                    return Err(problem);
                }
            }
        }
        Err(self.vanished())
    }

    /// Its last word.
    ///
    /// # Errors
    /// There was none.
    pub(crate) fn done(mut self) -> Result<Done, Problem> {
        while let Some(report) = self.next()? {
            if let Report::Done(done) = report {
                return Ok(done);
            }
        }
        Err(self.vanished())
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        // It ends by itself: its socket or its reports are closed.
        let _ = self.child.try_wait();
    }
}
