//! Sums results up, lists who was skipped and why, and compares that with what is expected.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::harness::Outcome;

/// Everything that was run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<(String, usize)>,
    skipped: Vec<(String, String)>,
}

impl Tally {
    /// Adds the results of a test program.
    pub(crate) fn add(&mut self, suite: &str, outcome: Outcome) {
        self.passed += outcome.passed;
        if outcome.failed > 0 {
            self.failed.push((suite.into(), outcome.failed));
        }
        for (name, reason) in outcome.skipped {
            self.skipped.push((format!("{suite}: {name}"), reason));
        }
    }

    /// Adds a check that is no test program.
    pub(crate) fn check(&mut self, name: &str, passed: bool) {
        self.add(
            name,
            Outcome { passed: passed.into(), failed: (!passed).into(), skipped: vec![] },
        );
    }

    /// Adds a check that was not made.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        println!("skipped: {reason}");
        self.skipped.push((name.into(), reason.into()));
    }

    /// Prints everything; the last line is the sum. True when all is well.
    ///
    /// # Errors
    /// The list of what may be skipped cannot be read.
    pub(crate) fn finish(mut self, expected: &Path, strict: bool) -> Result<bool> {
        let list = fs::read_to_string(expected)
            .with_context(|| format!("could not read {}", expected.display()))?;
        self.skipped.sort();
        if !self.skipped.is_empty() {
            println!("\nskipped:");
        }
        let mut unexpected = 0;
        for (name, reason) in &self.skipped {
            let line = format!("{name}: {reason}");
            let known = is_expected(&list, &line);
            unexpected += usize::from(!known);
            println!("  {line}{}", if known { "" } else { "  (not in the list)" });
        }
        for (suite, count) in &self.failed {
            println!("failed: {suite} ({count})");
        }
        if strict && unexpected > 0 {
            println!("failed: {unexpected} skipped that are not in {}", expected.display());
        }
        let failed: usize = self.failed.iter().map(|(_, count)| count).sum();
        println!("\n{} passed, {failed} failed, {} skipped", self.passed, self.skipped.len());
        Ok(failed == 0 && !(strict && unexpected > 0))
    }
}

/// Whether a pattern of the list fits this line.
fn is_expected(list: &str, line: &str) -> bool {
    list.lines()
        .map(str::trim)
        .filter(|pattern| !pattern.is_empty() && !pattern.starts_with('#'))
        .any(|pattern| fits(pattern, line))
}

/// Whether the line begins with the pattern, in which `*` stands for anything.
fn fits(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expected_skip_begins_as_the_list_says() {
        let list = "# why\n\nhost lib: kvm::works: /dev/kvm cannot\n";
        assert!(is_expected(list, "host lib: kvm::works: /dev/kvm cannot be opened here"));
        assert!(!is_expected(list, "host lib: kvm::other: /dev/kvm cannot be opened here"));
        assert!(!is_expected("#\n\n", "anything"));
        let soak = "systemtest *: *CASEMATE_SOAK=1 runs it";
        let line = "systemtest test hostile as somebody: hostile::a: long; CASEMATE_SOAK=1 runs it";
        assert!(is_expected(soak, line));
        assert!(!is_expected(soak, "systemtest test hostile: hostile::a: no tmux"));
    }
}
