//! A progress bar as a line of text. Who has a terminal shows it.

use std::time::{Duration, Instant};

/// Time between two lines.
const PAUSE: Duration = Duration::from_millis(100);

/// Nothing is shown of what takes no longer.
const SILENCE: Duration = Duration::from_millis(400);

/// Characters of the bar itself.
const WIDTH: u64 = 24;

/// How far a copy has come.
#[derive(Debug)]
pub struct Bar {
    total: u64,
    begin: Instant,
    shown: Option<Instant>,
}

impl Bar {
    /// A copy of so many bytes begins.
    pub fn new(total: u64) -> Self {
        Self { total, begin: Instant::now(), shown: None }
    }

    /// The line for so many bytes, which takes the place of the one before; none when it is too early.
    pub fn line(&mut self, done: u64) -> Option<String> {
        let now = Instant::now();
        let since = self.shown.map_or(SILENCE, |_| PAUSE);
        if now.duration_since(self.shown.unwrap_or(self.begin)) < since {
            return None;
        }
        self.shown = Some(now);
        Some(format!("\r\x1b[K{}", self.text(done, now.duration_since(self.begin))))
    }

    /// What takes the last line away; none when there was none.
    pub fn clear(&mut self) -> Option<&'static str> {
        self.shown.take().map(|_| "\r\x1b[K")
    }

    fn text(&self, done: u64, elapsed: Duration) -> String {
        let part = |of: u64| {
            (u128::from(done.min(self.total)) * u128::from(of) / u128::from(self.total.max(1)))
                as u64
        };
        let full = part(WIDTH) as usize;
        let rate = done as f64 / elapsed.as_secs_f64().max(0.001) / 1e6;
        format!(
            "[{}{}] {:3} %  {:.1} of {:.1} MB  {rate:.0} MB/s",
            "#".repeat(full),
            "-".repeat(WIDTH as usize - full),
            part(100),
            done as f64 / 1e6,
            self.total as f64 / 1e6,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_how_far_it_is() {
        let mut bar = Bar::new(200_000_000);
        let text = bar.text(50_000_000, Duration::from_secs(1));
        assert_eq!(text, "[######------------------]  25 %  50.0 of 200.0 MB  50 MB/s");
        assert_eq!(bar.line(1), None, "what is quick needs none");
        assert_eq!(Bar::new(0).text(0, Duration::ZERO).matches('#').count(), 0);
    }
}
