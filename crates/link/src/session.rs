//! One session: a client's socket on one side, a stream of the link on the other.
//!
//! ```text
//! Open ──client closes──▶ HungUp ──Exit──▶ gone
//!   └────────Exit───────▶ Finishing ──everything flushed──▶ gone
//! ```
//!
//! A detached session has a file in the place of the client; it is never hung up by itself.
//!
//! On the stream of a call the guest has the caller, and the client's place has the service: a session
//! of another link, whose client this end is. What the one says as output the other hears as input.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv};

use casemate_wire::limits::MAX_TEXT;
use casemate_wire::text::harmless_line;
use casemate_wire::{
    CreditError, Decoder, ExitStatus, FrameError, Kind, Receiver, Sender, decode, encode,
    encode_header, push_frame,
};

use crate::queue::{Queue, Written};

/// Output of a detached session that is kept, in bytes. What comes after is dropped, with a line
/// that says so, because nobody bounds what a command may print in a month.
const DETACHED_LOG_LIMIT: u64 = 16 * 1024 * 1024;

/// Bytes of windows that are read at once: as the agent sends them.
const PLAIN_PIECE: usize = 32 * 1024;

/// Bytes waiting for the guest above which clients are not read.
pub(crate) const PORT_HIGH_WATER: usize = 256 * 1024;

/// Where the session is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Both ends are there.
    Open,
    /// The command has ended; the client has not yet taken everything.
    Finishing(ExitStatus),
    /// The client has gone; the agent has not yet said that the command ended.
    HungUp,
}

/// What the guest has at its end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// A command that the client runs.
    Command,
    /// The end of what carries windows. The socket takes and gives bytes as they are.
    Windows,
    /// A caller of a service. The socket leads to the service's session, or to a program of the host.
    Caller {
        /// It was told how the service ended.
        answered: bool,
    },
}

/// The host side of a session.
#[derive(Debug)]
enum End {
    Client {
        socket: OwnedFd,
        decoder: Decoder,
        queue: Queue,
    },
    /// What carries windows.
    Plain {
        socket: OwnedFd,
        queue: Queue,
    },
    Log {
        file: File,
        written: u64,
    },
    /// The client has gone; what still comes is dropped.
    Nobody,
}

/// What an agent says at most once of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Started = 1,
    StdoutEnd = 2,
    StderrEnd = 4,
    Exit = 8,
}

/// A session and its flow control.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) stream: u32,
    pub(crate) phase: Phase,
    /// What epoll was last told to watch; none for a file, which cannot be watched.
    pub(crate) watched: Option<EpollFlags>,
    /// The [`Mark`]s that were said.
    said: u8,
    inside: Inside,
    /// The socket's other end is closed; what is left in it is still for the caller.
    closed: bool,
    end: End,
    to_guest: Sender,
    from_guest: Receiver,
}

/// Why a session's client was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientGone;

impl Session {
    /// A session whose client is at the other end of `socket`.
    pub(crate) fn attached(stream: u32, socket: OwnedFd) -> Self {
        let end = End::Client { socket, decoder: Decoder::new(), queue: Queue::default() };
        Self::new(stream, end)
    }

    /// A call whose service's session is at the other end of `socket`.
    pub(crate) fn calling(stream: u32, socket: OwnedFd) -> Self {
        Self { inside: Inside::Caller { answered: false }, ..Self::attached(stream, socket) }
    }

    /// Windows of a program, whose way to the desktop begins at the other end of `socket`.
    pub(crate) fn windows(stream: u32, socket: OwnedFd) -> Self {
        let end = End::Plain { socket, queue: Queue::default() };
        Self { inside: Inside::Windows, ..Self::new(stream, end) }
    }

    /// A session whose output goes to `file`.
    pub(crate) fn detached(stream: u32, file: File) -> Self {
        let written = file.metadata().map_or(0, |metadata| metadata.len());
        Self::new(stream, End::Log { file, written })
    }

    fn new(stream: u32, end: End) -> Self {
        Self {
            stream,
            phase: Phase::Open,
            watched: None,
            said: 0,
            inside: Inside::Command,
            closed: false,
            end,
            to_guest: Sender::default(),
            from_guest: Receiver::default(),
        }
    }

    /// The socket to watch, if the session has one.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.end {
            End::Client { socket, .. } | End::Plain { socket, .. } => Some(socket.as_fd()),
            End::Log { .. } | End::Nobody => None,
        }
    }

    /// The socket and what waits for it.
    fn queue(&mut self) -> Option<(&OwnedFd, &mut Queue)> {
        match &mut self.end {
            End::Client { socket, queue, .. } | End::Plain { socket, queue } => {
                Some((socket, queue))
            }
            End::Log { .. } | End::Nobody => None,
        }
    }

    /// What to watch the socket for, given how much waits for the guest.
    pub(crate) fn wants(&self, port_waiting: usize) -> EpollFlags {
        let (End::Client { queue, .. } | End::Plain { queue, .. }) = &self.end else {
            return EpollFlags::empty();
        };
        let mut flags = EpollFlags::empty();
        if !queue.is_empty() {
            flags |= EpollFlags::EPOLLOUT;
        }
        if self.phase == Phase::Open && !self.is_blocked() && port_waiting < PORT_HIGH_WATER {
            flags |= EpollFlags::EPOLLIN;
        }
        flags
    }

    /// Everything the client shall have was taken by its socket.
    pub(crate) fn flushed(&self) -> bool {
        match &self.end {
            End::Client { queue, .. } | End::Plain { queue, .. } => queue.is_empty(),
            End::Log { .. } | End::Nobody => true,
        }
    }

    /// Reads from the client once and forwards whole frames into the port.
    pub(crate) fn read_client(
        &mut self,
        port: &mut Queue,
        port_socket: &OwnedFd,
    ) -> Result<(), ClientGone> {
        if let End::Plain { .. } = self.end {
            return self.read_plain(port, port_socket);
        }
        if self.receive()? { self.forward(port, port_socket) } else { Ok(()) }
    }

    /// Reads once what the guest may be sent, and sends it.
    fn read_plain(&mut self, port: &mut Queue, port_socket: &OwnedFd) -> Result<(), ClientGone> {
        let End::Plain { socket, .. } = &self.end else { return Ok(()) };
        let mut piece = [0; PLAIN_PIECE];
        let room = self.to_guest.available().min(piece.len());
        if room == 0 {
            return Ok(());
        }
        let count = match recv(socket.as_raw_fd(), &mut piece[..room], MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(ClientGone),
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(_) => return Err(ClientGone),
        };
        self.to_guest.spend(count);
        let header = encode_header(self.stream, Kind::Stdin, count);
        // A port that is closed is noticed where it is read.
        let _ = port.send_or_queue(port_socket, &header, &piece[..count]);
        Ok(())
    }

    /// Reads from the client once. False when nothing is there.
    fn receive(&mut self) -> Result<bool, ClientGone> {
        let End::Client { socket, decoder, .. } = &mut self.end else { return Ok(false) };
        let space = decoder.space();
        if space.is_empty() {
            return Ok(true);
        }
        match recv(socket.as_raw_fd(), space, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(ClientGone),
            Ok(count) => {
                decoder.filled(count);
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(_) => Err(ClientGone),
        }
    }

    /// The socket's other end was closed. A client that has gone wants nothing any more; a service
    /// that has ended may have said more than its caller has taken.
    pub(crate) fn closed(
        &mut self,
        port: &mut Queue,
        port_socket: &OwnedFd,
    ) -> Result<(), ClientGone> {
        if !self.is_call() {
            return Err(ClientGone);
        }
        self.closed = true;
        self.go_on(port, port_socket)
    }

    /// Forwards what waited, after credit came back or the port took something.
    pub(crate) fn go_on(
        &mut self,
        port: &mut Queue,
        port_socket: &OwnedFd,
    ) -> Result<(), ClientGone> {
        self.forward(port, port_socket)?;
        while self.closed && !self.is_blocked() && port.len() < PORT_HIGH_WATER {
            if !self.receive()? {
                return Err(ClientGone);
            }
            self.forward(port, port_socket)?;
        }
        Ok(())
    }

    /// A whole frame of the client waits for credit or for the port.
    fn is_blocked(&self) -> bool {
        match &self.end {
            End::Client { decoder, .. } => matches!(decoder.peek(), Ok(Some(_))),
            End::Plain { .. } => self.to_guest.available() == 0,
            End::Log { .. } | End::Nobody => false,
        }
    }

    /// Whether events of its socket mean anything still.
    pub(crate) fn is_watched(&self) -> bool {
        self.phase != Phase::HungUp && !self.closed
    }

    /// Forwards the client's frames as far as credit and the port's queue allow.
    fn forward(&mut self, port: &mut Queue, port_socket: &OwnedFd) -> Result<(), ClientGone> {
        let End::Client { decoder, .. } = &mut self.end else { return Ok(()) };
        loop {
            let Some((_, kind, length)) = decoder.peek().map_err(|_| ClientGone)? else {
                return Ok(());
            };
            let input = match self.inside {
                Inside::Command | Inside::Windows => Kind::Stdin,
                Inside::Caller { .. } => Kind::Stdout,
            };
            if port.len() >= PORT_HIGH_WATER
                || (kind == input && length > self.to_guest.available())
            {
                return Ok(());
            }
            let Ok(Some(frame)) = decoder.next_frame() else { return Err(ClientGone) };
            match (self.inside, frame.kind) {
                (_, kind) if kind == input => self.to_guest.spend(length),
                (Inside::Command, Kind::Resize) => drop(frame.size().map_err(|_| ClientGone)?),
                // What a service says aside is not for its caller.
                (Inside::Caller { .. }, Kind::Started | Kind::Stderr) => continue,
                (Inside::Caller { answered }, Kind::Exit) => {
                    let status = decode(frame.payload).map_err(|_| ClientGone)?;
                    if !answered {
                        self.inside = Inside::Caller { answered: true };
                        push_frame(port.tail(), self.stream, Kind::Exit, &encode(&clean(status)));
                    }
                    return Err(ClientGone);
                }
                _ => return Err(ClientGone),
            }
            let kind = if input == Kind::Stdout { Kind::Stdin } else { frame.kind };
            let header = encode_header(self.stream, kind, length);
            // A port that is closed is noticed where it is read.
            let _ = port.send_or_queue(port_socket, &header, frame.payload);
        }
    }

    /// Tells the guest that nobody is at the other end any more.
    pub(crate) fn say_gone(&self, port: &mut Vec<u8>) {
        match self.inside {
            Inside::Command | Inside::Windows => {
                push_frame(port, self.stream, Kind::HangUp, &[]);
            }
            Inside::Caller { answered: true } => {}
            Inside::Caller { answered: false } => {
                let reason = "the service ended without saying how".into();
                let status = encode(&ExitStatus::AgentFailed { reason });
                push_frame(port, self.stream, Kind::Exit, &status);
            }
        }
    }

    /// The guest has a caller at its end.
    pub(crate) fn is_call(&self) -> bool {
        matches!(self.inside, Inside::Caller { .. })
    }

    /// The guest has a command at its end.
    pub(crate) fn is_command(&self) -> bool {
        self.inside == Inside::Command
    }

    /// Notes a mark. Said twice, or after the end, it is a breach: such frames cost no credit, so
    /// any number of them could be queued for a client that does not read.
    pub(crate) fn once(&mut self, mark: Mark) -> Result<(), StreamError> {
        if self.said & (mark as u8 | Mark::Exit as u8) != 0 {
            return Err(StreamError::Repeated(mark));
        }
        self.said |= mark as u8;
        Ok(())
    }

    /// Output has to come before the end of its direction.
    pub(crate) fn check_output(&mut self, kind: Kind, payload: &[u8]) -> Result<(), StreamError> {
        let mark = if kind == Kind::Stdout { Mark::StdoutEnd } else { Mark::StderrEnd };
        if payload.is_empty() {
            return self.once(mark);
        }
        if self.said & (mark as u8 | Mark::Exit as u8) != 0 {
            return Err(StreamError::Repeated(mark));
        }
        Ok(())
    }

    /// The agent has consumed `count` bytes of standard input.
    pub(crate) fn credit_returned(&mut self, count: u32) -> Result<(), CreditError> {
        self.to_guest.returned(count)
    }

    /// Output arrived from the guest. `Err(ClientGone)` inside when nobody takes it.
    pub(crate) fn output(
        &mut self,
        kind: Kind,
        payload: &[u8],
    ) -> Result<Result<(), ClientGone>, CreditError> {
        self.from_guest.received(payload.len())?;
        let kind = if self.is_call() { Kind::Stdin } else { kind };
        match &mut self.end {
            End::Client { socket, queue, .. } => {
                let header = encode_header(0, kind, payload.len());
                match queue.send_or_queue(socket, &header, payload) {
                    Written::Closed => return Ok(self.cannot_write()),
                    Written::Some(_) => self.passed_on(),
                }
            }
            End::Plain { socket, queue } => match queue.send_or_queue(socket, &[], payload) {
                Written::Closed => return Ok(Err(ClientGone)),
                Written::Some(_) => self.passed_on(),
            },
            End::Log { file, written } => {
                append(file, written, payload);
                self.from_guest.passed_on(payload.len());
            }
            End::Nobody => self.from_guest.passed_on(payload.len()),
        }
        Ok(Ok(()))
    }

    /// A small frame without credit for the client: Started or Exit.
    pub(crate) fn tell_client(&mut self, kind: Kind, payload: &[u8]) -> Result<(), ClientGone> {
        let End::Client { socket, queue, .. } = &mut self.end else { return Ok(()) };
        let header = encode_header(0, kind, payload.len());
        match queue.send_or_queue(socket, &header, payload) {
            Written::Closed => Err(ClientGone),
            Written::Some(_) => Ok(()),
        }
    }

    /// The command ended.
    pub(crate) fn finish(&mut self, status: ExitStatus) -> Result<(), ClientGone> {
        let told = self.tell_client(Kind::Exit, &encode(&status));
        self.phase = Phase::Finishing(status);
        told
    }

    /// The client's socket can take more.
    pub(crate) fn flush(&mut self) -> Result<(), ClientGone> {
        let Some((socket, queue)) = self.queue() else { return Ok(()) };
        match queue.flush(socket) {
            Written::Closed => self.cannot_write(),
            Written::Some(_) => {
                self.passed_on();
                Ok(())
            }
        }
    }

    /// The socket takes nothing any more. What a service that has ended said before is still read; its
    /// end is seen there.
    fn cannot_write(&mut self) -> Result<(), ClientGone> {
        if !self.is_call() {
            return Err(ClientGone);
        }
        if let End::Client { queue, .. } = &mut self.end {
            *queue = Queue::default();
        }
        self.passed_on();
        Ok(())
    }

    /// Credit to give back to the agent now.
    pub(crate) fn give_back(&mut self) -> Option<u32> {
        self.from_guest.give_back()
    }

    /// What is held and no longer queued was passed on. Headers in the queue count as data, so that
    /// frames of one byte cannot make it grow beyond the window.
    fn passed_on(&mut self) {
        let Some((_, queue)) = self.queue() else { return };
        let waiting = queue.len();
        let gone = self.from_guest.held().saturating_sub(waiting);
        self.from_guest.passed_on(gone);
    }

    /// Forgets the client.
    pub(crate) fn hang_up(&mut self) {
        self.phase = Phase::HungUp;
        let held = self.from_guest.held();
        self.from_guest.passed_on(held);
        self.end = End::Nobody;
    }
}

/// The reasons in a status are a guest's words.
pub(crate) fn clean(status: ExitStatus) -> ExitStatus {
    let clean = |reason: String| harmless_line(&reason, MAX_TEXT);
    match status {
        ExitStatus::Code(_) | ExitStatus::Signal(_) => status,
        ExitStatus::NotFound { reason } => ExitStatus::NotFound { reason: clean(reason) },
        ExitStatus::NotExecutable { reason } => ExitStatus::NotExecutable { reason: clean(reason) },
        ExitStatus::AgentFailed { reason } => ExitStatus::AgentFailed { reason: clean(reason) },
    }
}

/// Appends to a detached session's log, within [`DETACHED_LOG_LIMIT`].
fn append(file: &mut File, written: &mut u64, payload: &[u8]) {
    if *written >= DETACHED_LOG_LIMIT {
        return;
    }
    let left = usize::try_from(DETACHED_LOG_LIMIT - *written).unwrap_or(usize::MAX);
    let piece = &payload[..payload.len().min(left)];
    // A full disk loses log, not the session.
    let _ = file.write_all(piece);
    *written += piece.len() as u64;
    if *written >= DETACHED_LOG_LIMIT {
        let _ = file.write_all(b"\n[casemate: the log has reached its limit of 16 MiB]\n");
    }
}

/// A frame the agent may not send on a session's stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// Malformed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Against the flow control.
    #[error(transparent)]
    Credit(#[from] CreditError),
    /// An exit status that is none.
    #[error(transparent)]
    Message(#[from] casemate_wire::MessageError),
    /// Not for this direction.
    #[error("a frame of kind {0:?} does not come from a guest")]
    Kind(Kind),
    /// Said again, or after the end.
    #[error("{0:?} was said before, or comes after the end of its session")]
    Repeated(Mark),
    /// Nobody opened this stream.
    #[error("stream {0} does not exist")]
    UnknownStream(u32),
}
