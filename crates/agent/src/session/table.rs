//! All sessions: which frame is for which, whose turn it is, and the ends they come to.
//!
//! Turns go round: a session with output is queued once, gets one chunk per turn and goes to the
//! back. One without credit leaves the queue until the host gives some, so it costs the others
//! nothing.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use casemate_wire::{
    CreditError, ExitStatus, Frame, FrameError, Kind, MessageError, OpenSession, encode, limits,
};
use nix::libc;
use nix::unistd::Pid;

use super::cgroup::{Cgroup, Cgroups};
use super::command::Settings;
use super::service;
use super::{Desk, Ground, Session, kill_group, signal_group};
use crate::calls::Pipes;
use crate::events::Channel;

/// From hanging up to killing.
const GRACE: Duration = Duration::from_secs(1);

/// How often input is tried again that a terminal did not take.
const RETRY: Duration = Duration::from_millis(50);

/// The host did not keep to the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// A payload has not the form that its kind asks for.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A status that is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// More data or credit than there can be.
    #[error("stream {stream}: {source}")]
    Credit {
        /// Number of the stream.
        stream: u32,
        /// What is wrong with it.
        source: CreditError,
    },
    /// A kind of frame that the host does not send on a session's stream.
    #[error("stream {stream}: a frame of kind {kind:?} is not the host's to send")]
    Kind {
        /// Number of the stream.
        stream: u32,
        /// The frame's kind.
        kind: Kind,
    },
    /// A new session for a stream that is in use, or for the control stream.
    #[error("stream {0} cannot be opened: it is in use")]
    InUse(u32),
}

/// A session that was hung up on: what is left of it is killed soon.
#[derive(Debug)]
struct HungUp {
    at: Instant,
    pid: Pid,
    cgroup: Option<Cgroup>,
    detached: bool,
}

/// The sessions of this agent.
#[derive(Debug)]
pub(crate) struct Sessions {
    by_id: BTreeMap<u32, Session>,
    by_stream: BTreeMap<u32, u32>,
    last_id: u32,
    turns: VecDeque<u32>,
    hung_up: Vec<HungUp>,
    cgroups: Cgroups,
    retry: Option<Instant>,
    null: OwnedFd,
}

impl Sessions {
    /// No sessions yet. `null` is `/dev/null`, open.
    pub(crate) fn new(null: OwnedFd) -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_stream: BTreeMap::new(),
            last_id: 0,
            turns: VecDeque::new(),
            hung_up: Vec::new(),
            cgroups: Cgroups::default(),
            retry: None,
            null,
        }
    }

    /// Makes cgroups usable; called when they are mounted.
    pub(crate) fn use_cgroups(&mut self) {
        self.cgroups = Cgroups::new();
    }

    /// Starts a session. A failure is told to the host as the session's end.
    pub(crate) fn open(
        &mut self,
        stream: u32,
        request: &OpenSession,
        settings: &Settings,
        at: &mut Desk<'_>,
    ) -> Result<(), StreamError> {
        if stream == 0 || self.by_stream.contains_key(&stream) {
            return Err(StreamError::InUse(stream));
        }
        if self.by_id.len() >= limits::MAX_SESSIONS {
            let reason = format!("{} sessions run already", limits::MAX_SESSIONS);
            at.outbox.frame(stream, Kind::Exit, &encode(&ExitStatus::AgentFailed { reason }));
            return Ok(());
        }
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let id = self.last_id;
        let mut ground = Ground {
            epoll: at.epoll,
            settings,
            cgroups: &mut self.cgroups,
            null: std::os::fd::AsFd::as_fd(&self.null),
        };
        let opened = match request.service.as_ref().and_then(service::connect) {
            Some(connected) => connected.and_then(|socket| {
                Session::socket(id, stream, socket, at.epoll).map_err(service::failed)
            }),
            None => Session::open(id, stream, request, &mut ground),
        };
        match opened {
            Ok(session) => {
                self.by_id.insert(id, session);
                self.by_stream.insert(stream, id);
            }
            Err(exit) => at.outbox.frame(stream, Kind::Exit, &encode(&exit)),
        }
        Ok(())
    }

    /// Makes a session of a call that the host let through.
    pub(crate) fn call(
        &mut self,
        stream: u32,
        caller: OwnedFd,
        pipes: Pipes,
        at: &mut Desk<'_>,
    ) -> Result<(), StreamError> {
        let call = |id, at: &mut Desk<'_>| Session::call(id, stream, caller, pipes, at.epoll).ok();
        self.place(stream, at, call)
    }

    /// Makes a session of a connection that carries windows.
    pub(crate) fn windows(
        &mut self,
        stream: u32,
        socket: OwnedFd,
        at: &mut Desk<'_>,
    ) -> Result<(), StreamError> {
        let carry = |id, at: &mut Desk<'_>| Session::socket(id, stream, socket, at.epoll).ok();
        self.place(stream, at, carry)
    }

    /// Takes a session that the guest asked for. Without room for it, or without it, whoever asked sees
    /// his socket close.
    fn place(
        &mut self,
        stream: u32,
        at: &mut Desk<'_>,
        make: impl FnOnce(u32, &mut Desk<'_>) -> Option<Session>,
    ) -> Result<(), StreamError> {
        if stream == 0 || self.by_stream.contains_key(&stream) {
            return Err(StreamError::InUse(stream));
        }
        self.last_id = self.last_id.wrapping_add(1).max(1);
        let id = self.last_id;
        match make(id, at) {
            Some(session) if self.by_id.len() < limits::MAX_SESSIONS => {
                self.by_id.insert(id, session);
                self.by_stream.insert(stream, id);
            }
            _ => self.no_call(stream, at),
        }
        Ok(())
    }

    /// Whoever called has gone.
    pub(crate) fn no_call(&self, stream: u32, at: &mut Desk<'_>) {
        at.outbox.frame(stream, Kind::Exit, &encode(&ExitStatus::Code(0)));
    }

    /// A frame of the host for a session. Frames for sessions that are over are late, not wrong.
    pub(crate) fn frame(&mut self, frame: Frame<'_>, at: &mut Desk<'_>) -> Result<(), StreamError> {
        let stream = frame.stream;
        let credit_error = |source| StreamError::Credit { stream, source };
        let session = self.by_stream.get(&stream).and_then(|id| self.by_id.get_mut(id));
        match frame.kind {
            Kind::Stdin => {
                if let Some(session) = session {
                    session.input(frame.payload, at).map_err(credit_error)?;
                    if session.stdin.wants_retry() {
                        self.retry.get_or_insert_with(|| Instant::now() + RETRY);
                    }
                }
            }
            Kind::Credit => {
                let count = frame.credit()?;
                if let Some(session) = session {
                    session.credit(count).map_err(credit_error)?;
                    queue(&mut self.turns, session);
                }
            }
            Kind::Resize => {
                let size = frame.size()?;
                if let Some(session) = session {
                    session.resize(size);
                }
            }
            Kind::Signal => {
                let number = frame.signal()?;
                if let Some(session) = session {
                    session.signal(number);
                }
            }
            Kind::HangUp => {
                if let Some(id) = self.by_stream.get(&stream).copied() {
                    self.hang_up(id);
                }
            }
            Kind::Exit => {
                let status = casemate_wire::decode(frame.payload)?;
                if let Some(session) = session {
                    if !session.answered(status, at) {
                        return Err(StreamError::Kind { stream, kind: Kind::Exit });
                    }
                    let id = session.id;
                    self.finish(id, at);
                }
            }
            kind => return Err(StreamError::Kind { stream, kind }),
        }
        Ok(())
    }

    /// Epoll's news of a session's descriptor; old news of one that is over does no harm.
    pub(crate) fn event(&mut self, id: u32, channel: Channel, hung_up: bool, at: &mut Desk<'_>) {
        if let Some(session) = self.by_id.get_mut(&id) {
            session.event(channel, hung_up, at);
            queue(&mut self.turns, session);
            self.finish(id, at);
        }
    }

    /// One turn of the next session that has output and credit. False when there is none, or when
    /// the link is full.
    pub(crate) fn turn(&mut self, at: &mut Desk<'_>) -> bool {
        if !at.outbox.has_room() {
            return false;
        }
        let Some(id) = self.turns.pop_front() else { return false };
        if let Some(session) = self.by_id.get_mut(&id) {
            session.queued = false;
            if session.turn(at) {
                queue(&mut self.turns, session);
            }
            self.finish(id, at);
        }
        true
    }

    /// Whether a session waits for its turn.
    pub(crate) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// A process was reaped. Returns whether it was a session's.
    pub(crate) fn reaped(&mut self, pid: Pid, status: ExitStatus, at: &mut Desk<'_>) -> bool {
        let Some(session) = self.by_id.values_mut().find(|session| session.is(pid)) else {
            return false;
        };
        let id = session.id;
        session.ended(status, at);
        queue(&mut self.turns, session);
        self.finish(id, at);
        true
    }

    /// Forgets the session when it is over.
    fn finish(&mut self, id: u32, at: &mut Desk<'_>) {
        let over = self.by_id.get_mut(&id).is_some_and(|session| session.finish(at));
        if over && let Some(session) = self.by_id.remove(&id) {
            if let Some(stream) = session.stream {
                self.by_stream.remove(&stream);
            }
            self.cgroups.discard(session.cgroup);
        }
    }

    /// The client is gone: the session is forgotten, its processes are asked to end and, a second
    /// later, ended.
    fn hang_up(&mut self, id: u32) {
        let Some(session) = self.by_id.remove(&id) else { return };
        if let Some(stream) = session.stream {
            self.by_stream.remove(&stream);
        }
        // A caller sees its socket close.
        let Some(pid) = session.pid else { return };
        signal_group(pid, libc::SIGHUP as u8);
        // A stopped process hears it only when it goes on.
        signal_group(pid, libc::SIGCONT as u8);
        self.hung_up.push(HungUp {
            at: Instant::now() + GRACE,
            pid,
            cgroup: session.cgroup,
            detached: session.detached,
        });
    }

    /// The connection is lost, and with it every client. Detached sessions go on unheard.
    pub(crate) fn abandon(&mut self) {
        self.by_stream.clear();
        let attached: Vec<u32> =
            self.by_id.values().filter(|session| !session.detached).map(|s| s.id).collect();
        for id in attached {
            self.hang_up(id);
        }
        for session in self.by_id.values_mut() {
            session.stream = None;
            queue(&mut self.turns, session);
        }
    }

    /// Hangs up on every terminal: the guest shuts down, and shells ignore SIGTERM.
    pub(crate) fn hang_up_terminals(&self) {
        for session in self.by_id.values() {
            if let (Some(_), Some(pid)) = (session.stdout.foreground(), session.pid) {
                signal_group(pid, libc::SIGHUP as u8);
            }
        }
    }

    /// When [`Sessions::tick`] wants to be called, if at all.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.hung_up.iter().map(|hung_up| hung_up.at).chain(self.retry).min()
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant, at: &mut Desk<'_>) {
        if self.retry.is_some_and(|retry| retry <= now) {
            let mut again = false;
            for session in self.by_id.values_mut() {
                again |= session.retry(at);
            }
            self.retry = again.then(|| now + RETRY);
        }
        let cgroups = &mut self.cgroups;
        self.hung_up.retain_mut(|hung_up| {
            if hung_up.at > now {
                return true;
            }
            kill_group(hung_up.pid);
            if let (Some(cgroup), false) = (&hung_up.cgroup, hung_up.detached) {
                cgroup.kill();
            }
            cgroups.discard(hung_up.cgroup.take());
            false
        });
    }

    /// Removes the cgroups of sessions whose last process has gone.
    pub(crate) fn tidy(&mut self) {
        self.cgroups.tidy();
    }
}

/// Queues a session for a turn when it may have output and is not queued yet.
fn queue(turns: &mut VecDeque<u32>, session: &mut Session) {
    if session.is_ready() && !session.queued {
        session.queued = true;
        turns.push_back(session.id);
    }
}
