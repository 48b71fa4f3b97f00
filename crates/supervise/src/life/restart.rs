//! How long to wait before a compartment that ended is started again.

use std::time::{Duration, Instant};

use casemate_plan::service::Restart;

use super::Outcome;

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
