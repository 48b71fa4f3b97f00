//! The life of one compartment, as a pure state machine: events in, effects out.
//!
//! ```text
//!            Launched            Hello, Ready               Pause
//! preparing ─────────▶ booting ──────────────▶ running ◀──────────▶ paused
//!                         │                       │ Stop, idle, SIGTERM │
//!                         │     failed            ▼                     │
//!                         └──────────────────▶ stopping ◀───────────────┘
//!                                                 │ VMM gone
//!                       back-off, Start, Run      ▼ shall it be started again?
//! preparing ◀──────────────────────── waiting ◀── yes
//!                                        │ Stop   no
//!                                        └──────▶ over (stopped, or failed with a reason)
//! ```
//!
//! It does nothing itself and reads no clock: the time comes with each event. Whoever drives it
//! ([`crate::runtime`]) carries the effects out in order. Only the host decides when a life ends;
//! what a guest says can end it sooner, never lengthen it.

mod health;
mod restart;
mod snapshot;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use casemate_link::orders::{Order, Report};
use casemate_plan::process::Role;
use casemate_plan::service::{HealthCheck, Restart};
use casemate_wire::limits::MAX_SESSIONS;
use casemate_wire::text::harmless_line;
use casemate_wire::{Boot, ExitStatus, OpenSession};

use crate::control::{Failure, Progress, Request, Run, SessionStatus};
use health::{Health, Verdict};
use restart::Restarts;
use snapshot::Shot;

/// Longest command shown in a status, in bytes.
const COMMAND_TEXT: usize = 200;

/// From the end of the guest to the end of its processes, before they are killed.
const EXIT_DEADLINE: Duration = Duration::from_secs(2);

/// Lines of the guest that one life keeps in its log: at 4 KiB each, 4 MiB.
const GUEST_LINES: u32 = 1000;

/// signal(7).
const SIGKILL: u8 = 9;

/// Number of a client's request, given by the runtime.
pub type RequestId = u64;

/// What the life is told.
#[derive(Debug)]
pub enum Event {
    /// All processes were started.
    Launched,
    /// A client asks for something.
    Request(RequestId, Request),
    /// A client's connection is closed.
    RequestGone(RequestId),
    /// The link process reports.
    Report(Report),
    /// QMP: the guest was reset or powered off.
    GuestStopped {
        /// It did not power off but was reset, as after a kernel panic.
        reset: bool,
    },
    /// QMP: the guest opened (or closed) the agent's port.
    PortOpened(bool),
    /// A process has ended; how, in words.
    Exited(Role, String),
    /// SIGTERM or SIGINT.
    Terminate,
    /// The time of [`Life::deadline`] has come.
    Deadline,
    /// What the VMM was asked to do for a snapshot is done, or it refused.
    MachineDid {
        /// The snapshot's number.
        snapshot: u32,
        /// Why not.
        result: Result<(), String>,
    },
    /// [`Effect::KeepSnapshot`] is done, or could not be.
    SnapshotKept {
        /// The snapshot's number.
        snapshot: u32,
        /// Why not.
        result: Result<(), String>,
    },
}

/// What the runtime shall do.
#[derive(Debug)]
pub enum Effect {
    /// Send the link process an order, with the descriptor that came with a request.
    Order(Order, Option<RequestId>),
    /// Fill in clock and seed, and send the agent its orders.
    SendBoot(Box<Boot>),
    /// Send the link an order for a detached session, with a new log file for it.
    OpenDetached(u32, Box<OpenSession>),
    /// Ask the VMM to stop (false) or continue (true) executing guest code.
    Execute(bool),
    /// Kill every process.
    Kill,
    /// Tell a client something and wait for more.
    Progress(RequestId, Progress),
    /// Tell a client the last thing.
    Reply(RequestId, Result<Progress, Failure>),
    /// Run a health check: the same, always with the same log.
    OpenCheck(u32, Box<OpenSession>),
    /// Everything of the last launch is gone: undo what is left of it.
    ClearUp,
    /// Start all processes again.
    Relaunch,
    /// Start again under TCG: this KVM never brought a guest up.
    RelaunchWithoutKvm,
    /// Write a line to the log; true for a warning.
    Log(bool, String),
    /// Make a new layer for each volume and the VMM know it; [`Event::MachineDid`] follows.
    PrepareSnapshot {
        /// The snapshot's number.
        number: u32,
        /// Its name, as the client gave it.
        name: String,
    },
    /// Let the VMM go over to the new layers; [`Event::MachineDid`] follows.
    SwitchLayers {
        /// The snapshot's number.
        number: u32,
    },
    /// Write down that the VMM went over; always the last effect, and [`Event::SnapshotKept`]
    /// follows.
    KeepSnapshot {
        /// The snapshot's number.
        number: u32,
    },
    /// Remove the new layers, to which nothing went over.
    DropSnapshot {
        /// The snapshot's number.
        number: u32,
    },
}

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As somebody wanted.
    Stopped {
        /// Why, in words.
        why: String,
    },
    /// Otherwise.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl Outcome {
    /// It did not end as somebody wanted.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// State of the life.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Preparing,
    Booting {
        deadline: Instant,
        greeted: bool,
    },
    Running,
    Paused,
    Stopping {
        deadline: Instant,
        outcome: Outcome,
        killed: bool,
    },
    /// Nothing runs; it is started again at this time.
    Waiting {
        until: Instant,
    },
    Over(Outcome),
}

/// What the life is decided by; from the plan.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What the agent is told.
    pub guest: Boot,
    /// From launch to ready.
    pub boot_deadline: Duration,
    /// From the wish to stop to the end of the guest.
    pub stop_deadline: Duration,
    /// End this long after the last session.
    pub idle_timeout: Option<Duration>,
    /// End with the first session.
    pub fresh: bool,
    /// The VM runs under KVM; these are the terms of the same under TCG, which may be tried
    /// instead.
    pub without_kvm: Option<Box<Terms>>,
    /// Whether it is started again when it ended by itself.
    pub restart: Restart,
    /// How it is found out whether what it is for works.
    pub health_check: Option<HealthCheck>,
    /// Said to the user at each start.
    pub notes: Vec<String>,
}

#[derive(Debug)]
struct Session {
    requester: Option<RequestId>,
    command: String,
    user: Option<String>,
    pid: Option<u32>,
    detached: bool,
    since: Instant,
}

/// One life.
#[derive(Debug)]
pub struct Life {
    terms: Terms,
    state: State,
    sessions: BTreeMap<u32, Session>,
    next_stream: u32,
    /// Requests that wait for the guest to be ready.
    waiting: BTreeMap<RequestId, Option<Box<Run>>>,
    /// Requests that wait for the end.
    stopping: Vec<RequestId>,
    alive: Vec<Role>,
    idle_since: Option<Instant>,
    had_session: bool,
    /// Somebody asked for the end.
    stop_wanted: bool,
    guest_shuts_down: bool,
    /// Lines it may still write to the log.
    guest_lines: u32,
    /// QMP said that the guest was reset (true) or powered off (false).
    guest_reset: Option<bool>,
    port_closed: bool,
    root_damaged: bool,
    /// The share whose server ended unasked, how, and until when the VMM may turn out to be the
    /// reason: a server ends with the connection to it.
    share_exit: Option<(u16, String, Instant)>,
    /// How the VMM ended unasked, and until when the link may report the guest's last words.
    vmm_exit: Option<(String, Instant)>,
    agent: Option<(String, String)>,
    health: Option<Health>,
    restarts: Restarts,
    /// Why it ended, the last time before this one.
    last_end: Option<String>,
    /// What went wrong would go wrong again: it is not started again.
    hopeless: bool,
    /// The snapshot that is being taken.
    shot: Option<Shot>,
    /// Snapshots begun so far, by which they are numbered.
    shots: u32,
    effects: Vec<Effect>,
}

impl Life {
    /// A life whose processes are about to be started.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            state: State::Preparing,
            sessions: BTreeMap::new(),
            next_stream: 1,
            waiting: BTreeMap::new(),
            stopping: Vec::new(),
            alive: Vec::new(),
            idle_since: None,
            had_session: false,
            stop_wanted: false,
            guest_shuts_down: false,
            guest_lines: GUEST_LINES,
            guest_reset: None,
            port_closed: false,
            root_damaged: false,
            share_exit: None,
            vmm_exit: None,
            agent: None,
            health: None,
            restarts: Restarts::default(),
            last_end: None,
            hopeless: false,
            shot: None,
            shots: 0,
            effects: Vec::new(),
        }
    }

    /// Takes an event; returns what to do, in order.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Launched => {
                self.alive = vec![Role::Link, Role::Vmm];
                self.alive
                    .extend((0..self.terms.guest.shares.len()).map(|n| Role::Share(n as u16)));
                self.port_closed = false;
                self.guest_reset = None;
                let deadline = now + self.terms.boot_deadline;
                self.log(false, "started".into());
                self.state = State::Booting { deadline, greeted: false };
                self.tell_waiting();
            }
            Event::Request(id, request) => self.request(id, request, now),
            Event::RequestGone(id) => self.request_gone(id, now),
            Event::Report(report) => self.report(report, now),
            Event::GuestStopped { reset } => self.guest_reset = Some(reset),
            // The agent has gone; the next may come. Its coming is seen by its preamble.
            Event::PortOpened(false) if self.agent.is_some() => self.order(Order::PortReopened),
            Event::PortOpened(_) => {}
            Event::Exited(role, how) => self.exited(role, &how, now),
            Event::Terminate => {
                self.stop_wanted = true;
                self.stop("its supervisor was asked to end", false, now);
            }
            Event::Deadline => self.deadline_passed(now),
            Event::MachineDid { snapshot, result } => self.machine_did(snapshot, result, now),
            Event::SnapshotKept { snapshot, result } => self.kept(snapshot, result, now),
        }
        std::mem::take(&mut self.effects)
    }

    /// When to send [`Event::Deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        if let Some((_, patience)) = &self.vmm_exit {
            return Some(*patience);
        }
        if let Some((_, _, patience)) = &self.share_exit {
            return Some(*patience);
        }
        match &self.state {
            State::Booting { deadline, .. } | State::Stopping { deadline, .. } => Some(*deadline),
            // It does not end of idleness in the middle of a snapshot.
            State::Running if self.shot.as_ref().is_some_and(|shot| shot.deadline().is_some()) => {
                self.shot.as_ref()?.deadline()
            }
            State::Running => {
                let check = self.health.as_ref().map(Health::deadline);
                check.into_iter().chain(self.idle_end()).min()
            }
            State::Waiting { until } => Some(*until),
            State::Preparing | State::Paused | State::Over(_) => None,
        }
    }

    fn idle_end(&self) -> Option<Instant> {
        Some(self.idle_since? + self.terms.idle_timeout?)
    }

    /// How it ended, once it did.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// It has ended, or is ending, otherwise than somebody wanted.
    pub fn has_failed(&self) -> bool {
        matches!(
            &self.state,
            State::Over(Outcome::Failed { .. })
                | State::Stopping { outcome: Outcome::Failed { .. }, .. }
        )
    }

    /// The state in one word.
    pub fn state(&self) -> &'static str {
        match &self.state {
            State::Preparing => "preparing",
            State::Booting { .. } => "booting",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopping { .. } => "stopping",
            State::Waiting { .. } => "waiting",
            State::Over(Outcome::Stopped { .. }) => "stopped",
            State::Over(Outcome::Failed { .. }) => "failed",
        }
    }

    /// The agent's version and the guest's kernel, once known.
    pub fn agent(&self) -> Option<&(String, String)> {
        self.agent.as_ref()
    }

    /// `starting`, `healthy` or `unhealthy`; none when nothing is running or nothing is checked.
    pub fn health(&self) -> Option<&'static str> {
        self.health.as_ref().map(Health::state)
    }

    /// How often it was started again by itself, and why it ended the last time.
    pub fn restarts(&self) -> (u32, Option<&str>) {
        (self.restarts.count, self.last_end.as_deref())
    }

    /// What the user should know.
    pub fn notes(&self) -> &[String] {
        &self.terms.notes
    }

    /// The running sessions.
    pub fn sessions(&self, now: Instant) -> Vec<SessionStatus> {
        let status = |(&stream, session): (&u32, &Session)| SessionStatus {
            session: stream,
            command: session.command.clone(),
            user: session.user.clone(),
            pid: session.pid,
            detached: session.detached,
            age: now.duration_since(session.since).as_secs(),
        };
        self.sessions.iter().map(status).collect()
    }

    /// A step of the start failed.
    pub fn could_not_launch(&mut self, reason: String, now: Instant) -> Vec<Effect> {
        self.fail(reason, now);
        std::mem::take(&mut self.effects)
    }

    /// Ends the life for good: another try would fail as well, or do harm.
    pub fn give_up(&mut self, reason: String, now: Instant) -> Vec<Effect> {
        self.hopeless = true;
        self.could_not_launch(reason, now)
    }

    fn request(&mut self, id: RequestId, request: Request, now: Instant) {
        match request {
            // The runtime answers it, it knows the process ids.
            Request::Status => {}
            Request::Start => match &self.state {
                State::Running | State::Paused => self.reply_ready(id, None),
                State::Preparing | State::Booting { .. } | State::Waiting { .. } => {
                    self.wait_for_guest(id, None);
                }
                _ if self.comes_back() => self.wait_for_guest(id, None),
                _ => self.refuse_late(id),
            },
            Request::Run(run) => match &self.state {
                // A fresh disposable is for one command: what another left in it is not for this.
                _ if self.terms.fresh
                    && (self.had_session || self.waiting.values().any(Option::is_some)) =>
                {
                    self.refuse_late(id);
                }
                State::Running => self.open(id, &run, now),
                State::Preparing | State::Booting { .. } | State::Waiting { .. } => {
                    self.wait_for_guest(id, Some(run));
                }
                State::Paused => self.refuse(id, Failure::WrongState { state: "paused".into() }),
                _ if self.comes_back() => self.wait_for_guest(id, Some(run)),
                _ => self.refuse_late(id),
            },
            Request::Stop(stop) => {
                self.stopping.push(id);
                if self.outcome().is_some() {
                    self.reply_stopped();
                } else {
                    self.stop_wanted = true;
                    self.stop("it was asked to stop", stop.force, now);
                }
            }
            Request::Pause if self.shot.is_some() => {
                self.refuse(id, Failure::WrongState { state: "taking a snapshot".into() });
            }
            Request::Pause => self.execute(id, &State::Running, &State::Paused, false),
            Request::Resume => {
                self.execute(id, &State::Paused, &State::Running, true);
                // Time in which nothing could run is no idleness.
                if self.idle_since.is_some() {
                    self.idle_since = Some(now);
                }
                if let Some(health) = &mut self.health {
                    health.resumed(now);
                }
            }
            Request::View(view) => {
                if self.outcome().is_some() {
                    self.refuse_late(id);
                    return;
                }
                if matches!(self.state, State::Waiting { .. }) {
                    let state = self.state().to_owned();
                    return self.refuse(id, Failure::WrongState { state });
                }
                let order = Order::View { interactive: view.interactive };
                self.effects.push(Effect::Order(order, Some(id)));
                self.reply_ready(id, None);
            }
            Request::Signal(signal) => {
                if !(1..=64).contains(&signal.signal) {
                    let parameter = "signal: a number from 1 to 64".into();
                    self.refuse(id, Failure::InvalidParameter { parameter });
                } else if self.sessions.contains_key(&signal.session) {
                    let (stream, signal) = (signal.session, signal.signal);
                    self.order(Order::Signal { stream, signal });
                    self.reply_ready(id, Some(stream));
                } else {
                    self.refuse(id, Failure::NoSuchSession);
                }
            }
            Request::HangUp(hang_up) => {
                if self.sessions.contains_key(&hang_up.session) {
                    self.order(Order::HangUp { stream: hang_up.session });
                    self.reply_ready(id, Some(hang_up.session));
                } else {
                    self.refuse(id, Failure::NoSuchSession);
                }
            }
            Request::Snapshot(snapshot) => self.begin_snapshot(id, snapshot.name, now),
        }
    }

    /// It is ending, and will be started again.
    fn comes_back(&self) -> bool {
        matches!(&self.state, State::Stopping { outcome, .. } if self.policy().covers(outcome.is_failure()))
    }

    /// Whether to start it again, after all that happened.
    fn policy(&self) -> Restart {
        if self.stop_wanted || self.hopeless { Restart::No } else { self.terms.restart }
    }

    /// Whoever wants a compartment that waits to be started again need not wait as long.
    fn wait_for_guest(&mut self, id: RequestId, run: Option<Box<Run>>) {
        self.waiting.insert(id, run);
        self.tell_progress(id, None);
        if matches!(self.state, State::Waiting { .. }) {
            self.relaunch();
        }
    }

    fn execute(&mut self, id: RequestId, from: &State, to: &State, run: bool) {
        if self.state == *from {
            self.state = to.clone();
            self.effects.push(Effect::Execute(run));
            self.reply_ready(id, None);
        } else if self.state == *to {
            self.reply_ready(id, None);
        } else {
            let state = self.state().to_owned();
            self.refuse(id, Failure::WrongState { state });
        }
    }

    fn request_gone(&mut self, id: RequestId, now: Instant) {
        // A session ends with its own socket; here only who waits is forgotten.
        let waited = self.waiting.remove(&id).is_some();
        if waited && self.terms.fresh && self.waiting.is_empty() && self.sessions.is_empty() {
            self.stop("whoever wanted it has gone", true, now);
        }
        self.stopping.retain(|&other| other != id);
        if let Some(shot) = &mut self.shot {
            shot.forget(id);
        }
        for session in self.sessions.values_mut() {
            if session.requester == Some(id) {
                session.requester = None;
            }
        }
    }

    fn open(&mut self, id: RequestId, run: &Run, now: Instant) {
        if self.sessions.len() >= MAX_SESSIONS {
            self.refuse(id, Failure::TooManySessions);
            return;
        }
        let session = match open_session(run) {
            Ok(session) => Box::new(session),
            Err(failure) => return self.refuse(id, failure),
        };
        let stream = self.next_stream;
        self.next_stream += 1;
        self.had_session = true;
        self.idle_since = None;
        self.sessions.insert(
            stream,
            Session {
                requester: Some(id),
                command: command_text(&session),
                user: run.user.clone(),
                pid: None,
                detached: run.detach,
                since: now,
            },
        );
        if run.detach {
            self.effects.push(Effect::OpenDetached(stream, session));
        } else {
            self.effects.push(Effect::Order(Order::Open { stream, session }, Some(id)));
            self.tell_progress(id, Some(stream));
        }
    }

    fn report(&mut self, report: Report, now: Instant) {
        match report {
            Report::Hello { version, kernel, booted, .. } => {
                self.agent = Some((version, kernel));
                self.agent_began_anew();
                if let State::Booting { greeted, .. } = &mut self.state {
                    *greeted = true;
                    if booted {
                        self.ready(now);
                    } else {
                        let boot = Box::new(self.terms.guest.clone());
                        self.effects.push(Effect::SendBoot(boot));
                    }
                }
            }
            Report::Ready => self.ready(now),
            Report::BootFailed { reason } => {
                self.fail(format!("the guest could not be set up: {reason}"), now);
            }
            Report::GuestLog { text } => self.guest_log(&text),
            Report::RootDamaged { block } => self.root_damaged(block),
            Report::Pong { .. } => {}
            Report::ShuttingDown => self.guest_shuts_down = true,
            Report::Started { stream, pid } => self.started(stream, pid),
            Report::Ended { stream, status } => self.ended(stream, status.as_ref(), now),
            Report::Broken { reason } => {
                self.fail(format!("the guest broke the protocol: {reason}"), now);
            }
            Report::PortClosed => {
                self.port_closed = true;
                self.judge(now);
            }
            Report::Frozen { id, failure } => self.frozen(id, failure, now),
        }
    }

    fn ready(&mut self, now: Instant) {
        if !matches!(self.state, State::Booting { .. }) {
            return;
        }
        self.state = State::Running;
        self.idle_since = Some(now);
        self.restarts.ready(now);
        self.health = self.terms.health_check.clone().map(|check| Health::new(check, now));
        for (id, run) in std::mem::take(&mut self.waiting) {
            match run {
                Some(run) => self.open(id, &run, now),
                None => self.reply_ready(id, None),
            }
        }
    }

    /// Said once: what the first block says of the image, the others say too.
    fn root_damaged(&mut self, block: u64) {
        if !self.root_damaged {
            self.root_damaged = true;
            let text = format!(
                "the image is damaged: block {block} of its root file system does not verify, and \
                 programs that read it get an input/output error; run: casemate image verify"
            );
            self.log(true, text.clone());
            self.terms.notes.push(text);
        }
    }

    fn started(&mut self, stream: u32, pid: u32) {
        let Some(session) = self.sessions.get_mut(&stream) else { return };
        session.pid = Some(pid);
        if session.detached
            && let Some(id) = session.requester.take()
        {
            self.reply_ready(id, Some(stream));
        }
    }

    fn ended(&mut self, stream: u32, status: Option<&ExitStatus>, now: Instant) {
        let checked = self.health.as_mut().and_then(|health| health.ended(stream, status, now));
        if let Some(verdict) = checked {
            return self.judge_health(verdict, now);
        }
        let Some(session) = self.sessions.remove(&stream) else { return };
        if let Some(id) = session.requester {
            match status {
                Some(status) if session.detached => {
                    // It ended before it ran.
                    let reason = why_not_started(&session.command, status);
                    self.refuse(id, Failure::Ended { reason, hint: None });
                }
                _ => self.reply_ready(id, Some(stream)),
            }
        }
        if self.sessions.is_empty() && matches!(self.state, State::Running | State::Paused) {
            self.idle_since = Some(now);
            if self.terms.fresh {
                self.stop("its command has ended", true, now);
            }
        }
    }

    fn exited(&mut self, role: Role, how: &str, now: Instant) {
        self.alive.retain(|&other| other != role);
        match &mut self.state {
            State::Over(_) => {}
            State::Stopping { deadline, killed, .. } => {
                // One process is gone: the others have no reason to stay. What the guest has on
                // volumes needs no share to get there.
                let share = matches!(role, Role::Share(_));
                if !*killed && !share && !self.alive.is_empty() {
                    *killed = true;
                    *deadline = now + EXIT_DEADLINE;
                    self.effects.push(Effect::Kill);
                }
                if self.alive.is_empty() {
                    self.over(now);
                }
            }
            _ if role == Role::Vmm => {
                self.vmm_exit = Some((how.to_owned(), now + EXIT_DEADLINE));
                self.judge(now);
            }
            _ => match role {
                Role::Share(index) => self.share_exited(index, how, now),
                _ => self.fail(format!("{} {how}", role.describe()), now),
            },
        }
    }

    /// Decides why the VMM ended, once the link has passed on all that the guest said before.
    fn judge(&mut self, now: Instant) {
        let Some((how, patience)) = self.vmm_exit.clone() else { return };
        if !self.port_closed && self.alive.contains(&Role::Link) && now < patience {
            return;
        }
        self.vmm_exit = None;
        let share_at_fault = self.share_at_fault();
        if matches!(self.state, State::Booting { greeted: false, .. })
            && share_at_fault.is_none()
            && self.relaunch_without_kvm("the guest ended under KVM without a word")
        {
            return;
        }
        let failed = |reason: &str| Outcome::Failed { reason: reason.into() };
        let outcome = match self.guest_reset {
            _ if self.guest_shuts_down => {
                Outcome::Stopped { why: "the guest shut itself down".into() }
            }
            Some(true) => failed("the guest's kernel stopped without shutting down (a panic?)"),
            Some(false) => failed("the guest powered off without its agent"),
            None => {
                failed(&share_at_fault.unwrap_or_else(|| format!("{} {how}", Role::Vmm.describe())))
            }
        };
        self.kill(outcome, now);
    }

    fn deadline_passed(&mut self, now: Instant) {
        if self.vmm_exit.is_some() {
            return self.judge(now);
        }
        if self.share_deadline_passed(now) {
            return;
        }
        match &self.state {
            State::Booting { greeted, deadline } if *deadline <= now => {
                let seconds = self.terms.boot_deadline.as_secs();
                let greeted = *greeted;
                let silence = format!("no word from the guest in {seconds} s under KVM");
                if !greeted && self.relaunch_without_kvm(&silence) {
                    return;
                }
                let what = if greeted { "was not ready" } else { "did not say Hello" };
                self.fail(format!("the guest {what} within {seconds} s"), now);
            }
            State::Stopping { deadline, killed, outcome } if *deadline <= now => {
                if *killed {
                    // The kernel has been asked to end them; nothing more can be done.
                    self.log(true, "processes did not end after SIGKILL".into());
                    self.over(now);
                } else {
                    let outcome = outcome.clone();
                    self.log(true, "the guest did not shut down in time; killed".into());
                    self.kill(outcome, now);
                }
            }
            State::Running if self.shot.as_ref().is_some_and(|shot| shot.deadline().is_some()) => {
                self.snapshot_deadline(now);
            }
            State::Running if self.idle_end().is_some_and(|end| end <= now) => {
                self.stop("it was idle", true, now);
            }
            State::Running => self.check_health(now),
            State::Waiting { until } if *until <= now => self.relaunch(),
            _ => {}
        }
    }

    fn check_health(&mut self, now: Instant) {
        let Some(health) = &mut self.health else { return };
        if let Some(stream) = health.overdue(now) {
            let verdict = health.timed_out(now);
            self.order(Order::Signal { stream, signal: SIGKILL });
            self.judge_health(verdict, now);
        } else if health.is_due(now) {
            let stream = self.next_stream;
            self.next_stream += 1;
            let session = Box::new(health.begin(stream, now));
            self.effects.push(Effect::OpenCheck(stream, session));
        }
    }

    fn judge_health(&mut self, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::AsBefore => {}
            Verdict::Healthy => self.log(false, "healthy".into()),
            Verdict::Unhealthy(reason) => {
                self.log(true, reason.clone());
                if self.terms.restart != Restart::No {
                    // What it still has to write, it may.
                    let outcome = Outcome::Failed { reason };
                    self.order(Order::Shutdown);
                    self.begin_stopping(outcome, now + self.terms.stop_deadline, false);
                }
            }
        }
    }

    /// Starts it again, after everything of the last launch is gone.
    fn relaunch(&mut self) {
        self.state = State::Preparing;
        self.vmm_exit = None;
        self.guest_shuts_down = false;
        self.agent = None;
        self.idle_since = None;
        self.log(false, format!("starting it again, the {}. time", self.restarts.count));
        self.effects.push(Effect::Relaunch);
    }

    /// Starts again under emulation, once, if that may be tried; false when not.
    fn relaunch_without_kvm(&mut self, why: &str) -> bool {
        let Some(terms) = self.terms.without_kvm.take() else { return false };
        self.log(true, format!("{why}; starting it anew under emulation"));
        self.terms = *terms;
        self.state = State::Preparing;
        self.alive.clear();
        self.vmm_exit = None;
        self.share_exit = None;
        self.effects.push(Effect::RelaunchWithoutKvm);
        true
    }

    /// Ends it in order, or (`force`) at once.
    fn stop(&mut self, why: &str, force: bool, now: Instant) {
        let outcome = Outcome::Stopped { why: why.into() };
        match &self.state {
            State::Over(_) => {}
            State::Waiting { .. } => {
                self.state = State::Over(outcome);
                self.reply_stopped();
            }
            State::Stopping { killed: true, .. } => {}
            State::Stopping { outcome, .. } if force => {
                let outcome = outcome.clone();
                self.kill(outcome, now);
            }
            State::Stopping { .. } => {}
            State::Running | State::Paused if !force => {
                if self.state == State::Paused {
                    self.effects.push(Effect::Execute(true));
                }
                self.order(Order::Shutdown);
                self.begin_stopping(outcome, now + self.terms.stop_deadline, false);
            }
            // Nobody there to ask.
            _ => self.kill(outcome, now),
        }
    }

    fn fail(&mut self, reason: String, now: Instant) {
        self.kill(Outcome::Failed { reason }, now);
    }

    fn kill(&mut self, outcome: Outcome, now: Instant) {
        if matches!(self.state, State::Over(_) | State::Waiting { .. }) {
            return;
        }
        self.effects.push(Effect::Kill);
        self.begin_stopping(outcome, now + EXIT_DEADLINE, true);
        if self.alive.is_empty() {
            self.over(now);
        }
    }

    fn begin_stopping(&mut self, outcome: Outcome, deadline: Instant, killed: bool) {
        let failure = Failure::Ended {
            reason: match &outcome {
                Outcome::Stopped { why } => why.clone(),
                Outcome::Failed { reason } => reason.clone(),
            },
            hint: None,
        };
        // What ended by itself may be started again; what somebody stopped stays stopped.
        let planned = matches!(outcome, Outcome::Stopped { .. }) && !self.stop_wanted;
        self.state = State::Stopping { deadline, outcome, killed };
        self.health = None;
        for (id, _) in std::mem::take(&mut self.waiting) {
            // It never ran anything of theirs: they may simply ask again.
            let failure = if planned { Failure::Stopping } else { failure.clone() };
            self.refuse(id, failure);
        }
        for (_, session) in std::mem::take(&mut self.sessions) {
            if let Some(id) = session.requester {
                self.refuse(id, failure.clone());
            }
        }
        self.end_snapshot(&failure);
    }

    fn over(&mut self, now: Instant) {
        let State::Stopping { outcome, .. } = &self.state else { return };
        let outcome = outcome.clone();
        self.forget_snapshot();
        match self.restarts.after(self.policy(), &outcome, now) {
            Some(until) => {
                let (Outcome::Stopped { why } | Outcome::Failed { reason: why }) = outcome;
                let seconds = until.duration_since(now).as_secs();
                self.log(true, format!("{why}; it is started again in {seconds} s"));
                self.last_end = Some(why);
                self.state = State::Waiting { until };
                // Even one that did not end after SIGKILL is waited for when it is cleared up.
                self.alive.clear();
                self.effects.push(Effect::ClearUp);
                if !self.waiting.is_empty() {
                    self.relaunch();
                }
            }
            None => {
                self.state = State::Over(outcome);
                for (id, _) in std::mem::take(&mut self.waiting) {
                    self.refuse_late(id);
                }
                self.reply_stopped();
            }
        }
    }

    fn reply_stopped(&mut self) {
        let state = self.state().to_owned();
        for id in std::mem::take(&mut self.stopping) {
            let progress = Progress { state: state.clone(), ..Progress::default() };
            self.effects.push(Effect::Reply(id, Ok(progress)));
        }
    }

    fn refuse_late(&mut self, id: RequestId) {
        self.refuse(id, Failure::Stopping);
    }

    fn refuse(&mut self, id: RequestId, failure: Failure) {
        self.effects.push(Effect::Reply(id, Err(failure)));
    }

    fn reply_ready(&mut self, id: RequestId, session: Option<u32>) {
        let progress = self.progress(session);
        self.effects.push(Effect::Reply(id, Ok(progress)));
    }

    fn tell_waiting(&mut self) {
        let ids: Vec<RequestId> = self.waiting.keys().copied().collect();
        for id in ids {
            self.tell_progress(id, None);
        }
    }

    fn tell_progress(&mut self, id: RequestId, session: Option<u32>) {
        let progress = self.progress(session);
        self.effects.push(Effect::Progress(id, progress));
    }

    fn progress(&self, session: Option<u32>) -> Progress {
        Progress { state: self.state().into(), session, notes: self.terms.notes.clone() }
    }

    fn order(&mut self, order: Order) {
        self.effects.push(Effect::Order(order, None));
    }

    /// A guest may fill a disk with its words only so far.
    fn guest_log(&mut self, text: &str) {
        match self.guest_lines {
            0 => return,
            1 => self.log(true, "guest: (it has said enough; the rest is dropped)".into()),
            _ => self.log(false, format!("guest: {text}")),
        }
        self.guest_lines -= 1;
    }

    fn log(&mut self, warning: bool, text: String) {
        self.effects.push(Effect::Log(warning, text));
    }
}

/// What the agent shall run.
fn open_session(run: &Run) -> Result<OpenSession, Failure> {
    let argv: Vec<Vec<u8>> = match &run.argv_bytes {
        Some(bytes) => bytes.clone(),
        None => run.argv.iter().map(|argument| argument.clone().into_bytes()).collect(),
    };
    let mut environment = Vec::with_capacity(run.environment.len());
    for variable in &run.environment {
        let Some((name, value)) = variable.split_once('=').filter(|(name, _)| !name.is_empty())
        else {
            return Err(Failure::InvalidParameter { parameter: "environment".into() });
        };
        environment.push((name.into(), value.into()));
    }
    let names = [&run.cwd, &run.user].into_iter().flatten().map(String::len).sum::<usize>();
    let length: usize = argv.iter().map(Vec::len).sum::<usize>()
        + run.environment.iter().map(String::len).sum::<usize>()
        + names;
    let has_nul = argv.iter().any(|argument| argument.contains(&0))
        || run.environment.iter().any(|variable| variable.contains('\0'));
    if length > casemate_wire::limits::MAX_ARGUMENTS || has_nul {
        return Err(Failure::InvalidParameter { parameter: "argv".into() });
    }
    Ok(OpenSession {
        argv,
        environment,
        cwd: run.cwd.as_ref().map(|cwd| cwd.clone().into_bytes()),
        user: run.user.clone(),
        terminal: run.terminal.map(Into::into),
        detached: run.detach,
    })
}

fn command_text(session: &OpenSession) -> String {
    let words: Vec<String> =
        session.argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    if words.is_empty() {
        "(login shell)".into()
    } else {
        harmless_line(&words.join(" "), COMMAND_TEXT)
    }
}

fn why_not_started(command: &str, status: &ExitStatus) -> String {
    match status {
        ExitStatus::NotFound { reason }
        | ExitStatus::NotExecutable { reason }
        | ExitStatus::AgentFailed { reason } => format!("could not run `{command}`: {reason}"),
        ended => format!("`{command}` ended at once with code {}", ended.code()),
    }
}

mod shares;
#[cfg(test)]
mod tests;
