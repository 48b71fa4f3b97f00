//! One session: a command of the host's, its streams, and how it ends.
//!
//! ```text
//!            program runs: Started           process reaped          outputs drained: Exit
//! Starting ─────────────────────▶ Running ────────────────▶ Ending ───────────────────────▶ gone
//!     │ exec failed: Exit                │ host hangs up
//!     └──────────────────▶ gone ◀────────┘ (processes: SIGHUP, a second later SIGKILL)
//! ```
//!
//! The session ends with its main process: output written until then is delivered to the last
//! byte, but children that live on with the pipes in their hands are not waited for. They keep
//! running unless the host hangs up.

pub(crate) mod cgroup;
pub(crate) mod command;
mod output;
mod plumbing;
mod service;
pub(crate) mod spawn;
mod stdin;
pub(crate) mod table;
pub(crate) mod terminal;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use casemate_wire::{CreditError, ExitStatus, Kind, OpenSession, Receiver, Sender, TerminalSize};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::Pid;

use self::cgroup::{Cgroup, Cgroups};
use self::command::{Command, Settings};
use self::output::{Form, Output};
use self::plumbing::Plumbing;
use self::spawn::{Spawned, StartFailure, Streams};
use self::stdin::Stdin;
use crate::calls::{self, Pipes};
use crate::events::{Channel, Epoll, Token};
use crate::outbox::Outbox;

/// What every session is opened with.
pub(crate) struct Ground<'a> {
    pub(crate) epoll: &'a Epoll,
    pub(crate) settings: &'a Settings,
    pub(crate) cgroups: &'a mut Cgroups,
    /// `/dev/null`.
    pub(crate) null: BorrowedFd<'a>,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    id: u32,
    /// The host's number for it; none when no host listens any more (a detached session whose
    /// connection was lost).
    stream: Option<u32>,
    /// Its main process; none when a program calls a service, or the service is a socket.
    pid: Option<Pid>,
    /// The socket of whoever calls, when this is a call.
    caller: Option<OwnedFd>,
    /// How the service ended that was called.
    answer: Option<ExitStatus>,
    /// The program's name, for error messages.
    name: String,
    /// Where it was to run, for the same.
    directory: String,
    /// Until the program runs or has failed to.
    start: Option<OwnedFd>,
    /// Signals that came before the program ran; bit n - 1 is signal n.
    early_signals: u64,
    stdin: Stdin,
    stdout: Output,
    stderr: Output,
    credit: Sender,
    held: Receiver,
    exit: Option<ExitStatus>,
    detached: bool,
    cgroup: Option<Cgroup>,
    /// In the queue for a turn.
    queued: bool,
}

impl Session {
    /// Starts a session. The error is what the host is told instead.
    pub(crate) fn open(
        id: u32,
        stream: u32,
        request: &OpenSession,
        ground: &mut Ground<'_>,
    ) -> Result<Self, ExitStatus> {
        let command = Command::resolve(request, ground.settings)?;
        let cgroup = ground.cgroups.create(id);
        let failed = |error: io::Error| ExitStatus::AgentFailed {
            reason: format!("could not start a session: {error}"),
        };
        match Self::start(id, request, &command, ground, cgroup.as_ref()) {
            Ok((plumbing, spawned)) => Ok(Self {
                id,
                stream: Some(stream),
                pid: Some(spawned.pid),
                caller: None,
                answer: None,
                name: command.argv[0].to_string_lossy().into_owned(),
                directory: command.directories[0].to_string_lossy().into_owned(),
                start: Some(spawned.start),
                early_signals: 0,
                stdin: plumbing.stdin,
                stdout: plumbing.stdout,
                stderr: plumbing.stderr,
                credit: Sender::default(),
                held: Receiver::default(),
                exit: None,
                detached: request.detached,
                cgroup,
                queued: false,
            }),
            Err(error) => {
                ground.cgroups.discard(cgroup);
                Err(failed(error))
            }
        }
    }

    fn start(
        id: u32,
        request: &OpenSession,
        command: &Command,
        ground: &Ground<'_>,
        cgroup: Option<&Cgroup>,
    ) -> io::Result<(Plumbing, Spawned)> {
        let plumbing = match request.terminal {
            Some(size) => Plumbing::terminal(id, size, command.uid)?,
            None => Plumbing::pipes(id, request.detached)?,
        };
        // A terminal is one descriptor for all three; a detached session reads nothing.
        let at = |index: usize| plumbing.theirs.get(index).map(AsFd::as_fd);
        let streams = match request.terminal {
            Some(_) => (at(0), at(0), at(0)),
            None if request.detached => (Some(ground.null), at(0), at(1)),
            None => (at(2), at(0), at(1)),
        };
        let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(Errno::EBADF.into());
        };
        let terminal = request.terminal.is_some();
        let streams = Streams { stdin, stdout, stderr, terminal };
        let spawned = spawn::spawn(command, streams, cgroup.map(Cgroup::fd))?;
        for (fd, channel) in [
            (plumbing.stdout.fd(), Channel::Stdout),
            (plumbing.stderr.fd(), Channel::Stderr),
            (Some(&spawned.start), Channel::Start),
        ] {
            if let Some(fd) = fd {
                ground.epoll.add_read(fd, Token::session(id, channel))?;
            }
        }
        Ok((plumbing, spawned))
    }

    /// Whether the main process has this id.
    pub(crate) fn is(&self, pid: Pid) -> bool {
        self.pid == Some(pid)
    }

    /// A session without a process: what is in the guest is at the other ends of two descriptors.
    fn without_process(id: u32, stream: u32, stdin: Stdin, stdout: Output) -> Self {
        Self {
            id,
            stream: Some(stream),
            pid: None,
            caller: None,
            answer: None,
            name: String::new(),
            directory: String::new(),
            start: None,
            early_signals: 0,
            stdin,
            stdout,
            stderr: Output::closed(),
            credit: Sender::default(),
            held: Receiver::default(),
            exit: None,
            detached: false,
            cgroup: None,
            queued: false,
        }
    }

    /// A call that the host let through.
    ///
    /// # Errors
    /// The kernel refuses to watch its descriptors.
    pub(crate) fn call(
        id: u32,
        stream: u32,
        caller: OwnedFd,
        pipes: Pipes,
        epoll: &Epoll,
    ) -> io::Result<Self> {
        epoll.add_read(&pipes.input, Token::session(id, Channel::Stdout))?;
        epoll.only_read(&caller, Token::session(id, Channel::Start))?;
        let stdin = Stdin::pipe(pipes.output, id);
        let stdout = Output::new(pipes.input, Form::Pipe, Kind::Stdout);
        Ok(Self { caller: Some(caller), ..Self::without_process(id, stream, stdin, stdout) })
    }

    /// A service that is a socket, connected.
    ///
    /// # Errors
    /// The kernel refuses to watch it.
    pub(crate) fn socket(id: u32, stream: u32, socket: OwnedFd, epoll: &Epoll) -> io::Result<Self> {
        let writing = socket.try_clone()?;
        epoll.add_read(&socket, Token::session(id, Channel::Stdout))?;
        let stdout = Output::new(socket, Form::Pipe, Kind::Stdout);
        Ok(Self::without_process(id, stream, Stdin::socket(writing, id), stdout))
    }

    /// The service that was called has ended. False when this is no call.
    pub(crate) fn answered(&mut self, status: ExitStatus, at: &mut Desk<'_>) -> bool {
        if self.caller.is_some() {
            self.answer = Some(status);
            self.pass_answer_on(at);
        }
        self.caller.is_some()
    }

    /// Tells the caller how the service ended, behind everything that it said.
    fn pass_answer_on(&mut self, at: &mut Desk<'_>) {
        if self.exit.is_some() || !self.stdin.is_flushed() {
            return;
        }
        let (Some(caller), Some(status)) = (&self.caller, self.answer.take()) else { return };
        calls::tell_end(caller, &status);
        self.end_call(at);
    }

    /// Nothing of the call is left to do.
    fn end_call(&mut self, at: &mut Desk<'_>) {
        self.exit = Some(ExitStatus::Code(0));
        self.stdin.close();
        self.stdout.close(self.stream, at.outbox);
    }

    /// The caller's socket has something: its end, for it has nothing more to say.
    fn caller_gone(&mut self, at: &mut Desk<'_>) {
        if self.exit.is_none() {
            self.end_call(at);
        }
    }

    /// Epoll's news of one of its descriptors.
    pub(crate) fn event(&mut self, channel: Channel, hung_up: bool, at: &mut Desk<'_>) {
        match channel {
            Channel::Start if self.caller.is_some() => {
                // The registration itself may be told, without anything being there.
                let mut byte = [0];
                let fd = self.caller.as_ref().map(AsRawFd::as_raw_fd).unwrap_or(-1);
                match recv(fd, &mut byte, MsgFlags::MSG_DONTWAIT) {
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    _ => self.caller_gone(at),
                }
            }
            Channel::Start => self.poll_start(at),
            Channel::Stdin => {
                self.flush_stdin(at);
                self.pass_answer_on(at);
            }
            Channel::Stdout => self.stdout.event(hung_up),
            Channel::Stderr => self.stderr.event(hung_up),
        }
    }

    /// Looks whether the program runs by now, and says so.
    fn poll_start(&mut self, at: &mut Desk<'_>) {
        let Some(start) = &self.start else { return };
        let mut report = [0; 8];
        let count = match nix::unistd::read(start, &mut report) {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Err(_) => 0,
        };
        self.start = None;
        if let Some(failure) = StartFailure::decode(&report[..count]) {
            self.exit = Some(failure.status(&self.name, &self.directory));
            self.stdin.close();
            // What a terminal echoed is of no use to anybody.
            self.stdout.close(self.stream, at.outbox);
            self.stderr.close(self.stream, at.outbox);
            return;
        }
        let pid = self.pid.map_or(0, |pid| pid.as_raw() as u32);
        self.tell(at.outbox, Kind::Started, &pid.to_le_bytes());
        let early = std::mem::take(&mut self.early_signals);
        for signal in 1..=64 {
            if early & (1 << (signal - 1)) != 0 {
                self.signal(signal);
            }
        }
    }

    /// Bytes for the command's standard input; none at all say that there will be no more.
    pub(crate) fn input(&mut self, bytes: &[u8], at: &mut Desk<'_>) -> Result<(), CreditError> {
        self.held.received(bytes.len())?;
        let passed_on = match bytes {
            [] => self.stdin.end(at.epoll),
            bytes => self.stdin.accept(bytes, at.epoll),
        };
        self.passed_on(passed_on, at);
        Ok(())
    }

    fn flush_stdin(&mut self, at: &mut Desk<'_>) {
        let passed_on = self.stdin.flush(at.epoll);
        self.passed_on(passed_on, at);
    }

    fn passed_on(&mut self, count: usize, at: &mut Desk<'_>) {
        // An end-of-file character that the agent itself put in was never held.
        self.held.passed_on(count.min(self.held.held()));
        if let Some(credit) = self.held.give_back() {
            self.tell(at.outbox, Kind::Credit, &credit.to_le_bytes());
        }
    }

    /// The host has consumed output.
    pub(crate) fn credit(&mut self, count: u32) -> Result<(), CreditError> {
        self.credit.returned(count)
    }

    /// Tries input again that a terminal did not take. Returns whether there still is some.
    pub(crate) fn retry(&mut self, at: &mut Desk<'_>) -> bool {
        if self.stdin.wants_retry() {
            self.flush_stdin(at);
        }
        self.stdin.wants_retry()
    }

    /// One turn: a chunk of each output. Returns whether another may bring more.
    pub(crate) fn turn(&mut self, at: &mut Desk<'_>) -> bool {
        // No output precedes Started: a terminal echoes input before the program runs.
        if self.start.is_some() {
            self.poll_start(at);
            if self.start.is_some() {
                return false;
            }
        }
        let stdout = self.stdout.turn(self.stream, &mut self.credit, at.outbox);
        let stderr = self.stderr.turn(self.stream, &mut self.credit, at.outbox);
        if self.pid.is_none() && self.caller.is_none() && self.stdout.is_closed() {
            // A socket has no other end than this.
            self.exit.get_or_insert(ExitStatus::Code(0));
        }
        stdout || stderr
    }

    /// Whether an output may have something, credit aside.
    pub(crate) fn is_ready(&self) -> bool {
        self.stdout.is_ready() || self.stderr.is_ready()
    }

    /// The main process has ended.
    pub(crate) fn ended(&mut self, status: ExitStatus, at: &mut Desk<'_>) {
        self.poll_start(at);
        if self.exit.is_none() {
            self.exit = Some(status);
            self.stdin.close();
            self.stdout.command_ended();
            self.stderr.command_ended();
        }
    }

    /// Says how it ended when everything before that is said. Returns whether it is over.
    pub(crate) fn finish(&mut self, at: &mut Desk<'_>) -> bool {
        let over = self.stdout.is_closed() && self.stderr.is_closed();
        let Some(exit) = self.exit.take_if(|_| over) else { return false };
        self.tell(at.outbox, Kind::Exit, &casemate_wire::encode(&exit));
        true
    }

    /// The terminal has a new size.
    pub(crate) fn resize(&self, size: TerminalSize) {
        // Nothing to be done about a terminal that is being closed.
        let _ = self.stdout.resize(size);
    }

    /// Delivers a signal to the terminal's foreground, else to the command's process group.
    pub(crate) fn signal(&mut self, number: u8) {
        if self.start.is_some() {
            self.early_signals |= 1 << (number.saturating_sub(1) & 63);
            return;
        }
        if let Some(group) = self.stdout.foreground().or(self.pid) {
            signal_group(group, number);
        }
    }

    fn tell(&self, outbox: &mut Outbox, kind: Kind, payload: &[u8]) {
        if let Some(stream) = self.stream {
            outbox.frame(stream, kind, payload);
        }
    }
}

/// What a session needs to do its work.
pub(crate) struct Desk<'a> {
    pub(crate) epoll: &'a Epoll,
    pub(crate) outbox: &'a mut Outbox,
}

/// Sends a signal by number (real-time signals included) to a process group, or to its leader
/// when it has not made the group yet.
pub(crate) fn signal_group(group: Pid, number: u8) {
    // SAFETY: numbers only. nix's kill does not know real-time signals.
    unsafe {
        if libc::kill(-group.as_raw(), number.into()) < 0 {
            libc::kill(group.as_raw(), number.into());
        }
    }
}

/// Ends a process group at once.
pub(crate) fn kill_group(group: Pid) {
    let _ = kill(Pid::from_raw(-group.as_raw()), Signal::SIGKILL);
}
