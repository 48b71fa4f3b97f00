//! `casemate-copy FILE… TARGET` and `casemate-move`, the service that takes what they send, and the
//! sender of what the host fetches.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use casemate_files::{
    Bar, Decoder, Limits, Modes, Place, ReceiveError, Receiver, Reply, SendError, Sender, Sent,
};
use casemate_wire::text::harmless_line;
use nix::sys::signal::{SigHandler, Signal, signal};

use super::{ToolError, finish};
use crate::caller::Line;

const SERVICE: &str = "casemate.Filecopy";

/// The command.
pub(super) fn request(words: Vec<OsString>, moving: bool) -> ExitCode {
    let name = if moving { "casemate-move" } else { "casemate-copy" };
    finish(name, copy(words, moving))
}

fn copy(words: Vec<OsString>, moving: bool) -> Result<(), ToolError> {
    const USAGE: &str = "usage: casemate-copy FILE… TARGET (so casemate-move)";
    let mut words = words;
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    } else if words.first().is_some_and(|word| word.as_encoded_bytes().starts_with(b"-")) {
        return Err(ToolError::Usage(USAGE));
    }
    let (Some(target), false) = (words.pop(), words.is_empty()) else {
        return Err(ToolError::Usage(USAGE));
    };
    let target = target.into_string().map_err(|_| ToolError::Usage(USAGE))?;
    let target = OsString::from(target.strip_suffix(':').unwrap_or(&target));
    let paths: Vec<PathBuf> = words.into_iter().map(PathBuf::from).collect();
    let sender = prepare(&paths, moving)?;
    let mut line = Line::open(&target, SERVICE.as_ref())
        .map_err(|error| ToolError::failed("could not call", &error))?;
    let (sent, reply) = send(sender, &mut line);
    let (code, reason) = line.close().map_err(|error| ToolError::failed("", &error))?;
    let sent = confirmed(sent, reply, code, &reason)?;
    remove(sent, moving)
}

/// Looks at what shall go, and tells what is left out.
pub(super) fn prepare(paths: &[PathBuf], moving: bool) -> Result<Sender, ToolError> {
    let sender = Sender::new(paths, moving).map_err(|error| ToolError::failed("", &error))?;
    for left in &sender.survey().left_out {
        let path = harmless_line(&left.path.to_string_lossy(), 4096);
        eprintln!("left out: {path}: {}", left.why);
    }
    Ok(sender)
}

/// Sends, and hears the answer.
pub(super) fn send(
    sender: Sender,
    line: &mut Line,
) -> (Result<Sent, SendError>, Result<Reply, io::Error>) {
    let mut bar = Bar::new(sender.survey().bytes);
    let terminal = io::stderr().is_terminal();
    let mut progress = |done| {
        if terminal && let Some(text) = bar.line(done) {
            eprint!("{text}");
        }
    };
    // Closed at its end: a service may wait for that.
    let sent = match line.output.take() {
        Some(output) => sender.send(&mut File::from(output), &mut progress),
        None => Err(SendError::Write(io::ErrorKind::BrokenPipe.into())),
    };
    if let Some(text) = bar.clear() {
        eprint!("{text}");
    }
    let reply = line.input.try_clone().and_then(|input| read_reply(&mut File::from(input)));
    (sent, reply)
}

/// The reply that a receiver sends.
fn read_reply(input: &mut impl Read) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    // Byte for byte: what stands behind it is another's.
    while bytes.len() < Reply::MAX && input.read(&mut byte)? > 0 {
        bytes.push(byte[0]);
        if let Some((reply, _)) = Reply::decode(&bytes).map_err(io::Error::other)? {
            return Ok(reply);
        }
    }
    Err(io::Error::other("the receiver did not say that it has everything"))
}

/// What was sent, when the receiver has it all.
pub(super) fn confirmed(
    sent: Result<Sent, SendError>,
    reply: io::Result<Reply>,
    code: u8,
    reason: &str,
) -> Result<Sent, ToolError> {
    // Whoever refused, refused; then this guest's own trouble, then what the receiver says.
    match (sent, reply) {
        (_, Err(_)) if code != 0 => Err(ToolError::of_call(code, reason)),
        (Err(error), _) if !matches!(error, SendError::Write(_)) => {
            Err(ToolError::failed("", &error))
        }
        (_, Ok(Reply { problem: Some(problem), .. })) => {
            Err(ToolError::Failed(format!("the receiver: {}", harmless_line(&problem, 512))))
        }
        (Err(error), _) => Err(ToolError::failed("", &error)),
        (_, Err(error)) => Err(ToolError::failed("", &error)),
        (Ok(sent), Ok(reply)) if sent.is_confirmed_by(&reply) => Ok(sent),
        (Ok(_), Ok(_)) => Err(ToolError::Failed("the receiver has something else".into())),
    }
}

/// Removes what was moved.
fn remove(sent: Sent, moving: bool) -> Result<(), ToolError> {
    if !moving {
        return Ok(());
    }
    let kept = sent.remove();
    for (path, error) in &kept {
        let path = harmless_line(&path.to_string_lossy(), 4096);
        eprintln!("not removed: {path}: {error}");
    }
    match kept.is_empty() {
        true => Ok(()),
        false => Err(ToolError::Failed("it was copied, and not everything removed".into())),
    }
}

/// The service: takes what comes into `~/Incoming/SOURCE`.
pub(super) fn serve() -> ExitCode {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let source = std::env::var("CASEMATE_SOURCE").unwrap_or_default();
    let result = Place::open(Path::new(&home), &source)
        .map_err(|error| ToolError::failed("", &error))
        .and_then(|place| {
            let (reply, _) = receive(&place, Limits::default());
            answer(&reply)
        });
    finish(SERVICE, result)
}

/// Takes a whole stream from standard input; the reply, and under which names things are in place.
pub(super) fn receive(place: &Place, limits: Limits) -> (Reply, Vec<String>) {
    outlive_hangup();
    let modes = Modes { keep_executable: true, keep_room: false };
    let mut decoder = Decoder::new(limits);
    match Receiver::new(place, modes) {
        Ok(mut receiver) => {
            let mut input = raw_input();
            let problem = receiver.run(&mut decoder, &mut input, &mut |_| Ok(())).err();
            let reply = receiver.reply(decoder.sum(), problem.as_ref());
            (reply, receiver.outcome().names.clone())
        }
        Err(error) => (failed(&error), Vec::new()),
    }
}

fn failed(error: &ReceiveError) -> Reply {
    Reply { totals: Default::default(), sum: 0, problem: Some(error.sentence()) }
}

/// Sends a reply; it is an error here, too, when not everything arrived.
pub(super) fn answer(reply: &Reply) -> Result<(), ToolError> {
    let mut out = io::stdout();
    out.write_all(&reply.encode())
        .and_then(|()| out.flush())
        .map_err(|error| ToolError::failed("could not answer", &error))?;
    match &reply.problem {
        None => Ok(()),
        Some(problem) => Err(ToolError::Failed(problem.clone())),
    }
}

/// A caller that goes hangs up; its end of the stream is what ends the work, and then what is not whole is
/// removed. Programs that are started have what is usual.
fn outlive_hangup() {
    extern "C" fn go_on(_: nix::libc::c_int) {}
    for number in [Signal::SIGHUP, Signal::SIGTERM] {
        // SAFETY: the handler does nothing.
        let _ = unsafe { signal(number, SigHandler::Handler(go_on)) };
    }
}

/// Standard input without a buffer in between.
pub(super) fn raw_input() -> File {
    use std::os::fd::AsFd;
    let input = io::stdin().as_fd().try_clone_to_owned();
    input.map_or_else(|_| empty(), File::from)
}

/// Nothing to read; only when no descriptor is left.
fn empty() -> File {
    std::process::exit(125)
}

/// What the host runs to fetch files: sends on standard output, hears the reply on standard input.
pub fn send_to_host(words: Vec<OsString>) -> ExitCode {
    let moving = words.first().is_some_and(|word| word == "--move");
    let paths: Vec<PathBuf> = words
        .into_iter()
        .skip(usize::from(moving))
        .skip_while(|word| word == "--")
        .map(PathBuf::from)
        .collect();
    let mut out = match std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned() {
        Ok(out) => File::from(out),
        Err(_) => return ExitCode::from(125),
    };
    let sender = match Sender::new(&paths, moving) {
        Ok(sender) => sender,
        Err(error) => {
            // Told in the stream, so that it comes where the stream is read.
            let ToolError::Failed(text) = ToolError::failed("", &error) else {
                return ExitCode::FAILURE;
            };
            let _ = Sender::refuse(&mut out, &text);
            return ExitCode::FAILURE;
        }
    };
    let left = sender.survey().left_out.len();
    let sent = sender.send(&mut out, &mut |_| {});
    drop(out);
    let reply = read_reply(&mut raw_input());
    let result = confirmed(sent, reply, 0, "").and_then(|sent| remove(sent, moving));
    if left > 0 {
        eprintln!("{left} links or special files were left out");
    }
    finish("casemate-copy", result)
}
