//! Whether a compartment that ended is started again, and after what time.

use std::time::{Duration, Instant};

use casemate_plan::service::Restart;

use super::{Effect, Life, Outcome, State};

/// Before the first try; doubled for each one after it.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// The longest wait.
const LAST_DELAY: Duration = Duration::from_secs(300);

/// Who ran this long has recovered: the next wait is the first again.
const STEADY: Duration = Duration::from_secs(60);

/// The tries of one supervisor.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// All of them.
    pub(super) count: u32,
    /// Those since it last ran steadily.
    in_a_row: u32,
    /// Since when the guest is ready.
    ready_since: Option<Instant>,
}

impl Restarts {
    /// The guest is ready.
    pub(super) fn ready(&mut self, now: Instant) {
        self.ready_since = Some(now);
    }

    /// The time of the next try; none when there shall be none.
    pub(super) fn after(
        &mut self,
        policy: Restart,
        outcome: &Outcome,
        now: Instant,
    ) -> Option<Instant> {
        if !policy.covers(outcome.is_failure()) {
            return None;
        }
        let ran = self.ready_since.take().map(|since| now.duration_since(since));
        if ran.is_some_and(|ran| ran >= STEADY) {
            self.in_a_row = 0;
        }
        // 2^9 s is beyond the last delay.
        let delay = (FIRST_DELAY * (1 << self.in_a_row.min(9))).min(LAST_DELAY);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.count = self.count.saturating_add(1);
        Some(now + delay)
    }
}

impl Life {
    /// It is ending, and will be started again.
    pub(super) fn comes_back(&self) -> bool {
        matches!(&self.state, State::Stopping { outcome, .. } if self.policy().covers(outcome.is_failure()))
    }

    /// Whether to start it again, after all that happened.
    pub(super) fn policy(&self) -> Restart {
        if self.stop_wanted || self.hopeless { Restart::No } else { self.terms.restart }
    }

    pub(super) fn over(&mut self, now: Instant) {
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

    /// Starts it again, after everything of the last launch is gone.
    pub(super) fn relaunch(&mut self) {
        self.state = State::Preparing;
        self.vmm_exit = None;
        self.guest_shuts_down = false;
        self.agent = None;
        self.idle_since = None;
        self.log(false, format!("starting it again, the {}. time", self.restarts.count));
        self.effects.push(Effect::Relaunch);
    }
}
