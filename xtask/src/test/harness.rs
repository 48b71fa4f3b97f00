//! Reads what a test program prints: results, the output of what failed, and who was skipped.
//!
//! A test is skipped by saying so: a line with `skipped: …`. The harness keeps what tests print
//! and shows it under `---- NAME stdout ----`; our system tests go past it and name themselves.

use std::collections::BTreeMap;

/// What became of the tests of one program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Tests that ran to their end and were not skipped.
    pub(crate) passed: usize,
    /// Tests that failed, and programs that ended without a result.
    pub(crate) failed: usize,
    /// Name and reason.
    pub(crate) skipped: Vec<(String, String)>,
}

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// It tells of one test as it goes.
    Progress,
    /// It tells why something failed.
    Failure,
    /// It is noise.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Live,
    Successes,
    Failures,
}

/// Reads line by line.
#[derive(Debug)]
pub(crate) struct Reader {
    section: Section,
    /// The test whose output is shown.
    shown: String,
    counts: Option<(usize, usize)>,
    skipped: BTreeMap<String, String>,
    ignored: Vec<(String, String)>,
}

impl Reader {
    /// Nothing read yet.
    pub(crate) fn new() -> Self {
        Self {
            section: Section::Live,
            shown: String::new(),
            counts: None,
            skipped: BTreeMap::new(),
            ignored: Vec::new(),
        }
    }

    /// Takes a line.
    pub(crate) fn line(&mut self, line: &str) -> Show {
        match line {
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ => {}
        }
        if let Some(counts) = line.strip_prefix("test result: ").and_then(counts) {
            self.counts = Some(counts);
            self.section = Section::Live;
            return Show::Nothing;
        }
        if let Some(name) =
            line.strip_prefix("---- ").and_then(|it| it.strip_suffix(" stdout ----"))
        {
            self.shown = name.to_owned();
        }
        self.skip(line);
        match self.section {
            Section::Live => match line.starts_with("test ") {
                true => Show::Progress,
                // A program that does not use the harness's words speaks for itself.
                false if line.is_empty() || line.starts_with("running ") => Show::Nothing,
                false => Show::Progress,
            },
            Section::Successes => Show::Nothing,
            Section::Failures => Show::Failure,
        }
    }

    fn skip(&mut self, line: &str) {
        if self.section == Section::Live
            && let Some((name, why)) = ignored(line)
        {
            self.ignored.push((name, why));
            return;
        }
        let Some(at) = line.find("skipped") else { return };
        // Behind the beginning of a progress line, or at the beginning.
        if at != 0 && !line[..at].ends_with("... ") {
            return;
        }
        let words = line[at + "skipped".len()..].trim_start_matches([':', ' ']);
        let (name, reason) = match self.section {
            Section::Live => words.split_once(": ").unwrap_or(("?", words)),
            Section::Successes | Section::Failures => {
                let rest = words.split_once(": ").filter(|(name, _)| {
                    self.shown == *name || self.shown.ends_with(&format!("::{name}"))
                });
                (self.shown.as_str(), rest.map_or(words, |(_, reason)| reason))
            }
        };
        self.skipped.entry(name.to_owned()).or_insert_with(|| reason.to_owned());
    }

    /// The end: `ended_well` says that the program's exit code was 0.
    pub(crate) fn outcome(self, ended_well: bool) -> Outcome {
        let mut outcome = Outcome::default();
        match self.counts {
            Some((passed, failed)) => {
                outcome.passed = passed.saturating_sub(self.skipped.len());
                outcome.failed = failed;
            }
            None => outcome.failed = usize::from(!ended_well),
        }
        if outcome.failed == 0 && !ended_well {
            outcome.failed = 1;
        }
        outcome.skipped = self.skipped.into_iter().chain(self.ignored).collect();
        outcome
    }
}

/// `test NAME ... ignored, REASON`.
fn ignored(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = rest.trim_start_matches([',', ' ']);
    Some((name.to_owned(), if reason.is_empty() { "ignored".into() } else { reason.to_owned() }))
}

/// Passed and failed of `ok. 3 passed; 0 failed; …`.
fn counts(text: &str) -> Option<(usize, usize)> {
    let (_, text) = text.split_once(". ")?;
    let mut parts = text.split("; ");
    let passed = parts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = parts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, ended_well: bool) -> Outcome {
        let mut reader = Reader::new();
        for line in text.lines() {
            reader.line(line);
        }
        reader.outcome(ended_well)
    }

    #[test]
    fn a_test_that_says_it_was_skipped_did_not_pass() {
        let text = "\nrunning 3 tests\ntest a ... ok\ntest m::b ... ok\ntest c ... ignored, slow\n\n\
                    successes:\n\n---- m::b stdout ----\nskipped: b: no KVM\n\n\nsuccesses:\n    a\n    \
                    m::b\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
                    finished in 0.00s\n";
        let outcome = read(text, true);
        assert_eq!((outcome.passed, outcome.failed), (1, 0));
        let skipped = [("m::b", "no KVM"), ("c", "slow")].map(|(a, b)| (a.into(), b.into()));
        assert_eq!(outcome.skipped, skipped);
    }

    #[test]
    fn a_skip_past_the_harness_names_itself() {
        let result = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured";
        for line in ["test a ... skipped: run::a: no tmux\nok", "skipped: run::a: no tmux"] {
            let outcome = read(&format!("{line}\n{result}\n"), true);
            assert_eq!(outcome.skipped, [("run::a".into(), "no tmux".into())], "{line}");
            assert_eq!(outcome.passed, 1);
        }
    }

    #[test]
    fn failures_are_shown_and_counted() {
        let mut reader = Reader::new();
        assert_eq!(reader.line("test a ... FAILED"), Show::Progress);
        reader.line("failures:");
        assert_eq!(reader.line("---- a stdout ----"), Show::Failure);
        assert_eq!(reader.line("assertion failed"), Show::Failure);
        reader.line("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured");
        assert_eq!(reader.outcome(false).failed, 1);
    }

    #[test]
    fn a_program_that_dies_has_failed() {
        assert_eq!(read("running 3 tests\ntest a ... ok\n", false).failed, 1);
        let leaked = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(read(leaked, false).failed, 1);
        assert_eq!(read("", true), Outcome::default());
    }
}
