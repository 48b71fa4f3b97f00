//! `casemate take`: reads what a guest sends, and can do nothing else.
//!
//! Before the first byte it opens the folder in which files shall arrive, if there is one, and gives up
//! everything more: with Landlock every other file and every address, with a filter the system calls
//! that this takes no part in. A bug in reading a stream is worth the files of one folder, and no program.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use casemate_files::{
    Decoder, Event, Limits, Modes, Place, ReceiveError, Receiver, Reply, receive_single,
};
use casemate_wire::{ExitStatus, Kind, encode};

use super::confine;
use super::frames::{FrameReader, send};
use super::taker::{Done, Report};
use crate::arguments::Take;

/// Between two reports of how far it is.
const PAUSE: Duration = Duration::from_millis(100);

/// Exit code when nobody listens.
const UNHEARD: u8 = 1;

/// What the process does.
pub(crate) fn take(arguments: &Take) -> u8 {
    let mut done = Done::default();
    let worked = match arguments {
        Take::Reply => reply(&mut done),
        Take::Folder { home, source } => folder(home, source, false, &mut done),
        Take::Served { home, source } => folder(home, source, true, &mut done),
        Take::Single { bytes } => single(*bytes, &mut done),
        Take::Menu => crate::menu::take::applications(&mut done),
    };
    done.problem = done.problem.or(worked.err());
    match tell(&Report::Done(done)) {
        Ok(()) => 0,
        Err(_) => UNHEARD,
    }
}

/// Reports something.
pub(crate) fn tell(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report).map_err(io::Error::other)?;
    line.push(b'\n');
    io::stderr().write_all(&line)
}

/// An error in one line.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The session's socket, and nothing else within reach.
pub(crate) fn begin(place: Option<BorrowedFd<'_>>) -> Result<UnixStream, String> {
    let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let socket = socket.map_err(|error| sentence(&error))?;
    // Ctrl-C ends who listens here, and with it this, in order.
    confine::outlive_interrupts();
    confine::confine(place).map_err(|error| sentence(&error))?;
    Ok(socket)
}

fn reply(done: &mut Done) -> Result<(), String> {
    let socket = begin(None)?;
    let listener = io::stderr();
    let mut reader = FrameReader::new(socket, Kind::Stdout, listener.as_fd());
    let heard = hear_reply(&mut reader);
    ended(done, &reader);
    tell(&Report::Reply(heard?.into())).map_err(|error| sentence(&error))
}

/// Reads a reply, and not a byte more.
fn hear_reply(reader: &mut FrameReader<'_>) -> Result<Reply, String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while bytes.len() < Reply::MAX && reader.read(&mut byte).map_err(|error| sentence(&error))? > 0
    {
        bytes.push(byte[0]);
        if let Some((reply, _)) = Reply::decode(&bytes).map_err(|error| sentence(&error))? {
            return Ok(reply);
        }
    }
    // It may have closed its output before it ended.
    let _ = reader.wait();
    Err(match &reader.status {
        Some(
            ExitStatus::NotFound { reason }
            | ExitStatus::NotExecutable { reason }
            | ExitStatus::AgentFailed { reason },
        ) => reason.clone(),
        Some(status) => format!("it ended with {} and no answer", status.code()),
        None => "the session was ended".into(),
    })
}

/// What is known of the other side's end.
pub(crate) fn ended(done: &mut Done, reader: &FrameReader<'_>) {
    done.said = String::from_utf8_lossy(&reader.said).into_owned();
    done.code = reader.status.as_ref().map(ExitStatus::code);
}

fn folder(home: &Path, source: &str, served: bool, done: &mut Done) -> Result<(), String> {
    let place = Place::open(home, source).map_err(|error| sentence(&error))?;
    done.folder = place.path().into();
    let socket = begin(Some(place.as_fd()))?;
    let answering = socket.try_clone().map_err(|error| sentence(&error))?;
    let (heard, said) = match served {
        true => (Kind::Stdin, Kind::Stdout),
        false => (Kind::Stdout, Kind::Stdin),
    };
    let listener = io::stderr();
    let mut reader = FrameReader::new(socket, heard, listener.as_fd());
    let modes = Modes { keep_executable: false, keep_room: true };
    let mut decoder = Decoder::new(Limits::default());
    let mut receiver = Receiver::new(&place, modes).map_err(|error| error.sentence())?;
    let received = receive(&mut receiver, &mut decoder, &mut reader);
    let outcome = receiver.outcome();
    let totals = outcome.totals;
    (done.items, done.entries, done.bytes) = (totals.items, totals.entries, totals.bytes);
    done.names.clone_from(&outcome.names);
    done.problem = received.as_ref().err().map(ReceiveError::sentence);
    let answer = receiver.reply(decoder.sum(), received.as_ref().err());
    // What is not whole goes before anybody is told.
    drop(receiver);
    let answered = send(&answering, said, &answer.encode())
        .and_then(|()| send(&answering, said, &[]))
        .and_then(|()| match served {
            true => {
                let status = ExitStatus::Code(u8::from(received.is_err()));
                send(&answering, Kind::Exit, &encode(&status))
            }
            false => reader.wait(),
        });
    ended(done, &reader);
    match (received, answered) {
        (Err(_), _) | (_, Ok(())) => Ok(()),
        (Ok(()), Err(error)) => Err(format!("could not answer: {error}")),
    }
}

/// As [`Receiver::run`], with reports of how much will come.
fn receive(
    receiver: &mut Receiver<'_>,
    decoder: &mut Decoder,
    reader: &mut FrameReader<'_>,
) -> Result<(), ReceiveError> {
    let mut total = None;
    let mut shown = Instant::now();
    loop {
        while let Some(event) = decoder.next_event()? {
            if let Event::Begin { bytes, .. } = event {
                total = Some(bytes);
            }
            if receiver.take(&event)? {
                return Ok(());
            }
        }
        if let Some(total) = total
            && shown.elapsed() >= PAUSE
        {
            shown = Instant::now();
            tell(&Report::Progress { bytes: receiver.bytes(), total })
                .map_err(ReceiveError::Read)?;
        }
        decoder.read_from(reader)?;
    }
}

fn single(bytes: u64, done: &mut Done) -> Result<(), String> {
    let file = io::stdout().as_fd().try_clone_to_owned();
    let mut file = file.map(File::from).map_err(|error| sentence(&error))?;
    let socket = begin(None)?;
    let listener = io::stderr();
    let mut reader = FrameReader::new(socket, Kind::Stdout, listener.as_fd());
    let heard = hear_reply(&mut reader);
    ended(done, &reader);
    let heard = heard?;
    let refused = heard.problem.is_some();
    tell(&Report::Reply(heard.into())).map_err(|error| sentence(&error))?;
    if refused {
        return Ok(());
    }
    let mut decoder = Decoder::new(Limits { entries: 1, bytes });
    let came = receive_single(&mut decoder, &mut reader, &mut file);
    ended(done, &reader);
    done.came = came.map_err(|error| error.sentence())?;
    Ok(())
}
