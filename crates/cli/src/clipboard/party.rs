//! Who has a clipboard: a compartment, by the proxy that shows its windows, or the host, by the
//! programs of wl-clipboard.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_host::facts::find_program;
use casemate_host::sockets;
use casemate_supervise::keeper::clipboard_socket;
use casemate_supervise::prepare::World;
use casemate_wire::text::harmless_line;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::SFlag;
use serde_json::{Value, json};

use crate::failure::Problem;
use crate::{run, running};

/// How the host is called.
pub(super) const HOST: &str = "@host";

/// How long whoever is asked may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long wl-copy may take to find that there is no desktop.
const SETTLING: Duration = Duration::from_millis(300);

/// How long a compartment may take to say whether it has the focus. It is asked in the user's way.
const GLANCE: Duration = Duration::from_secs(2);

/// Longest line of an answer, in bytes.
const LONGEST_LINE: usize = 64 * 1024;

/// Somebody with a clipboard.
#[derive(Debug)]
pub(super) enum Party {
    /// A compartment whose windows are shown.
    Compartment {
        /// Its name.
        name: String,
        /// Leads to its proxy.
        proxy: UnixStream,
    },
    /// The user's desktop.
    Host,
}

impl fmt::Display for Party {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Compartment { name, .. } => name,
            Self::Host => HOST,
        })
    }
}

impl Party {
    /// Whoever has this name; without one the compartment that has the focus.
    ///
    /// # Errors
    /// It shows no windows, or none has the focus.
    pub(super) fn find(world: &World, name: Option<&str>) -> Result<Self, Problem> {
        match name {
            Some(HOST) => Ok(Self::Host),
            Some(name) => {
                let proxy = proxy(world, name).ok_or_else(|| {
                    Problem::new(format!("`{name}` shows no windows"))
                        .hint("a compartment has a clipboard from its first window on")
                })?;
                Ok(Self::Compartment { name: name.into(), proxy })
            }
            None => focused(world),
        }
    }

    /// The first of these types that it has, and its content.
    ///
    /// # Errors
    /// It is larger than `largest` bytes, or does not come.
    pub(super) fn take(
        &self,
        types: &[&str],
        largest: u64,
    ) -> Result<Option<(String, Vec<u8>)>, Problem> {
        let failed = |error: io::Error| {
            Problem::new(format!("could not take the clipboard of {self}")).because(&error)
        };
        let (kind, from) = match self {
            Self::Compartment { proxy, .. } => {
                let request = json!({"take": {"types": types}});
                let (answer, pipe) =
                    ask(proxy, &request, "taken", None, PATIENCE).map_err(failed)?;
                match (answer["taken"]["type"].as_str(), pipe) {
                    // One of those that were asked for, whatever the proxy says.
                    (Some(kind), Some(pipe)) if types.contains(&kind) => (kind.to_owned(), pipe),
                    _ => return Ok(None),
                }
            }
            Self::Host => {
                let listed = output(Command::new("wl-paste").arg("--list-types"))?;
                let Ok(Ok(text)) = read(listed, 64 * 1024, PATIENCE).map(String::from_utf8) else {
                    return Ok(None);
                };
                let has = |kind: &&&str| text.lines().any(|line| line == **kind);
                let Some(kind) = types.iter().find(has) else { return Ok(None) };
                let mut paste = Command::new("wl-paste");
                ((*kind).to_owned(), output(paste.args(["--no-newline", "--type", kind]))?)
            }
        };
        let content = read(from, largest + 1, PATIENCE).map_err(failed)?;
        if content.len() as u64 > largest {
            let what = format!("the clipboard of {self} is larger than {} KiB", largest >> 10);
            return Err(Problem::new(what).hint("copy it as a file: casemate copy"));
        }
        Ok((!content.is_empty()).then_some((kind, content)))
    }

    /// Offers what is in `content`, once, for so many seconds.
    ///
    /// # Errors
    /// It is not taken.
    pub(super) fn offer(
        &self,
        types: &[&str],
        content: OwnedFd,
        seconds: u64,
    ) -> Result<(), Problem> {
        let what = format!("could not offer the clipboard to {self}");
        match self {
            Self::Compartment { proxy, .. } => {
                let request = json!({"offer": {"types": types, "seconds": seconds}});
                ask(proxy, &request, "offered", Some(content), PATIENCE)
                    .map_err(|error| Problem::new(what).because(&error))?;
            }
            Self::Host => {
                let desktop =
                    || Problem::new(what.clone()).hint("is this a terminal of your desktop?");
                let display = run::display().ok_or_else(desktop)?;
                sockets::connect_at_once(Path::new(&display))
                    .map_err(|error| desktop().because(&error))?;
                let program = find_program("wl-copy")
                    .ok_or_else(|| missing(&io::ErrorKind::NotFound.into()))?;
                let kind = types.first().copied().unwrap_or("text/plain");
                let mut copy = Command::new("timeout");
                copy.arg(seconds.to_string()).arg(program);
                copy.args(["--foreground", "--paste-once", "--type", kind]);
                copy.stdin(Stdio::from(content)).stdout(Stdio::null()).stderr(Stdio::null());
                // It stays when this command and its terminal have gone.
                let mut child = copy.process_group(0).spawn()?;
                std::thread::sleep(SETTLING);
                if child.try_wait()?.is_some_and(|status| !status.success()) {
                    return Err(desktop());
                }
            }
        }
        Ok(())
    }
}

fn proxy(world: &World, name: &str) -> Option<UnixStream> {
    sockets::connect(&clipboard_socket(&world.run_directory(name))).ok()
}

/// The one that says it has the focus. A proxy that a guest has taken over may say so at any time: where
/// several do, the user has to say whom he means.
fn focused(world: &World) -> Result<Party, Problem> {
    let mut found = Vec::new();
    for name in running::names(world)? {
        let Some(proxy) = proxy(world, &name) else { continue };
        let answer = ask(&proxy, &json!({"status": {}}), "status", None, GLANCE);
        if answer.is_ok_and(|(answer, _)| answer["status"]["focused"] == true) {
            found.push((name, proxy));
        }
    }
    let hint = format!("name the compartment, or {HOST} for your own desktop");
    match found.len() {
        0 => Err(Problem::new("no window of a compartment has the focus").hint(hint)),
        1 => {
            let (name, proxy) = found.remove(0);
            Ok(Party::Compartment { name, proxy })
        }
        _ => {
            let names: Vec<String> =
                found.into_iter().map(|(name, _)| format!("`{name}`")).collect();
            let what = format!("{} say that they have the focus", names.join(" and "));
            Err(Problem::new(what).hint(hint))
        }
    }
}

/// Asks a proxy. Lines that answer something else are passed over.
fn ask(
    proxy: &UnixStream,
    request: &Value,
    answered: &str,
    file: Option<OwnedFd>,
    patience: Duration,
) -> io::Result<(Value, Option<OwnedFd>)> {
    let line = format!("{request}\n");
    let raw: Vec<RawFd> = file.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let pieces = [IoSlice::new(line.as_bytes())];
    sendmsg::<()>(proxy.as_raw_fd(), &pieces, rights, MsgFlags::MSG_NOSIGNAL, None)?;
    // Unasked it says where the focus is.
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Some((line, file)) = receive_line(proxy, left)? else { break };
        let answer: Value = serde_json::from_slice(&line).map_err(io::Error::other)?;
        if let Some(why) = answer["error"].as_str() {
            return Err(io::Error::other(harmless_line(why, 256)));
        }
        if answer.get(answered).is_some() {
            return Ok((answer, file));
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// The next line, without its end, and a descriptor that came with it. None at the end.
///
/// # Errors
/// It does not come in time, or is too long.
pub(super) fn receive_line(
    from: &UnixStream,
    patience: Duration,
) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let until = Instant::now() + patience;
    let (mut line, mut file) = (Vec::new(), None);
    while line.len() < LONGEST_LINE {
        wait(from, until)?;
        // Byte by byte: what is behind the line is the next one's.
        let mut byte = [0];
        let mut pieces = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(from.as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                file = received.into_iter().map(own).next_back().or(file);
            }
        }
        match message.bytes {
            0 => return Ok(None),
            _ if byte == *b"\n" => return Ok(Some((line, file))),
            _ => line.extend(byte),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[expect(unsafe_code, reason = "nix hands received descriptors over as plain numbers")]
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) has just made it, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

fn wait(from: &impl AsFd, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let mut watched = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut watched, timeout) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) => Ok(()),
        Err(nix::Error::EINTR) => wait(from, until),
        Err(error) => Err(error.into()),
    }
}

/// Everything up to so many bytes, in time.
fn read(from: OwnedFd, most: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let until = Instant::now() + patience;
    // Whoever gave it may have it too, and read what was there to wait for: so it is moved to a pipe of
    // one's own, which never waits, and is read there.
    let stat = nix::sys::stat::fstat(&from)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFIFO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (own, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let mut own = std::fs::File::from(own);
    let mut content = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    while (content.len() as u64) < most {
        wait(&from, until)?;
        let room = piece.len().min((most - content.len() as u64) as usize);
        match splice(&from, None, &into, None, room, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(0) => break,
            Ok(count) => {
                own.read_exact(&mut piece[..count])?;
                content.extend_from_slice(&piece[..count]);
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(content)
}

/// What a program writes, as a descriptor. It ends when nobody reads on.
fn output(command: &mut Command) -> Result<OwnedFd, Problem> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| missing(&error))?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
    Ok(stdout.into())
}

fn missing(error: &io::Error) -> Problem {
    Problem::new("could not reach the clipboard of your desktop")
        .because(error)
        .hint("install the package `wl-clipboard`")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Far more than a deadline of 0.3 s.
    const LONG: Duration = Duration::from_secs(2);

    #[test]
    fn what_is_read_away_by_somebody_else_is_waited_for_in_time_only() {
        let (from, to) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let mut other = std::fs::File::from(from.try_clone().expect("duplicated"));
        let thief =
            std::thread::spawn(move || while matches!(other.read(&mut [0; 16]), Ok(1..)) {});
        let begin = Instant::now();
        let giver = std::thread::spawn(move || {
            let mut to = std::fs::File::from(to);
            while begin.elapsed() < LONG && to.write_all(b"some of it").is_ok() {}
        });
        // It may get some; it never stays.
        let _ = read(from, u64::MAX >> 1, Duration::from_millis(300));
        assert!(begin.elapsed() < LONG, "{:?}", begin.elapsed());
        giver.join().expect("no panic");
        thief.join().expect("no panic");
    }

    #[test]
    fn what_is_no_pipe_is_not_read() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let error = read(one.into(), 10, PATIENCE).expect_err("a socket");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn proxy_that_talks_of_its_focus_without_end_is_not_listened_to_without_end() {
        let (own, mut proxy) = UnixStream::pair().expect("a pair");
        let talker = std::thread::spawn(move || {
            while proxy.write_all(b"{\"focus\": true}\n").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let begin = Instant::now();
        let patience = Duration::from_millis(300);
        let error = ask(&own, &json!({"status": {}}), "status", None, patience).expect_err("late");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() < LONG);
        drop(own);
        talker.join().expect("no panic");
    }
}
