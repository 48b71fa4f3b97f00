//! What was found, and how a person reads it.

use std::fmt::Write;

use casemate_plan::hardening::Severity;
use serde::Serialize;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// The check, as the page of all checks names it.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What should be, without a verb.
    pub title: String,
    /// What was seen instead.
    pub found: String,
    /// What it would be good for.
    pub why: String,
    /// What can be done.
    pub mend: String,
}

/// Something that could not be looked at; nothing is known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unseen {
    /// The check.
    pub id: String,
    /// What should be.
    pub title: String,
    /// Why it could not be looked at.
    pub reason: String,
}

/// All that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// What is not as it should be, the worst first.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unseen: Vec<Unseen>,
    /// The checks that found nothing.
    pub good: Vec<String>,
}

impl Report {
    /// Whether something has to be done.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The worst first; else in the order of the table.
    pub(crate) fn sort(&mut self) {
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    }

    /// For a person. `subject` is what was looked at. Findings that differ only in what was seen are
    /// told together.
    pub fn print(&self, subject: &str) -> String {
        let mut out = format!("{subject}\n");
        let mut rest: Vec<&Finding> = self.findings.iter().collect();
        while let Some(&first) = rest.first() {
            let alike = |other: &&Finding| {
                (other.severity, &other.why, &other.mend)
                    == (first.severity, &first.why, &first.mend)
            };
            let (together, others): (Vec<&Finding>, Vec<&Finding>) =
                rest.iter().copied().partition(alike);
            rest = others;
            // Writing to a String cannot fail.
            let _ = block(&mut out, &together);
        }
        for unseen in &self.unseen {
            let _ = writeln!(
                out,
                "\nunknown  {} ({})\n         {}",
                unseen.title, unseen.id, unseen.reason
            );
        }
        let count = |severity| self.findings.iter().filter(|one| one.severity == severity).count();
        let counted = |number: usize, noun: &str| match number {
            1 => format!("1 {noun}"),
            _ => format!("{number} {noun}s"),
        };
        let _ = writeln!(
            out,
            "\n{}, {}, {}; {} unknown; {} good",
            counted(count(Severity::Error), "error"),
            counted(count(Severity::Warning), "warning"),
            counted(count(Severity::Note), "note"),
            self.unseen.len(),
            self.good.len()
        );
        out
    }
}

fn block(out: &mut String, together: &[&Finding]) -> std::fmt::Result {
    let Some(first) = together.first() else { return Ok(()) };
    let word = match first.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    if let [one] = together {
        writeln!(out, "\n{word:<7}  {} ({})", one.title, one.id)?;
        writeln!(out, "  found  {}", one.found)?;
    } else {
        let mut titles: Vec<&str> = together.iter().map(|one| one.title.as_str()).collect();
        titles.dedup();
        writeln!(out, "\n{word:<7}  {}", titles.join("; "))?;
        for one in together {
            writeln!(out, "  found  {} ({})", one.found, one.id)?;
        }
    }
    writeln!(out, "  why    {}", first.why)?;
    writeln!(out, "  mend   {}", first.mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, severity: Severity, found: &str) -> Finding {
        Finding {
            id: id.into(),
            severity,
            title: "a title".into(),
            found: found.into(),
            why: "a reason".into(),
            mend: "a mend".into(),
        }
    }

    #[test]
    fn worst_comes_first_and_alike_ones_stand_together() {
        let mut report = Report {
            findings: vec![
                finding("a", Severity::Note, "1"),
                finding("b", Severity::Error, "2"),
                finding("c", Severity::Note, "3"),
            ],
            ..Report::default()
        };
        report.sort();
        assert!(report.has_errors());
        let text = report.print("it");
        assert_eq!(
            text,
            "it\n\nerror    a title (b)\n  found  2\n  why    a reason\n  mend   a mend\n\
             \nnote     a title\n  found  1 (a)\n  found  3 (c)\n  why    a reason\n  mend   a mend\n\
             \n1 error, 0 warnings, 2 notes; 0 unknown; 0 good\n"
        );
    }
}
