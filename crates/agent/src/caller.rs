//! `casemate-call TARGET SERVICE[+ARGUMENT] [PROGRAM ARGUMENTS…]`: a program of the guest that asks the
//! agent to put a call to the host, and passes bytes between itself and the service. Called
//! `qrexec-client-vm`, it takes that program's options too.
//!
//! It runs as whoever calls and has no rights of its own. With a PROGRAM, that speaks with the service;
//! without, standard input and output do.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    socket,
};
use nix::unistd::pipe2;

use crate::calls::{MAX_DATAGRAM, SOCKET, TROUBLE};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    target: OsString,
    service: OsString,
    program: Vec<OsString>,
    /// Control characters of the service are not shown on a terminal.
    filter: bool,
}

/// Calls; the exit code is that of the service, or 125 to 127.
pub(crate) fn run(arguments: Vec<OsString>, terminal: bool) -> ExitCode {
    let wanted = match parse(arguments, terminal) {
        Ok(wanted) => wanted,
        Err(problem) => {
            eprintln!(
                "casemate-call: {problem}\nusage: casemate-call TARGET SERVICE[+ARGUMENT] [PROGRAM ARGUMENTS…]"
            );
            return ExitCode::from(TROUBLE);
        }
    };
    match call(&wanted) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("casemate-call: could not call: {error}");
            ExitCode::from(TROUBLE)
        }
    }
}

fn parse(arguments: Vec<OsString>, terminal: bool) -> Result<Wanted, String> {
    let mut filter = terminal;
    let mut words = arguments.into_iter().peekable();
    while let Some(word) = words.next_if(|word| word.as_bytes().starts_with(b"-")) {
        match word.to_str() {
            Some("--") => break,
            Some("-t" | "--filter-escape-chars-stdout") => filter = true,
            Some("--no-filter-escape-chars-stdout") => filter = false,
            // What a service says aside is not passed on, and buffers have the size they have.
            Some("-T" | "--filter-escape-chars-stderr" | "--no-filter-escape-chars-stderr") => {}
            Some(text) if text.starts_with("--buffer-size=") => {}
            _ => return Err(format!("there is no option {}", word.display())),
        }
    }
    let (Some(target), Some(service)) = (words.next(), words.next()) else {
        return Err("a target and a service are needed".into());
    };
    Ok(Wanted { target, service, program: words.collect(), filter })
}

/// A call that was put: the ends of its pipes, and the socket on which the agent says how it ended.
#[derive(Debug)]
pub(crate) struct Line {
    agent: OwnedFd,
    /// What is written here, the service reads; to its end, which is when this is closed.
    pub(crate) output: Option<OwnedFd>,
    /// What the service writes.
    pub(crate) input: OwnedFd,
}

impl Line {
    /// Puts a call; whether it goes through shows when something comes or the end does.
    pub(crate) fn open(target: &OsStr, service: &OsStr) -> io::Result<Self> {
        let agent = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(agent.as_raw_fd(), &UnixAddr::new(SOCKET)?)?;
        let (their_input, output) = pipe2(OFlag::O_CLOEXEC)?;
        let (input, their_output) = pipe2(OFlag::O_CLOEXEC)?;
        for pipe in [&output, &input] {
            // Only a matter of speed.
            let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE));
        }
        let words = [target.as_bytes(), b"\0", service.as_bytes()];
        let words = words.map(io::IoSlice::new);
        let descriptors = [their_input.as_raw_fd(), their_output.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(agent.as_raw_fd(), &words, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(Self { agent, output: Some(output), input })
    }
}

/// How long a service may go on when nobody hears it any more, in milliseconds.
const PATIENCE: u16 = 5_000;

/// Bytes that a pipe holds, as those of sessions do.
const PIPE: libc::c_int = 256 * 1024;

fn call(wanted: &Wanted) -> io::Result<u8> {
    let Line { agent, output: our_output, input: our_input } =
        Line::open(&wanted.target, &wanted.service)?;
    let our_output = our_output.ok_or(io::ErrorKind::BrokenPipe)?;
    let mut child = None;
    match wanted.program.split_first() {
        None => pass_on(our_output, our_input, wanted.filter)?,
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::from(our_input)).stdout(Stdio::from(our_output));
            // SAFETY: nothing but a system call.
            unsafe { command.pre_exec(restore_sigpipe) };
            child = Some(command.spawn()?);
        }
    }
    let (code, reason) = answer(&agent)?;
    if !reason.is_empty() {
        eprintln!("casemate-call: {reason}");
    }
    // It may still have to take what the service said.
    if let Some(mut child) = child {
        child.wait()?;
    }
    Ok(code)
}

fn restore_sigpipe() -> io::Result<()> {
    // SAFETY: the default of every program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    Ok(())
}

/// Passes standard input on in the background, and what the service says to its end.
fn pass_on(output: OwnedFd, input: OwnedFd, filter: bool) -> io::Result<()> {
    std::thread::Builder::new().spawn(move || {
        let Ok(stdin) = io::stdin().as_fd().try_clone_to_owned() else { return };
        // A service that reads no more is no reason to end.
        let _ = io::copy(&mut File::from(stdin), &mut File::from(output));
    })?;
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    let (mut input, mut stdout) = (File::from(input), File::from(stdout));
    let copied = match filter {
        false => io::copy(&mut input, &mut stdout).map(drop),
        true => copy_harmless(&mut input, &mut stdout),
    };
    match copied {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // As a program ended by SIGPIPE would.
            std::process::exit(128 + libc::SIGPIPE)
        }
        other => other,
    }
}

/// Copies, with an underscore for what could act on a terminal.
fn copy_harmless(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for byte in &mut buffer[..count] {
            // 0x80 to 0x9f are control characters in some terminals, and part of letters in UTF-8.
            if byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t' | b'\r') {
                *byte = b'_';
            }
        }
        output.write_all(&buffer[..count])?;
    }
}

/// Waits for how a call ended; with why when it never began.
fn answer(agent: &OwnedFd) -> io::Result<(u8, String)> {
    let mut bytes = [0; MAX_DATAGRAM];
    let count = recv(agent.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
    let Some((code, reason)) = bytes[..count].split_first() else {
        return Err(io::Error::other("the agent has gone"));
    };
    Ok((*code, String::from_utf8_lossy(reason).into_owned()))
}

impl Line {
    /// Says nothing more, and waits for how it ends.
    pub(crate) fn end(self) -> io::Result<(u8, String)> {
        let Self { agent, output, input: _input } = self;
        drop(output);
        answer(&agent)
    }

    /// Says and hears nothing more of a service that should be done. One that does not end for that is
    /// left to itself.
    pub(crate) fn close(self) -> io::Result<(u8, String)> {
        let Self { agent, output, input } = self;
        drop((output, input));
        let mut watched = [PollFd::new(agent.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PATIENCE)? {
            0 => Ok((TROUBLE, "the service does not end".into())),
            _ => answer(&agent),
        }
    }
}

/// Whether standard output is a terminal.
pub(crate) fn shows_on_terminal() -> bool {
    io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_options_of_qrexec_client_vm_are_understood() {
        let wanted = parse(words(&["-t", "--buffer-size=1", "work", "a+b", "cat", "-n"]), false);
        let expected = Wanted {
            target: "work".into(),
            service: "a+b".into(),
            program: words(&["cat", "-n"]),
            filter: true,
        };
        assert_eq!(wanted, Ok(expected));
        let plain = parse(words(&["--", "-odd", "a"]), true).expect("understood");
        assert_eq!((plain.target, plain.filter), ("-odd".into(), true));
        assert!(parse(words(&["work"]), false).is_err());
        assert!(parse(words(&["--what", "work", "a"]), false).is_err());
    }

    #[test]
    fn a_terminal_gets_nothing_that_acts_on_it() {
        let mut shown = Vec::new();
        copy_harmless(&mut &b"a\x1b[2J\n\x07\tb\r\x7f"[..], &mut shown).expect("copied");
        assert_eq!(shown, b"a_[2J\n_\tb\r_");
    }
}
