//! How often something may happen: a bucket that time fills.

use std::time::{Duration, Instant};

/// Something that may happen `most` times at once and `each_second` in the long run.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: f64,
    most: f64,
    each_second: f64,
    at: Instant,
}

impl Budget {
    /// A full bucket.
    pub(crate) fn new(most: u32, each_second: u32, now: Instant) -> Self {
        Self { left: most.into(), most: most.into(), each_second: each_second.into(), at: now }
    }

    /// Takes `count`, whether or not there is as much. Says whether something is left.
    pub(crate) fn spend(&mut self, count: f64, now: Instant) -> bool {
        self.left = self.left_at(now) - count;
        self.at = now;
        self.left > 0.0
    }

    /// What is left.
    pub(crate) fn left_at(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + passed * self.each_second).min(self.most)
    }

    /// How long until there are `count`.
    pub(crate) fn wait_for(&self, count: f64, now: Instant) -> Duration {
        let missing = (count - self.left_at(now)).max(0.0);
        Duration::from_secs_f64(missing / self.each_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(10, 100, start);
        assert!((1..10).all(|_| budget.spend(1.0, start)));
        assert!(!budget.spend(1.0, start));
        assert_eq!(budget.wait_for(1.0, start), Duration::from_millis(10));
        let later = start + Duration::from_millis(50);
        assert!((1..5).all(|_| budget.spend(1.0, later)));
        assert!(!budget.spend(1.0, later));
    }
}
