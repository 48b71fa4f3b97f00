//! Telling somebody who waits what he waits for, once he has waited a second.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Silence before anything is said.
const SILENCE: Duration = Duration::from_secs(1);

/// A line on standard error that says what goes on and for how long.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    begin: Instant,
    shown: bool,
    live: bool,
}

impl Progress {
    /// Something begins.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            begin: Instant::now(),
            shown: false,
            live: stderr().is_terminal(),
        }
    }

    /// Time has passed: shows or renews the line. `detail` is the present state.
    pub(crate) fn tick(&mut self, detail: &str) {
        let elapsed = self.begin.elapsed();
        if elapsed < SILENCE || (self.shown && !self.live) {
            return;
        }
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        if self.live {
            eprint!("\r\x1b[K{}{detail} ({} s)", self.what, elapsed.as_secs());
            let _ = stderr().flush();
        } else {
            eprintln!("{}{detail}", self.what);
        }
        self.shown = true;
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) && self.live {
            eprint!("\r\x1b[K");
            let _ = stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
