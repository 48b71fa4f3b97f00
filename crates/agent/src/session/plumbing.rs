//! The pipes or the terminal between the agent and a command.

use std::io;
use std::os::fd::OwnedFd;

use casemate_wire::{Kind, TerminalSize};
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;

use super::output::{Form, Output};
use super::spawn::set_nonblocking;
use super::stdin::Stdin;
use super::terminal;

/// The agent's ends of the streams, and the child's, which are closed after the clone.
pub(super) struct Plumbing {
    pub(super) stdin: Stdin,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) theirs: Vec<OwnedFd>,
}

impl Plumbing {
    pub(super) fn terminal(id: u32, size: TerminalSize, uid: u32) -> io::Result<Self> {
        let pair = terminal::open(size, uid)?;
        let writing = pair.master.try_clone()?;
        Ok(Self {
            stdin: Stdin::terminal(writing, id),
            stdout: Output::new(pair.master, Form::Terminal, Kind::Stdout),
            stderr: Output::closed(),
            theirs: vec![pair.slave],
        })
    }

    /// Theirs: standard output, standard error and, unless detached, standard input.
    pub(super) fn pipes(id: u32, detached: bool) -> io::Result<Self> {
        let (stdout, their_stdout) = wide_pipe()?;
        let (stderr, their_stderr) = pipe()?;
        set_nonblocking(&stdout)?;
        set_nonblocking(&stderr)?;
        let mut theirs = vec![their_stdout, their_stderr];
        let stdin = if detached {
            Stdin::nowhere(id)
        } else {
            let (their_stdin, stdin) = wide_pipe()?;
            set_nonblocking(&stdin)?;
            theirs.push(their_stdin);
            Stdin::pipe(stdin, id)
        };
        Ok(Self {
            stdin,
            stdout: Output::new(stdout, Form::Pipe, Kind::Stdout),
            stderr: Output::new(stderr, Form::Pipe, Kind::Stderr),
            theirs,
        })
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// A pipe for bulk data: a fifth less processor time per byte than with the usual 64 KiB. Pages
/// are there only while they hold something; stderr seldom does.
fn wide_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    const SIZE: libc::c_int = 256 * 1024;
    let ends = pipe()?;
    // Only a matter of speed.
    let _ = nix::fcntl::fcntl(&ends.0, nix::fcntl::FcntlArg::F_SETPIPE_SZ(SIZE));
    Ok(ends)
}
