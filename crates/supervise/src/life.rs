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
//! (`runtime`) carries the effects out in order. Only the host decides when a life ends;
//! what a guest says can end it sooner, never lengthen it.

mod calls;
mod event;
mod health;
mod memory;
mod requests;
mod restart;
mod shares;
mod snapshot;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use casemate_link::orders::{Order, Report};
use casemate_plan::process::Role;
use casemate_plan::service::{HealthCheck, Restart};
use casemate_wire::{Boot, ExitStatus};

use crate::control::{Failure, Progress, Run, SessionStatus};
use calls::Calls;
pub use event::{Effect, Event, RequestId};
use health::Health;
use memory::Resuming;
use restart::Restarts;
use snapshot::Shot;
pub use windows::WindowTrouble;
use windows::Windows;

/// From the end of the guest to the end of its processes, before they are killed.
const EXIT_DEADLINE: Duration = Duration::from_secs(2);

/// Lines of the guest that one life keeps in its log: at 4 KiB each, 4 MiB.
const GUEST_LINES: u32 = 1000;

/// signal(7).
const SIGKILL: u8 = 9;

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
    /// The compartment's name.
    pub name: String,
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
    /// The snapshot from whose memory the guest goes on, the first time it is launched.
    pub resume: Option<String>,
    /// Why the memory of the guest cannot be kept with a snapshot; none when it can.
    pub memory_refused: Option<&'static str>,
}

#[derive(Debug)]
struct Session {
    requester: Option<RequestId>,
    command: String,
    user: Option<String>,
    pid: Option<u32>,
    detached: bool,
    since: Instant,
    /// Of what its client was warned.
    told: BTreeSet<String>,
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
    /// The snapshot from whose memory the guest is about to go on.
    resuming: Option<Resuming>,
    calls: Calls,
    windows: Windows,
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
            resuming: None,
            calls: Calls::default(),
            windows: Windows::default(),
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
                self.alive.extend(self.terms.guest.network.as_ref().map(|_| Role::Network));
                self.port_closed = false;
                self.guest_reset = None;
                let deadline = now + self.terms.boot_deadline;
                self.log(false, "started".into());
                self.state = State::Booting { deadline, greeted: false };
                self.begin_resuming();
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
            Event::MemoryWritten(good) => self.memory_written(good, now),
            Event::MemoryEncrypted { snapshot, result } => {
                self.memory_encrypted(snapshot, result, now);
            }
            Event::MemoryRead(result) => self.memory_read(result, now),
            Event::CallDecided { call, result } => self.call_decided(call, result),
            Event::WindowsOpened { window, result } => self.windows_opened(window, result),
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

    fn report(&mut self, report: Report, now: Instant) {
        match report {
            Report::Hello { version, kernel, booted, .. } => {
                self.agent = Some((version, kernel));
                self.agent_began_anew(now);
                if let State::Booting { greeted, .. } = &mut self.state {
                    *greeted = true;
                    if booted {
                        self.go_on_from_memory();
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
            Report::Ended { stream, .. } if self.call_ended(stream) => {}
            Report::Ended { stream, .. } if self.windows_ended(stream) => {}
            Report::Ended { stream, status } => self.ended(stream, status.as_ref(), now),
            Report::Broken { reason } => {
                self.fail(format!("the guest broke the protocol: {reason}"), now);
            }
            Report::PortClosed => {
                self.port_closed = true;
                self.judge(now);
            }
            Report::Frozen { id, failure } => self.frozen(id, failure, now),
            Report::Call { call, target, service } => self.call(call, target, service),
            Report::CallGone { call } => self.call_gone(call),
            Report::Windows { window } => self.windows(window),
            Report::NoWaypipe => self.no_windows(&WindowTrouble::NoWaypipeInside),
            Report::NoXwayland => self.no_windows(&WindowTrouble::NoXwaylandInside),
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
                // volumes needs neither shares nor a network to get there.
                let spare = matches!(role, Role::Share(_) | Role::Network | Role::Switch(_));
                if !*killed && !spare && !self.alive.is_empty() {
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
                Role::Network | Role::Switch(_) => {
                    self.end_without(format!("{} {how}", role.describe()), now)
                }
                _ => self.fail(format!("{} {how}", role.describe()), now),
            },
        }
    }

    /// Decides why the VMM ended, once the link has passed on all that the guest said before.
    fn judge(&mut self, now: Instant) {
        let Some((how, patience)) = self.vmm_exit.clone() else { return };
        if self.waits_for_memory() && now < patience {
            return;
        }
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
            None if self.resuming.is_some() => {
                self.hopeless = true;
                failed(&self.not_resumed(&format!("{} {how}", Role::Vmm.describe())))
            }
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
                self.begin_stopping(outcome, now + self.terms.stop_deadline, false, now);
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
        self.begin_stopping(outcome, now + EXIT_DEADLINE, true, now);
        if self.alive.is_empty() {
            self.over(now);
        }
    }

    fn begin_stopping(&mut self, outcome: Outcome, deadline: Instant, killed: bool, now: Instant) {
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
        self.end_snapshot(&failure, now);
        self.forget_calls();
        self.forget_windows();
    }

    fn reply_stopped(&mut self) {
        let state = self.state().to_owned();
        for id in std::mem::take(&mut self.stopping) {
            let progress = Progress { state: state.clone(), ..Progress::default() };
            self.effects.push(Effect::Reply(id, Ok(progress)));
        }
    }

    fn refuse_late(&mut self, id: RequestId) {
        let failure = match &self.state {
            State::Over(Outcome::Failed { reason })
            | State::Stopping { outcome: Outcome::Failed { reason }, .. }
                if self.hopeless =>
            {
                Failure::Ended { reason: reason.clone(), hint: None }
            }
            _ => Failure::Stopping,
        };
        self.refuse(id, failure);
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
        Progress {
            state: self.state().into(),
            session,
            notes: self.terms.notes.clone(),
            warning: None,
        }
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

fn why_not_started(command: &str, status: &ExitStatus) -> String {
    match status {
        ExitStatus::NotFound { reason }
        | ExitStatus::NotExecutable { reason }
        | ExitStatus::AgentFailed { reason } => format!("could not run `{command}`: {reason}"),
        ended => format!("`{command}` ended at once with code {}", ended.code()),
    }
}

#[cfg(test)]
mod tests;
