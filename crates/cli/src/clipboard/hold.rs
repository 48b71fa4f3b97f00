//! What holds the clipboard between copy and paste: a process of its own, since nothing else of
//! casemate lives that long.
//!
//! It listens on a socket in the user's runtime directory, answers three words, and ends when it was
//! asked for the content, told to forget it, or its time is over. The content is in a file in memory
//! that it never reads; with its end the kernel frees it.

use std::io::{BufRead, BufReader, IoSlice, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_host::sockets;
use casemate_supervise::prepare::World;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};

use super::confine;
use super::party::receive_line;
use crate::confine::ConfineError;
use crate::failure::Problem;

/// How long it is held.
pub(super) const TIME: Duration = Duration::from_secs(300);

/// How long a command may take to say its word.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is held. The number tells one from the next.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Held {
    /// Whose it is.
    pub(super) source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// Bytes.
    pub(super) size: u64,
    /// For how long it still is.
    pub(super) seconds: u64,
    /// Process id of its holder.
    number: u32,
}

/// Beside the run directories; no compartment's name begins so.
fn socket(world: &World) -> PathBuf {
    world.places.runtime().join(".clipboard")
}

/// Has it held, in place of what was held before.
pub(super) fn begin(
    world: &World,
    source: &str,
    kind: &str,
    content: &[u8],
) -> Result<(), Problem> {
    clear(world);
    let failed = |error: std::io::Error| {
        Problem::new("could not start what holds the clipboard").because(&error)
    };
    let file = memfd_create(c"casemate-clipboard", MFdFlags::MFD_CLOEXEC);
    let mut file = std::fs::File::from(file.map_err(|error| failed(error.into()))?);
    file.write_all(content).and_then(|()| file.rewind()).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    if let Some(named) = &world.named {
        command.arg("--config").arg(std::path::absolute(named)?);
    }
    command.args(["clipboard", "hold", source, kind]).current_dir("/");
    command.stdin(Stdio::from(OwnedFd::from(file))).stdout(Stdio::piped()).stderr(Stdio::null());
    // Not of the terminal it was started from.
    command.process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    match line.trim() {
        "held" => Ok(()),
        why => {
            let problem = Problem::new("what holds the clipboard has not begun");
            Err(Problem { causes: vec![why.to_owned()], ..problem })
        }
    }
}

/// What is held, if anything is.
pub(super) fn look(world: &World) -> Result<Option<Held>, Problem> {
    Ok(ask(world, "status")?.map(|(held, _)| held))
}

/// Takes what is held, with which it is held no more. None when it is something else by now.
pub(super) fn give(world: &World, held: &Held) -> Result<Option<OwnedFd>, Problem> {
    Ok(ask(world, &format!("give {}", held.number))?.and_then(|(_, file)| file))
}

/// Forgets what is held.
pub(super) fn clear(world: &World) {
    // Where nothing is held there is nothing to forget.
    let _ = ask(world, "clear");
}

fn ask(world: &World, word: &str) -> Result<Option<(Held, Option<OwnedFd>)>, Problem> {
    let Ok(mut stream) = sockets::connect(&socket(world)) else { return Ok(None) };
    let said = stream.write_all(format!("{word}\n").as_bytes());
    // It may have come to its end meanwhile.
    let Ok(Some((line, file))) = said.and_then(|()| receive_line(&stream, PATIENCE)) else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(&line).ok().map(|held| (held, file)))
}

/// Holds what standard input is.
pub(super) fn run(world: &World, source: &str, kind: &str) -> Result<u8, Problem> {
    let unconfined = |error: ConfineError| {
        Problem::new("could not confine what holds the clipboard").because(&error)
    };
    confine::hide().map_err(unconfined)?;
    let file = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let size = file.metadata()?.len();
    // Where the limit does not let it, swap has what other programs' memory would have there too.
    let _ = confine::lock(&file, size);
    let file = OwnedFd::from(file);
    let path = socket(world);
    // Of one that was killed.
    let _ = std::fs::remove_file(&path);
    std::fs::create_dir_all(world.places.runtime())?;
    let listener = sockets::listen(&path)?;
    confine::confine().map_err(unconfined)?;
    println!("held");
    let until = Instant::now() + TIME;
    let held = |now: Instant| Held {
        source: source.into(),
        kind: kind.into(),
        size,
        seconds: until.saturating_duration_since(now).as_secs(),
        number: std::process::id(),
    };
    while wait(&listener, until) {
        let Ok((stream, _)) = listener.accept() else { continue };
        let Ok(word) = read_word(&stream) else { continue };
        let now = held(Instant::now());
        let mine = format!("give {}", now.number);
        let line = serde_json::to_vec(&now).unwrap_or_default();
        match word.as_str() {
            "status" => drop(answer(&stream, line, None)),
            "clear" => break,
            word if word == mine && answer(&stream, line, Some(&file)).is_ok() => break,
            _ => {}
        }
    }
    // The socket stays, and the next one replaces it: this process has no files any more.
    Ok(0)
}

/// Somebody came before the time was over.
fn wait(listener: &UnixListener, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut watched = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

fn read_word(stream: &UnixStream) -> std::io::Result<String> {
    let line = receive_line(stream, PATIENCE)?;
    let (line, _) = line.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    String::from_utf8(line).map_err(std::io::Error::other)
}

fn answer(stream: &UnixStream, mut line: Vec<u8>, file: Option<&OwnedFd>) -> std::io::Result<()> {
    line.push(b'\n');
    let raw: Vec<_> = file.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let pieces = [IoSlice::new(&line)];
    sendmsg::<()>(stream.as_raw_fd(), &pieces, rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}
