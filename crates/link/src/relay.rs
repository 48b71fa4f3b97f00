//! The loop: waits for the port, the console, the supervisor, clients and viewers, and moves bytes
//! between them.
//!
//! **Invariant:** whatever the guest sends ends in a frame to one client, a bounded [`Report`], or
//! [`Report::Broken`], after which nothing of it is read any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use casemate_wire::limits::{MAX_SESSIONS, MAX_TEXT, MAX_WINDOWS};
use casemate_wire::text::harmless_line;
use casemate_wire::{Frame, FromGuest, FromHost, Kind, PROTOCOL_VERSION, decode, push_frame};

use crate::calls::Calls;
use crate::console::Console;
use crate::orders::{self, Order, OrderError, Report};
use crate::port::{Input, Port};
use crate::session::{ClientGone, Mark, PORT_HIGH_WATER, Phase, Session, StreamError, clean};

const PORT: u64 = 0;
const CONSOLE: u64 = 1;
const ORDERS: u64 = 2;
const SESSION: u64 = 1 << 32;
const VIEWER: u64 = 2 << 32;

/// Reports that may wait for the supervisor before words of the guest are dropped.
const REPORT_LIMIT: usize = 512;

/// What the process is started with.
#[derive(Debug)]
pub struct Descriptors {
    /// The agent's port: a connected stream socket to the VMM.
    pub port: OwnedFd,
    /// The serial console: a connected stream socket to the VMM.
    pub console: OwnedFd,
    /// The supervisor: a connected sequenced-packet socket.
    pub orders: OwnedFd,
    /// The console's log.
    pub log: File,
}

/// Why the loop ended before the supervisor wanted it to.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// epoll(7) failed.
    #[error("could not wait for descriptors")]
    Wait(#[source] std::io::Error),
    /// The supervisor said something that cannot be understood.
    #[error("could not take an order")]
    Order(#[from] OrderError),
}

impl From<Errno> for RelayError {
    fn from(errno: Errno) -> Self {
        Self::Wait(errno.into())
    }
}

/// The state of the whole process.
#[derive(Debug)]
pub struct Relay {
    epoll: Epoll,
    port: Port,
    port_watched: EpollFlags,
    port_open: bool,
    console: Console,
    console_watched: EpollFlags,
    orders: OwnedFd,
    orders_watched: EpollFlags,
    reports: VecDeque<Report>,
    sessions: BTreeMap<u32, Session>,
    calls: Calls,
    /// Connections for windows that wait for the supervisor.
    windows: BTreeSet<u32>,
}

impl Relay {
    /// Takes the descriptors and begins to watch them.
    pub fn new(descriptors: Descriptors) -> Result<Self, RelayError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let port = Port::new(descriptors.port);
        let console = Console::new(descriptors.console, descriptors.log);
        let readable = EpollFlags::EPOLLIN;
        epoll.add(&port.socket, EpollEvent::new(readable, PORT))?;
        epoll.add(&console.socket, EpollEvent::new(readable, CONSOLE))?;
        epoll.add(&descriptors.orders, EpollEvent::new(readable, ORDERS))?;
        Ok(Self {
            epoll,
            port,
            port_watched: readable,
            port_open: true,
            console,
            console_watched: readable,
            orders: descriptors.orders,
            orders_watched: readable,
            reports: VecDeque::new(),
            sessions: BTreeMap::new(),
            calls: Calls::default(),
            windows: BTreeSet::new(),
        })
    }

    /// Runs until the supervisor closes its socket.
    pub fn run(&mut self) -> Result<(), RelayError> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for event in &events[..count] {
                if self.serve(event.data(), event.events())? {
                    return Ok(());
                }
            }
            self.settle()?;
        }
    }

    /// Serves one event; true when the supervisor is gone.
    fn serve(&mut self, token: u64, flags: EpollFlags) -> Result<bool, RelayError> {
        match token {
            PORT => {
                if flags.contains(EpollFlags::EPOLLOUT) {
                    self.flush_port();
                }
                if flags.intersects(!EpollFlags::EPOLLOUT) {
                    self.read_port();
                }
            }
            CONSOLE => {
                if flags.contains(EpollFlags::EPOLLOUT) {
                    let _ = self.console.to_guest.flush(&self.console.socket);
                }
                if flags.intersects(!EpollFlags::EPOLLOUT) && !self.console.read_guest() {
                    let _ = self.epoll.delete(&self.console.socket);
                    self.console_watched = EpollFlags::empty();
                }
            }
            ORDERS => return self.read_orders(),
            token if token & VIEWER != 0 => {
                let number = token as u32;
                if !self.console.serve_viewer(number, flags)
                    && let Some(viewer) = self.console.viewers.remove(&number)
                {
                    // The other side may hold a copy, which would keep it watched.
                    let _ = self.epoll.delete(viewer.socket);
                }
            }
            token => self.serve_client(token as u32, flags),
        }
        Ok(false)
    }

    fn serve_client(&mut self, stream: u32, flags: EpollFlags) {
        let Some(session) = self.sessions.get_mut(&stream) else { return };
        let mut result = Ok(());
        if flags.contains(EpollFlags::EPOLLOUT) {
            result = session.flush();
        }
        if result.is_ok() && flags.contains(EpollFlags::EPOLLIN) {
            result = session.read_client(&mut self.port.outgoing, &self.port.socket);
        }
        // A hang-up without anything to read: the client is gone even if it is not read now.
        if result.is_ok()
            && flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
            && !flags.contains(EpollFlags::EPOLLIN)
        {
            result = session.closed(&mut self.port.outgoing, &self.port.socket);
            if result.is_ok()
                && session.watched.take().is_some()
                && let Some(socket) = session.socket()
            {
                // It would be reported for as long as the caller takes.
                let _ = self.epoll.delete(socket);
            }
        }
        if result.is_err() {
            self.client_gone(stream);
        }
    }

    fn client_gone(&mut self, stream: u32) {
        let Some(session) = self.sessions.get_mut(&stream) else { return };
        match session.phase.clone() {
            Phase::Open => {
                if session.watched.take().is_some()
                    && let Some(socket) = session.socket()
                {
                    let _ = self.epoll.delete(socket);
                }
                session.hang_up();
                session.say_gone(self.port.outgoing.tail());
                self.report(Report::Ended { stream, status: None });
            }
            Phase::Finishing(status) => {
                if session.watched.is_some()
                    && let Some(socket) = session.socket()
                {
                    let _ = self.epoll.delete(socket);
                }
                self.sessions.remove(&stream);
                self.report(Report::Ended { stream, status: Some(status) });
            }
            Phase::HungUp => {}
        }
    }

    fn flush_port(&mut self) {
        let before = self.port.outgoing.len();
        let _ = self.port.outgoing.flush(&self.port.socket);
        if before >= PORT_HIGH_WATER && self.port.outgoing.len() < PORT_HIGH_WATER {
            let streams: Vec<u32> = self.sessions.keys().copied().collect();
            for stream in streams {
                self.forward(stream);
            }
        }
    }

    /// Lets a session that was held up go on.
    fn forward(&mut self, stream: u32) {
        let Some(session) = self.sessions.get_mut(&stream) else { return };
        if session.phase == Phase::Open
            && session.go_on(&mut self.port.outgoing, &self.port.socket).is_err()
        {
            self.client_gone(stream);
        }
    }

    fn read_port(&mut self) {
        match self.port.read() {
            Input::Nothing => return,
            Input::Closed => {
                self.close_port();
                self.report(Report::PortClosed);
                return;
            }
            Input::Connected => self.abandon_sessions(),
            Input::Bytes => {}
        }
        if let Err(reason) = self.take_frames() {
            self.close_port();
            self.report(Report::Broken { reason: harmless_line(&reason, MAX_TEXT) });
        }
    }

    /// Nothing of the guest is read or written any more. Clients see their sockets end; the report
    /// of the reason tells the supervisor that all sessions are gone, and it tells the clients.
    fn close_port(&mut self) {
        if std::mem::take(&mut self.port_open) {
            let _ = self.epoll.delete(&self.port.socket);
        }
        self.sessions.clear();
        self.calls.abandon();
        self.windows.clear();
    }

    /// The commands of all sessions are gone with the connection.
    fn abandon_sessions(&mut self) {
        self.windows.clear();
        for call in self.calls.abandon() {
            self.report(Report::CallGone { call });
        }
        for (stream, session) in std::mem::take(&mut self.sessions) {
            let status = match session.phase {
                Phase::HungUp => continue,
                Phase::Finishing(status) => Some(status),
                Phase::Open => None,
            };
            self.report(Report::Ended { stream, status });
        }
    }

    fn take_frames(&mut self) -> Result<(), String> {
        loop {
            if self.port.begins_anew() {
                self.abandon_sessions();
            }
            let next = self.port.decoder.next_frame().map_err(|error| error.to_string())?;
            let Some(frame) = next else { return Ok(()) };
            if frame.stream != 0 {
                if !self.port.greeted {
                    return Err("it sent session data before its Hello".into());
                }
                let Frame { stream, kind, .. } = frame;
                let Some(session) = self.sessions.get_mut(&stream) else {
                    return Err(StreamError::UnknownStream(stream).to_string());
                };
                let outcome = session_frame(session, frame);
                self.after_session_frame(stream, kind, outcome)?;
                continue;
            }
            let message = self.port.assembler.take::<FromGuest>(frame);
            if !self.port.count_message() {
                return Err("it floods the host with control messages".into());
            }
            if let Some(message) = message.map_err(|error| error.to_string())? {
                self.take_message(message)?;
            }
        }
    }

    fn after_session_frame(
        &mut self,
        stream: u32,
        kind: Kind,
        outcome: Result<SessionEvent, StreamError>,
    ) -> Result<(), String> {
        match outcome.map_err(|error| error.to_string())? {
            SessionEvent::None => {}
            SessionEvent::Started(pid) => self.report(Report::Started { stream, pid }),
            SessionEvent::ClientGone => self.client_gone(stream),
            SessionEvent::Ended => {
                self.sessions.remove(&stream);
            }
            SessionEvent::CallerGone => {
                // Its socket closes, which leaves epoll too: the service is hung up on.
                self.sessions.remove(&stream);
                self.report(Report::Ended { stream, status: None });
            }
        }
        if kind == Kind::Credit {
            self.forward(stream);
        }
        Ok(())
    }

    fn take_message(&mut self, message: FromGuest) -> Result<(), String> {
        if let FromGuest::Hello { protocol, version, features, kernel, booted } = message {
            if self.port.greeted {
                return Err("it said Hello twice on one connection".into());
            }
            let version = harmless_line(&version, 64);
            if protocol != PROTOCOL_VERSION {
                return Err(format!(
                    "its agent {version} speaks version {protocol} of the protocol, \
                     this casemate speaks version {PROTOCOL_VERSION}"
                ));
            }
            self.port.greeted = true;
            let features = features.iter().take(32).map(|name| harmless_line(name, 64)).collect();
            let kernel = harmless_line(&kernel, 128);
            self.report(Report::Hello { version, features, kernel, booted });
            return Ok(());
        }
        if !self.port.greeted {
            return Err("its first message was not Hello".into());
        }
        self.report(match message {
            FromGuest::Hello { .. } => return Ok(()),
            FromGuest::Ready => Report::Ready,
            FromGuest::BootFailed { reason } => {
                Report::BootFailed { reason: harmless_line(&reason, MAX_TEXT) }
            }
            FromGuest::Log { text } => Report::GuestLog { text: harmless_line(&text, MAX_TEXT) },
            FromGuest::Pong { id } => Report::Pong { id },
            FromGuest::ShuttingDown => Report::ShuttingDown,
            FromGuest::RootDamaged { block } => Report::RootDamaged { block },
            FromGuest::Frozen { id, failure } => {
                let failure = failure.map(|text| harmless_line(&text, MAX_TEXT));
                Report::Frozen { id, failure }
            }
            FromGuest::Call { call, target, service } => {
                return self.calls.take(call, target, service).map(|taken| match taken {
                    Ok(report) => self.report(report),
                    Err(refusal) => self.port.say(&refusal),
                });
            }
            FromGuest::CallGone { call } => {
                if self.calls.answered(call) {
                    self.report(Report::CallGone { call });
                }
                return Ok(());
            }
            FromGuest::Windows { window } => return self.take_windows(window),
            FromGuest::NoWaypipe => Report::NoWaypipe,
            FromGuest::NoXwayland => Report::NoXwayland,
        });
        Ok(())
    }

    /// A program wants to show windows; those over the limit are told at once.
    fn take_windows(&mut self, window: u32) -> Result<(), String> {
        if self.windows.len() >= MAX_WINDOWS {
            self.port.say(&FromHost::RefuseWindows { window });
        } else if self.windows.insert(window) {
            self.report(Report::Windows { window });
        } else {
            return Err("it used the number of windows that wait for others".into());
        }
        Ok(())
    }

    /// True when the supervisor is gone.
    fn read_orders(&mut self) -> Result<bool, RelayError> {
        loop {
            match orders::receive_order(self.orders.as_fd()) {
                Ok((order, descriptors)) => self.take_order(order, descriptors),
                Err(OrderError::Closed) => return Ok(true),
                Err(error) if error.would_block() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_order(&mut self, order: Order, mut descriptors: Vec<OwnedFd>) {
        match order {
            Order::Boot(boot) => {
                self.port.say(&FromHost::Boot(boot));
                self.port.outgoing.keep_secret();
            }
            Order::Ping { id } => self.port.say(&FromHost::Ping { id }),
            Order::SetClock { nanoseconds } => self.port.say(&FromHost::SetClock { nanoseconds }),
            Order::Shutdown => self.port.say(&FromHost::Shutdown),
            Order::Freeze { id, milliseconds, memory } => {
                self.port.say(&FromHost::Freeze { id, milliseconds, memory });
                if memory {
                    self.port.outgoing.hold();
                }
            }
            Order::Thaw => {
                self.port.say(&FromHost::Thaw);
                self.port.outgoing.release();
            }
            Order::Knock => self.port.knock(),
            Order::Resumed { clock, seed } => self.port.say(&FromHost::Resumed { clock, seed }),
            Order::PortReopened => {
                self.abandon_sessions();
                self.port.reopen();
            }
            Order::View { interactive } => {
                if let Some(socket) = descriptors.pop() {
                    self.console.add_viewer(socket, interactive);
                }
            }
            Order::HangUp { stream } => self.client_gone(stream),
            Order::Signal { stream, signal } => {
                if self.sessions.get(&stream).is_some_and(|session| session.phase == Phase::Open) {
                    push_frame(self.port.outgoing.tail(), stream, Kind::Signal, &[signal]);
                }
            }
            Order::Connect { stream, call } => {
                let Some(descriptor) = descriptors.pop() else { return };
                // The connection may be another, or the caller gone: the service is hung up on.
                if !self.calls.answered(call) || !self.has_room() {
                    self.report(Report::Ended { stream, status: None });
                    return;
                }
                self.sessions.insert(stream, Session::calling(stream, descriptor));
                self.port.say(&FromHost::Connect { stream, call });
            }
            Order::Refuse { call, code, reason } => {
                if self.calls.answered(call) {
                    self.port.say(&FromHost::Refuse { call, code, reason });
                }
            }
            Order::ShowWindows { stream, window } => {
                let Some(descriptor) = descriptors.pop() else { return };
                // The connection may be another: what carries them sees its socket close.
                if !self.windows.remove(&window) || !self.has_room() {
                    self.report(Report::Ended { stream, status: None });
                    return;
                }
                self.sessions.insert(stream, Session::windows(stream, descriptor));
                self.port.say(&FromHost::ShowWindows { stream, window });
            }
            Order::RefuseWindows { window } => {
                if self.windows.remove(&window) {
                    self.port.say(&FromHost::RefuseWindows { window });
                }
            }
            Order::Open { stream, session } => {
                let Some(descriptor) = descriptors.pop() else { return };
                if !self.has_room() {
                    self.report(Report::Ended { stream, status: None });
                    return;
                }
                let opened = if session.detached {
                    Session::detached(stream, File::from(descriptor))
                } else {
                    Session::attached(stream, descriptor)
                };
                self.sessions.insert(stream, opened);
                self.port.say(&FromHost::Open { stream, session });
            }
        }
    }

    /// The supervisor bounds the sessions it opens; those hung up count here.
    fn has_room(&self) -> bool {
        self.port_open && self.sessions.len() < 2 * MAX_SESSIONS
    }

    fn report(&mut self, report: Report) {
        let news = matches!(
            report,
            Report::GuestLog { .. }
                | Report::RootDamaged { .. }
                | Report::Frozen { .. }
                | Report::NoWaypipe
                | Report::NoXwayland
        );
        if self.reports.len() >= REPORT_LIMIT && news {
            return;
        }
        self.reports.push_back(report);
    }

    /// After all events of a round: sends what waits, ends what is finished, and tells epoll what
    /// to watch from now on.
    fn settle(&mut self) -> Result<(), RelayError> {
        self.give_credit_back();
        if self.port_open {
            self.flush_port();
            let wants = readable_and(self.port.outgoing.has_sendable());
            if wants != self.port_watched {
                self.epoll.modify(&self.port.socket, &mut EpollEvent::new(wants, PORT))?;
                self.port_watched = wants;
            }
        }
        self.settle_sessions()?;
        self.settle_console()?;
        self.settle_reports()
    }

    /// Whatever clients have taken since, by reading or at once, the agent may send again.
    fn give_credit_back(&mut self) {
        for (&stream, session) in &mut self.sessions {
            if let Some(credit) = session.give_back() {
                let credit = credit.to_le_bytes();
                push_frame(self.port.outgoing.tail(), stream, Kind::Credit, &credit);
            }
        }
    }

    fn settle_sessions(&mut self) -> Result<(), RelayError> {
        let waiting = self.port.outgoing.len();
        let mut finished = Vec::new();
        for (&stream, session) in &mut self.sessions {
            if matches!(session.phase, Phase::Finishing(_)) && session.flushed() {
                finished.push(stream);
                continue;
            }
            if !session.is_watched() {
                continue;
            }
            let wants = session.wants(waiting);
            if session.watched == Some(wants) {
                continue;
            }
            let Some(socket) = session.socket() else { continue };
            watch(
                &self.epoll,
                socket,
                session.watched.is_none(),
                wants,
                SESSION | u64::from(stream),
            )?;
            session.watched = Some(wants);
        }
        for stream in finished {
            self.client_gone(stream);
        }
        Ok(())
    }

    fn settle_console(&mut self) -> Result<(), RelayError> {
        if !self.console_watched.is_empty() {
            let wants = readable_and(!self.console.to_guest.is_empty());
            if wants != self.console_watched {
                self.epoll.modify(&self.console.socket, &mut EpollEvent::new(wants, CONSOLE))?;
                self.console_watched = wants;
            }
        }
        let changes: Vec<(u32, EpollFlags)> = self
            .console
            .viewers
            .iter()
            .map(|(&number, viewer)| (number, self.console.wants(viewer)))
            .collect();
        for (number, wants) in changes {
            let Some(viewer) = self.console.viewers.get_mut(&number) else { continue };
            if viewer.watched != Some(wants) {
                let new = viewer.watched.is_none();
                watch(&self.epoll, &viewer.socket, new, wants, VIEWER | u64::from(number))?;
                viewer.watched = Some(wants);
            }
        }
        Ok(())
    }

    fn settle_reports(&mut self) -> Result<(), RelayError> {
        while let Some(report) = self.reports.front() {
            match orders::send(self.orders.as_fd(), report, &[]) {
                Ok(()) => drop(self.reports.pop_front()),
                Err(error) if error.would_block() => break,
                // The end of the supervisor is noticed where its orders are read.
                Err(_) => self.reports.clear(),
            }
        }
        let wants = readable_and(!self.reports.is_empty());
        if wants != self.orders_watched {
            self.epoll.modify(&self.orders, &mut EpollEvent::new(wants, ORDERS))?;
            self.orders_watched = wants;
        }
        Ok(())
    }
}

fn readable_and(writable: bool) -> EpollFlags {
    if writable { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN }
}

fn watch(
    epoll: &Epoll,
    socket: impl AsFd,
    new: bool,
    wants: EpollFlags,
    token: u64,
) -> Result<(), Errno> {
    let mut event = EpollEvent::new(wants, token);
    if new { epoll.add(socket, event) } else { epoll.modify(socket, &mut event) }
}

/// What a frame of a session's stream means for the rest of the process.
enum SessionEvent {
    None,
    Started(u32),
    ClientGone,
    Ended,
    CallerGone,
}

fn session_frame(session: &mut Session, frame: Frame<'_>) -> Result<SessionEvent, StreamError> {
    let told = match frame.kind {
        Kind::Started | Kind::Stderr if !session.is_command() => {
            return Err(StreamError::Kind(frame.kind));
        }
        Kind::Stdout | Kind::Stderr => {
            session.check_output(frame.kind, frame.payload)?;
            session.output(frame.kind, frame.payload)?
        }
        Kind::Credit => {
            session.credit_returned(frame.credit()?)?;
            Ok(())
        }
        Kind::Started => {
            let pid = frame.pid()?;
            session.once(Mark::Started)?;
            if session.tell_client(Kind::Started, frame.payload).is_ok() {
                return Ok(SessionEvent::Started(pid));
            }
            Err(ClientGone)
        }
        Kind::Exit => {
            session.once(Mark::Exit)?;
            let status = clean(decode(frame.payload)?);
            if session.phase == Phase::HungUp {
                return Ok(SessionEvent::Ended);
            }
            if session.is_call() {
                return Ok(SessionEvent::CallerGone);
            }
            session.finish(status)
        }
        other => return Err(StreamError::Kind(other)),
    };
    Ok(if told.is_ok() { SessionEvent::None } else { SessionEvent::ClientGone })
}
