//! How a build goes, on standard error.

use casemate_image::{Phase, Progress as Step};

/// Shows how a build goes: one line that changes on a terminal, one line a phase in a log.
pub(super) struct Display {
    name: String,
    live: bool,
    phase: Option<Phase>,
    begin: std::time::Instant,
}

impl Display {
    pub(super) fn new(name: &str) -> Self {
        use std::io::IsTerminal;
        Self {
            name: name.into(),
            live: std::io::stderr().is_terminal(),
            phase: None,
            begin: std::time::Instant::now(),
        }
    }

    pub(super) fn show(&mut self, step: &Step) {
        let changed = self.phase != Some(step.phase);
        self.phase = Some(step.phase);
        let seconds = self.begin.elapsed().as_secs();
        if !self.live {
            if changed {
                eprintln!("image `{}`: {} ({seconds} s)", self.name, step.phase);
            }
            return;
        }
        let bar = step.fraction.map_or_else(String::new, |fraction| {
            let full = (fraction * 20.0).round() as usize;
            format!(" [{:<20}]", "=".repeat(full.min(20)))
        });
        let subject = step.subject.as_deref().unwrap_or_default();
        let subject: String = subject.chars().filter(|c| !c.is_control()).take(30).collect();
        eprint!("\r\x1b[Kimage `{}`: {}{bar} {subject} ({seconds} s)", self.name, step.phase);
        use std::io::Write;
        let _ = std::io::stderr().flush();
    }

    pub(super) fn end(&mut self) {
        if self.live {
            eprint!("\r\x1b[K");
        }
    }
}
