//! A guest looked at from inside, by the table it was hardened by.
//!
//! A shell in the guest, as root, only reads: the files that [`question`] names. The answer is a
//! guest's: [`examine`] takes it apart strictly, within limits, and shows no byte of it that could
//! steer a terminal.

mod answer;
mod look;

use std::collections::BTreeSet;

use casemate_config::{Allocator, Compartment, GuestInit};
use casemate_plan::hardening::{Level, Measure, Row, Severity, rows};

use crate::report::{Finding, Report, Unseen};
use look::{COMMAND_LINE, LIMITS, MAPS, MODULES, MOUNTS, Outcome, STATUS, look, sysctl_file};

pub use answer::AnswerError;

/// Longest answer taken, in bytes. A guest's modules, mounts and settings come to 20 KiB.
pub const LONGEST_ANSWER: usize = 1024 * 1024;

/// Files that rows of several kinds are judged by.
const ALWAYS: [&str; 6] = [COMMAND_LINE, MODULES, MOUNTS, LIMITS, STATUS, MAPS];

/// Tells of each argument whether it can be read, `@` or `!` before its name, then shows the lines of
/// all, each behind its file's name and a colon. A dot ends the answer. One process reads them all,
/// each file at once: the kernel gives a setting's first byte only to who asks for one byte.
const SCRIPT: &str = r#"for file do
if [ -r "$file" ]; then printf '@%s\n' "$file"; else printf '!%s\n' "$file"; fi
done
grep -s '' -- "$@" /dev/null
echo ."#;

/// What a compartment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name, for what can be mended.
    pub name: String,
    /// Of `guest.hardening`.
    pub level: Option<Level>,
    /// Of `guest.init`.
    pub init: GuestInit,
    /// Of `guest.allocator`.
    pub allocator: Allocator,
    /// What its owner sets himself: names of sysctls.
    pub sysctls: BTreeSet<String>,
    /// The same of the command line, without values.
    pub parameters: BTreeSet<String>,
    /// The same of files.
    pub files: BTreeSet<String>,
}

impl Asked {
    /// What this compartment asks for.
    pub fn by(compartment: &Compartment) -> Self {
        let guest = &compartment.guest;
        let name_of = |word: &str| word.split('=').next().unwrap_or(word).to_owned();
        Self {
            name: compartment.name.to_string(),
            level: Level::asked(guest.hardening),
            init: guest.init,
            allocator: guest.allocator,
            sysctls: guest.sysctls.keys().map(ToString::to_string).collect(),
            parameters: compartment.kernel_params.iter().map(|p| name_of(p.as_str())).collect(),
            files: guest.files.keys().map(|path| path.as_path().display().to_string()).collect(),
        }
    }

    /// The rows to look at. Where nothing was asked for: those of `standard`, but for files, in
    /// whose place an image can have others that say the same.
    fn rows(&self) -> Vec<Row> {
        let level = self.level.unwrap_or(Level::Standard);
        let mut rows = rows();
        rows.retain(|row| match row.measure {
            // The allocator is a setting of its own.
            Measure::Allocator => self.allocator != Allocator::Default,
            Measure::File { .. } if self.level.is_none() => false,
            _ => row.applies(level, self.init, self.allocator),
        });
        rows
    }
}

/// Program and arguments of the session that looks.
pub fn question(asked: &Asked) -> Vec<String> {
    let mut files: Vec<String> = ALWAYS.map(String::from).to_vec();
    for row in asked.rows() {
        match row.measure {
            Measure::Sysctl { name, .. } => files.push(sysctl_file(name)),
            Measure::File { path, .. } => files.push(path.to_owned()),
            _ => {}
        }
    }
    files.dedup();
    let shell = ["/bin/sh", "-c", SCRIPT, "casemate-doctor"].map(String::from);
    shell.into_iter().chain(files).collect()
}

/// Compares what a guest says with what should be.
///
/// # Errors
/// [`AnswerError`]: the answer is not the one to [`question`].
pub fn examine(asked: &Asked, answer: &[u8]) -> Result<Report, AnswerError> {
    let answer = String::from_utf8_lossy(answer);
    let files = answer::parse(&answer)?;
    let mut report = Report::default();
    for row in asked.rows() {
        let (found, lacking) = match look(&row, &files) {
            Outcome::Good => {
                report.good.push(row.id);
                continue;
            }
            Outcome::Unknown(reason) => {
                let title = row.title.to_owned();
                report.unseen.push(Unseen { id: row.id, title, reason });
                continue;
            }
            Outcome::Otherwise(found) => (found, false),
            Outcome::Lacking(found) => (found, true),
        };
        let own = own_setting(asked, &row.measure);
        let was_asked = match row.measure {
            Measure::Allocator => true,
            _ => asked.level.is_some_and(|level| row.level <= level),
        };
        let (severity, mend) = match (own, lacking, was_asked) {
            (Some(setting), _, _) => (
                Severity::Note,
                format!("the compartment's own `{setting}` says so; take it out to have ours"),
            ),
            (None, true, _) => (
                Severity::Note,
                "nothing, or an image with a kernel that has this setting".to_owned(),
            ),
            (None, false, true) => (Severity::Error, row.mend().replace("NAME", &asked.name)),
            (None, false, false) => (
                row.severity,
                format!(
                    "set `guest.hardening = \"{}\"` in [compartment.{name}], or \
                     `template = \"hardened\"`",
                    row.level.word(),
                    name = asked.name
                ),
            ),
        };
        report.findings.push(Finding {
            id: row.id,
            severity,
            title: row.title.into(),
            found,
            why: row.why.into(),
            mend,
        });
    }
    report.sort();
    Ok(report)
}

/// The setting of the compartment's owner that takes the place of a row's.
fn own_setting(asked: &Asked, measure: &Measure) -> Option<&'static str> {
    let (own, setting) = match measure {
        Measure::KernelParameter(word) => {
            let name = word.split('=').next().unwrap_or(word);
            (asked.parameters.contains(name), "kernel-params")
        }
        Measure::Module(_) => (asked.parameters.contains("module_blacklist"), "kernel-params"),
        Measure::Sysctl { name, .. } => (asked.sysctls.contains(*name), "guest.sysctls"),
        Measure::File { path, .. } => (asked.files.contains(*path), "guest.files"),
        Measure::Nosuid | Measure::NoNewPrivs | Measure::NoCoreDumps | Measure::Allocator => {
            (false, "")
        }
    };
    own.then_some(setting)
}

#[cfg(test)]
mod tests;
