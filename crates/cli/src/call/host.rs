//! Services of the host: programs in the folder `rpc` beside the policy, and a few that are built in.
//!
//! The broker that connected the call runs the program and stays until it ends: what the guest says
//! becomes its standard input, what it says goes back. Nothing of it becomes a word of its command
//! line but the argument, which the policy's language bounds.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus as HowEnded, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use casemate_policy::split_call;
use casemate_supervise::broker::Served;
use casemate_supervise::policy::Place;
use casemate_supervise::prepare::World;
use casemate_wire::limits::MAX_PAYLOAD;
use casemate_wire::{Decoder, ExitStatus, Kind, encode, encode_header};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::built_in::{self, BuiltIn};
use crate::failure::Problem;

/// Name of the folder of services beside the folder of policy files.
const FOLDER: &str = "rpc";

/// A service of the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// A program.
    Program(PathBuf),
    /// One of our own.
    BuiltIn(BuiltIn),
}

/// The service of this name; the file with the argument in its name comes first.
pub(super) fn find(world: &World, name: &str, argument: &str) -> Option<Service> {
    let argument = argument.strip_prefix('+').unwrap_or(argument);
    let folders = Place::of(world, None).beside(&world.places, FOLDER);
    let files = folders.iter().flat_map(|folder| {
        [format!("{name}+{argument}"), name.to_owned()].map(|file| folder.join(file))
    });
    let program = files.into_iter().find(|path| is_program(path));
    program.map(Service::Program).or_else(|| BuiltIn::named(name).map(Service::BuiltIn))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Runs the service, with the session's socket on standard input.
///
/// # Errors
/// There is no socket.
pub(super) fn serve(
    world: &World,
    source: &str,
    target: &str,
    call: &str,
) -> Result<Option<Served>, Problem> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (name, argument) = split_call(call);
    let argument = argument.strip_prefix('+').unwrap_or(argument);
    let teller = Teller(Mutex::new(socket.try_clone()?));
    let status = match find(world, name, argument) {
        Some(Service::Program(program)) => {
            let mut command = Command::new(program);
            command.args((!argument.is_empty()).then_some(argument));
            command.env("CASEMATE_SOURCE", source).env("CASEMATE_SERVICE", name);
            command.env("CASEMATE_ARGUMENT", argument).env("CASEMATE_TARGET", target);
            command.env("QREXEC_REMOTE_DOMAIN", source);
            command.env("QREXEC_SERVICE_FULL_NAME", format!("{name}+{argument}"));
            run(command, socket, &teller)
        }
        Some(Service::BuiltIn(BuiltIn::Filecopy)) => {
            // Its own process says how it ended.
            drop(teller);
            return Ok(built_in::files(world, source, socket));
        }
        Some(Service::BuiltIn(built_in)) => built_in.run(world, source, &socket, &teller),
        None => Ok(ExitStatus::NotFound { reason: format!("the host has no service {name}") }),
    };
    let status = status.unwrap_or_else(|error| ExitStatus::NotExecutable {
        reason: format!("the host could not run the service: {error}"),
    });
    // Nobody may be listening any more.
    let _ = teller.data(&[]).and_then(|()| teller.frame(Kind::Exit, &encode(&status)));
    Ok(None)
}

/// Writes frames to the session's socket.
pub(super) struct Teller(Mutex<UnixStream>);

impl Teller {
    fn frame(&self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        socket.write_all(&encode_header(0, kind, payload.len()))?;
        socket.write_all(payload)
    }

    pub(super) fn data(&self, bytes: &[u8]) -> io::Result<()> {
        self.frame(Kind::Stdout, bytes)
    }
}

/// Runs a program until it has ended and everything it said is passed on.
fn run(mut command: Command, socket: UnixStream, teller: &Teller) -> io::Result<ExitStatus> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.current_dir("/").spawn()?;
    let (Some(stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let pid = Pid::from_raw(child.id() as i32);
    // None when it was waited for: its number may be another's then.
    let running = Arc::new(Mutex::new(Some(pid)));
    let served = running.clone();
    std::thread::spawn(move || {
        give(socket, File::from(OwnedFd::from(stdin)));
        // The caller has gone: whoever serves it need not go on.
        if let Some(pid) = *served.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill(pid, Signal::SIGHUP);
        }
    });
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        match stdout.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if teller.data(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    drop(stdout);
    // Waits and leaves it as it is, so that its number stays its own until nobody signals it.
    while let Err(Errno::EINTR) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
    {
    }
    running.lock().unwrap_or_else(PoisonError::into_inner).take();
    child.wait().map(ended)
}

fn ended(how: HowEnded) -> ExitStatus {
    match (how.code(), how.signal()) {
        (Some(code), _) => ExitStatus::Code(code as u8),
        (None, Some(signal)) => ExitStatus::Signal(signal as u8),
        (None, None) => ExitStatus::AgentFailed { reason: "it ended somehow".into() },
    }
}

/// Passes on what the caller says, until the socket ends or says what no caller's link does.
fn give(mut socket: UnixStream, program: File) {
    let mut program = Some(program);
    let mut decoder = Decoder::new();
    loop {
        match socket.read(decoder.space()) {
            Ok(count) if count > 0 => decoder.filled(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            _ => return,
        }
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) if frame.kind == Kind::Stdin && frame.payload.is_empty() => {
                    program = None;
                }
                Ok(Some(frame)) if frame.kind == Kind::Stdin => {
                    // One that reads no more may still answer.
                    if let Some(file) = &mut program
                        && file.write_all(frame.payload).is_err()
                    {
                        program = None;
                    }
                }
                Ok(None) => break,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program between a caller's link and this end of the socket: what it says, and its end.
    fn served(script: &str, input: &[&[u8]]) -> (Vec<u8>, ExitStatus) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let server = std::thread::spawn(move || {
            let teller = Teller(Mutex::new(theirs.try_clone().expect("cloned")));
            let status = run(command, theirs, &teller).expect("started");
            teller.frame(Kind::Exit, &encode(&status)).expect("told");
        });
        for piece in input {
            let mut all = encode_header(0, Kind::Stdin, piece.len()).to_vec();
            all.extend_from_slice(piece);
            (&ours).write_all(&all).expect("taken");
        }
        let (mut said, mut decoder) = (Vec::new(), Decoder::new());
        let status = loop {
            let count = (&ours).read(decoder.space()).expect("readable");
            assert!(count > 0, "it was closed");
            decoder.filled(count);
            if let Some(frame) =
                std::iter::from_fn(|| match decoder.next_frame().expect("frames") {
                    Some(frame) if frame.kind == Kind::Stdout => {
                        said.extend_from_slice(frame.payload);
                        Some(None)
                    }
                    Some(frame) => {
                        Some(Some(casemate_wire::decode(frame.payload).expect("a status")))
                    }
                    None => None,
                })
                .flatten()
                .next()
            {
                break frame;
            }
        };
        server.join().expect("served");
        (said, status)
    }

    #[test]
    fn a_program_hears_the_caller_to_the_end_and_its_answer_and_code_go_back() {
        let answer = served("cat; printf '\\0end'; exit 3", &[b"in\0", b"put", b""]);
        assert_eq!(answer, (b"in\0put\0end".to_vec(), ExitStatus::Code(3)));
        let answer = served("exec true", &[b"never read", b""]);
        assert_eq!(answer, (vec![], ExitStatus::Code(0)));
        let answer = served("kill -9 $$", &[]);
        assert_eq!(answer.1, ExitStatus::Signal(9));
    }

    #[test]
    fn a_program_whose_caller_goes_is_hung_up_on() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let teller = Teller(Mutex::new(theirs.try_clone().expect("cloned")));
        drop(ours);
        let mut command = Command::new("sleep");
        command.arg("60");
        let status = run(command, theirs, &teller).expect("started");
        assert_eq!(status, ExitStatus::Signal(nix::libc::SIGHUP as u8));
    }
}
