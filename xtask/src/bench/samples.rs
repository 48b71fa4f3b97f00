//! Times and what is said of them.

use std::time::Duration;

/// Measurements of one thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Adds a time, kept in milliseconds.
    pub(super) fn push(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1e3);
    }

    /// Adds a number.
    pub(super) fn add(&mut self, number: f64) {
        let at = self.0.partition_point(|&other| other < number);
        self.0.insert(at, number);
    }

    /// The number below which this part of all lies (nearest rank); NaN of nothing.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// The middle.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> &[f64] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measurements() {
        let mut samples = Samples::default();
        for number in [5.0, 1.0, 3.0, 2.0, 4.0] {
            samples.add(number);
        }
        assert_eq!(samples.median(), 3.0);
        assert_eq!(samples.quantile(0.99), 5.0);
        assert_eq!(samples.quantile(0.0), 1.0);
        assert!(Samples::default().median().is_nan());
    }
}
