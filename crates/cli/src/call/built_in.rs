//! Services of the host that need no file: taking files, showing notices, opening web addresses, the time.
//!
//! Each takes little of a guest and makes less of it: files go to a process that can do nothing else, an
//! address is one word of which every letter was checked, a notice is plain text under its sender's name.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use casemate_files::limits::{MAX_NOTICE, MAX_URL};
use casemate_files::notice::Notice;
use casemate_files::url;
use casemate_supervise::broker::Served;
use casemate_supervise::prepare::World;
use casemate_wire::date::iso_8601;
use casemate_wire::{Decoder, ExitStatus, Kind, encode};

use super::host::Teller;
use super::notify;
use crate::files::taker::{Done, Taker, What};
use crate::files::{frames, home};

/// How long a caller may take to say its few words.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuiltIn {
    /// The time, as Qubes gives it: ISO 8601, UTC.
    Date,
    /// Files, into `~/Incoming/SOURCE`.
    Filecopy,
    /// A notice in the desktop.
    Notify,
    /// A web address, with the desktop's browser.
    OpenUrl,
}

impl BuiltIn {
    /// The service of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "casemate.Date" => Self::Date,
            "casemate.Filecopy" => Self::Filecopy,
            "casemate.Notify" => Self::Notify,
            "casemate.OpenURL" => Self::OpenUrl,
            _ => return None,
        })
    }

    /// Does it. `Filecopy` is not done here: [`files`] is.
    pub(super) fn run(
        self,
        world: &World,
        source: &str,
        socket: &UnixStream,
        teller: &Teller,
    ) -> io::Result<ExitStatus> {
        match self {
            Self::Date => {
                let now = casemate_host::clock::now_ns() / 1_000_000_000;
                teller.data(format!("{}\n", iso_8601(now)).as_bytes())?;
                Ok(ExitStatus::Code(0))
            }
            Self::Notify => {
                let notice = Notice::parse(&hear(socket, MAX_NOTICE)?);
                let shown = notify::show(world, source, &notice);
                Ok(ExitStatus::Code(if shown { 0 } else { 1 }))
            }
            Self::OpenUrl => {
                let text = hear(socket, MAX_URL + 2)?;
                let text = std::str::from_utf8(&text).unwrap_or("");
                match url::check(text.strip_suffix('\n').unwrap_or(text)) {
                    Ok(address) => browse(address),
                    Err(error) => Ok(ExitStatus::NotExecutable { reason: error.to_string() }),
                }
            }
            Self::Filecopy => Ok(ExitStatus::Code(1)),
        }
    }
}

fn browse(address: &str) -> io::Result<ExitStatus> {
    let mut command = Command::new("xdg-open");
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status()?;
    Ok(ExitStatus::Code(u8::from(!status.success())))
}

/// What a caller says to its end, at most `most` bytes.
fn hear(mut socket: &UnixStream, most: usize) -> io::Result<Vec<u8>> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut decoder = Decoder::new();
    let mut heard = Vec::new();
    loop {
        match socket.read(decoder.space())? {
            0 => return Ok(heard),
            count => decoder.filled(count),
        }
        while let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            if frame.kind != Kind::Stdin || frame.payload.is_empty() {
                return Ok(heard);
            }
            let room = most.saturating_sub(heard.len()).min(frame.payload.len());
            heard.extend_from_slice(&frame.payload[..room]);
            if heard.len() >= most {
                return Ok(heard);
            }
        }
    }
}

/// Takes files; what came of it, for the log.
pub(super) fn files(world: &World, source: &str, socket: UnixStream) -> Option<Served> {
    let done = home(world).and_then(|home| {
        let what = What::Folder { home: home.into(), source: source.into(), served: true };
        Taker::start(&what, &socket, None)?.done()
    });
    let done = done.unwrap_or_else(|problem| {
        // It has said nothing of its end, or it is dead: the caller shall not wait.
        let status = ExitStatus::AgentFailed { reason: "the host could not take it".into() };
        let _ = frames::send(&socket, Kind::Exit, &encode(&status));
        Done { problem: Some(problem.what), ..Done::default() }
    });
    let Done { items, entries, bytes, .. } = done;
    Some(Served::Copy { items, files: entries, bytes, whole: done.problem.is_none() })
}
