//! The health check of one running guest: when the next one is due, and what came of those before.

use std::time::Instant;

use casemate_link::orders::Order;
use casemate_plan::service::{HealthCheck, Restart};
use casemate_wire::limits::MAX_SESSIONS;
use casemate_wire::{ExitStatus, OpenSession};

use super::{Effect, Life, Outcome, SIGKILL};

/// What is known of the guest's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No check has succeeded yet, and failures do not count before this time.
    Starting(Instant),
    /// The last check succeeded, or failed fewer times in a row than it may.
    Healthy,
    /// It failed too often.
    Unhealthy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing runs; the next check begins then.
    At(Instant),
    /// It runs on this stream and has to end by then.
    Running { stream: u32, deadline: Instant },
}

/// What a check that is over says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    AsBefore,
    /// It became healthy.
    Healthy,
    /// It became unhealthy, for this reason.
    Unhealthy(String),
}

/// The checks of one guest, from the moment it is ready.
#[derive(Debug)]
pub(super) struct Health {
    check: HealthCheck,
    state: State,
    next: Next,
    failures: u32,
}

impl Health {
    /// The first check is due at once.
    pub(super) fn new(check: HealthCheck, now: Instant) -> Self {
        let state = State::Starting(now + check.start_period);
        Self { check, state, next: Next::At(now), failures: 0 }
    }

    /// When something has to be done.
    pub(super) fn deadline(&self) -> Instant {
        match self.next {
            Next::At(deadline) | Next::Running { deadline, .. } => deadline,
        }
    }

    /// A check shall begin now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.next, Next::At(at) if at <= now)
    }

    /// The stream of a check that takes too long.
    pub(super) fn overdue(&self, now: Instant) -> Option<u32> {
        match self.next {
            Next::Running { stream, deadline } if deadline <= now => Some(stream),
            _ => None,
        }
    }

    /// A check begins on `stream`; what to run.
    pub(super) fn begin(&mut self, stream: u32, now: Instant) -> OpenSession {
        self.next = Next::Running { stream, deadline: now + self.check.timeout };
        OpenSession {
            argv: self.check.command.iter().map(|word| word.clone().into_bytes()).collect(),
            environment: vec![],
            cwd: None,
            user: self.check.user.clone(),
            terminal: None,
            detached: true,
            service: None,
        }
    }

    /// Time in which no check could run does not count: one that was due is due an interval later, and
    /// one that runs has all its time again.
    pub(super) fn resumed(&mut self, now: Instant) {
        match &mut self.next {
            Next::At(at) => *at = (*at).max(now + self.check.interval),
            Next::Running { deadline, .. } => *deadline = now + self.check.timeout,
        }
    }

    /// The check on `stream` has ended; none when it is not this one's.
    pub(super) fn ended(
        &mut self,
        stream: u32,
        status: Option<&ExitStatus>,
        now: Instant,
    ) -> Option<Verdict> {
        if !matches!(self.next, Next::Running { stream: own, .. } if own == stream) {
            return None;
        }
        Some(match status {
            Some(ExitStatus::Code(0)) => self.succeeded(now),
            Some(ExitStatus::Code(code)) => self.failed(&format!("ended with code {code}"), now),
            Some(ExitStatus::Signal(signal)) => {
                self.failed(&format!("was ended by signal {signal}"), now)
            }
            Some(
                ExitStatus::NotFound { reason }
                | ExitStatus::NotExecutable { reason }
                | ExitStatus::AgentFailed { reason },
            ) => self.failed(&format!("could not be run: {reason}"), now),
            None => self.failed("ended without a word", now),
        })
    }

    /// The check that runs takes too long and is given up.
    pub(super) fn timed_out(&mut self, now: Instant) -> Verdict {
        let seconds = self.check.timeout.as_secs();
        self.failed(&format!("did not end within {seconds} s"), now)
    }

    /// `starting`, `healthy` or `unhealthy`.
    pub(super) fn state(&self) -> &'static str {
        match self.state {
            State::Starting(_) => "starting",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
        }
    }

    fn succeeded(&mut self, now: Instant) -> Verdict {
        self.next = Next::At(now + self.check.interval);
        self.failures = 0;
        if self.state == State::Healthy {
            return Verdict::AsBefore;
        }
        self.state = State::Healthy;
        Verdict::Healthy
    }

    fn failed(&mut self, how: &str, now: Instant) -> Verdict {
        self.next = Next::At(now + self.check.interval);
        if matches!(self.state, State::Starting(until) if now < until) {
            return Verdict::AsBefore;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.check.retries || self.state == State::Unhealthy {
            return Verdict::AsBefore;
        }
        self.state = State::Unhealthy;
        let times = match self.failures {
            1 => String::new(),
            times => format!(", {times} times in a row"),
        };
        Verdict::Unhealthy(format!("its health check {how}{times}"))
    }
}

impl Life {
    pub(super) fn check_health(&mut self, now: Instant) {
        let Some(health) = &mut self.health else { return };
        if let Some(stream) = health.overdue(now) {
            let verdict = health.timed_out(now);
            self.order(Order::Signal { stream, signal: SIGKILL });
            self.judge_health(verdict, now);
        } else if health.is_due(now) && self.sessions.len() >= MAX_SESSIONS {
            // The guest would refuse one more, and a compartment in full use is not to end of it.
            health.resumed(now);
        } else if health.is_due(now) {
            let stream = self.next_stream;
            self.next_stream += 1;
            let session = Box::new(health.begin(stream, now));
            self.effects.push(Effect::OpenCheck(stream, session));
        }
    }

    pub(super) fn judge_health(&mut self, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::AsBefore => {}
            Verdict::Healthy => self.log(false, "healthy".into()),
            Verdict::Unhealthy(reason) => {
                self.log(true, reason.clone());
                if self.terms.restart != Restart::No {
                    // What it still has to write, it may.
                    let outcome = Outcome::Failed { reason };
                    self.order(Order::Shutdown);
                    self.begin_stopping(outcome, now + self.terms.stop_deadline, false, now);
                }
            }
        }
    }
}
