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

/// Whether a line of the list is the beginning of this one.
fn is_expected(list: &str, line: &str) -> bool {
    list.lines()
        .map(str::trim)
        .filter(|known| !known.is_empty() && !known.starts_with('#'))
        .any(|known| line.starts_with(known))
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
    }
}
