//! The steps of a long command: a heading for each, the time it took, and a summary.

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Headings and times.
#[derive(Debug)]
pub(crate) struct Steps {
    total: usize,
    bold: bool,
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// A command of so many steps.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, bold: stdout().is_terminal(), done: Vec::new() }
    }

    /// Does a step under its heading.
    pub(crate) fn step<T>(&mut self, title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let number = self.done.len() + 1;
        let heading = format!("[{number}/{}] {title}", self.total);
        match self.bold {
            true => println!("\n\x1b[1m{heading}\x1b[0m"),
            false => println!("\n{heading}"),
        }
        let _ = stdout().flush();
        let begin = Instant::now();
        let result = work();
        self.done.push((title.into(), begin.elapsed()));
        result
    }

    /// What took how long.
    pub(crate) fn summary(&self) {
        println!();
        for (title, time) in &self.done {
            println!("  {:>12}  {title}", seconds(*time));
        }
        let sum = self.done.iter().map(|(_, time)| *time).sum();
        println!("  {:>12}  in all", seconds(sum));
    }
}

/// A time for people.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_millis() {
        short @ 0..1000 => format!("{short} ms"),
        0..120_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}
