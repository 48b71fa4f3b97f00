//! A guest looked at from inside, by the table it was hardened by.
//!
//! A shell in the guest, as root, only reads: the files that [`question`] names. The answer is a guest's: [`examine`] takes it apart strictly, within
//! limits, and shows no byte of it that could steer a terminal.

use std::collections::{BTreeMap, BTreeSet};

use casemate_config::{Allocator, Compartment, GuestInit};
use casemate_plan::hardening::{
    ALLOCATOR_PATH, Level, Measure, PROGRAM_FILESYSTEMS, Row, Severity, rows,
};
use casemate_wire::text::harmless_line;

use crate::report::{Finding, Report, Unseen};

/// Longest answer taken, in bytes. A guest's modules, mounts and settings come to 20 KiB.
pub const LONGEST_ANSWER: usize = 1024 * 1024;

/// Longest text of a guest in a finding, in characters.
const LONGEST_TEXT: usize = 200;

/// Mount points told of one finding.
const MOST_MOUNTS: usize = 8;

const COMMAND_LINE: &str = "/proc/cmdline";
const MODULES: &str = "/proc/modules";
const MOUNTS: &str = "/proc/self/mounts";
const LIMITS: &str = "/proc/self/limits";
const STATUS: &str = "/proc/self/status";
const MAPS: &str = "/proc/self/maps";
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

fn sysctl_file(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// Why an answer tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A line that is neither a header nor content.
    #[error("could not read the guest's answer: line {0} is none of ours")]
    Line(usize),
    /// It was cut off.
    #[error("could not read the guest's answer: its end is missing")]
    NoEnd,
}

/// What the guest says its files hold; none for one it cannot read.
type Files<'a> = BTreeMap<&'a str, Option<Vec<&'a str>>>;

fn parse(text: &str) -> Result<Files<'_>, AnswerError> {
    let mut files = Files::new();
    let mut ended = false;
    for (number, line) in text.lines().enumerate() {
        if ended {
            return Err(AnswerError::Line(number + 1));
        }
        match line.split_at_checked(1) {
            Some(("@", name)) => drop(files.insert(name, Some(Vec::new()))),
            Some(("!", name)) => drop(files.insert(name, None)),
            Some((".", "")) => ended = true,
            _ => {
                let told = line.split_once(':').and_then(|(name, content)| {
                    files.get_mut(name)?.as_mut().map(|lines| lines.push(content))
                });
                told.ok_or(AnswerError::Line(number + 1))?;
            }
        }
    }
    if ended { Ok(files) } else { Err(AnswerError::NoEnd) }
}

/// What one check came to.
enum Outcome {
    Good,
    /// Otherwise, as seen.
    Otherwise(String),
    /// The kernel has no such thing.
    Lacking(String),
    Unknown(String),
}

/// Compares what a guest says with what should be.
///
/// # Errors
/// [`AnswerError`]: the answer is not the one to [`question`].
pub fn examine(asked: &Asked, answer: &[u8]) -> Result<Report, AnswerError> {
    let answer = String::from_utf8_lossy(answer);
    let files = parse(&answer)?;
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

fn look(row: &Row, files: &Files<'_>) -> Outcome {
    match row.measure {
        Measure::KernelParameter(word) => with(files, COMMAND_LINE, |lines| parameter(word, lines)),
        Measure::Module(name) => with(files, COMMAND_LINE, |lines| {
            let list = last_value("module_blacklist", lines).unwrap_or_default();
            let blocked = list.split(',').any(|blocked| blocked == name);
            let loaded = |line: &&str| line.split(' ').next() == Some(name);
            match files.get(MODULES).and_then(Option::as_ref) {
                Some(modules) if modules.iter().any(loaded) => {
                    Outcome::Otherwise(format!("{name} is loaded"))
                }
                _ if blocked => Outcome::Good,
                _ => Outcome::Otherwise(format!("{name} can be loaded")),
            }
        }),
        Measure::Sysctl { name, value, also } => match files.get(sysctl_file(name).as_str()) {
            Some(Some(lines)) => {
                let seen = lines.first().copied().unwrap_or_default();
                if seen == value || also.contains(&seen) {
                    Outcome::Good
                } else {
                    Outcome::Otherwise(format!("{name} = {}", shown(seen)))
                }
            }
            Some(None) => Outcome::Lacking(format!("the guest's kernel has no {name}")),
            None => not_told(name),
        },
        Measure::File { path, content, .. } => match files.get(path) {
            Some(Some(lines)) if lines.iter().copied().eq(content.lines()) => Outcome::Good,
            Some(Some(_)) => Outcome::Otherwise(format!("{path} has another content")),
            Some(None) => Outcome::Otherwise(format!("{path} is not there")),
            None => not_told(path),
        },
        Measure::Nosuid => with(files, MOUNTS, nosuid),
        Measure::NoNewPrivs => with(files, STATUS, |lines| {
            match lines.iter().find_map(|line| line.strip_prefix("NoNewPrivs:")) {
                Some(value) if value.trim() == "1" => Outcome::Good,
                Some(value) => Outcome::Otherwise(format!("NoNewPrivs is {}", shown(value.trim()))),
                None => Outcome::Lacking("the guest's kernel does not tell".into()),
            }
        }),
        Measure::NoCoreDumps => with(files, LIMITS, |lines| {
            let line = lines.iter().find_map(|line| line.strip_prefix("Max core file size"));
            let mut values = line.unwrap_or_default().split_whitespace();
            match (values.next(), values.next()) {
                (Some("0"), Some("0")) => Outcome::Good,
                (Some(soft), Some(hard)) => Outcome::Otherwise(format!(
                    "core files of up to {} bytes, or {} for who asks",
                    shown(soft),
                    shown(hard)
                )),
                _ => not_told(LIMITS),
            }
        }),
        Measure::Allocator => with(files, MAPS, |lines| {
            match lines.iter().any(|line| line.ends_with(ALLOCATOR_PATH)) {
                true => Outcome::Good,
                false => Outcome::Otherwise("programs run without it".into()),
            }
        }),
    }
}

fn with(files: &Files<'_>, name: &str, judge: impl Fn(&[&str]) -> Outcome) -> Outcome {
    match files.get(name) {
        Some(Some(lines)) => judge(lines),
        Some(None) => Outcome::Unknown(format!("the guest cannot read {name}")),
        None => not_told(name),
    }
}

fn not_told(name: &str) -> Outcome {
    Outcome::Unknown(format!("the guest told nothing of {name}"))
}

/// The value of the last word with this name, as the kernel takes it.
fn last_value<'a>(name: &str, lines: &[&'a str]) -> Option<&'a str> {
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next_back()
}

fn parameter(word: &str, lines: &[&str]) -> Outcome {
    let (name, wanted) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let Some(wanted) = wanted else {
        let mut words = lines.iter().flat_map(|line| line.split_whitespace());
        return match words.any(|seen| seen == word) {
            true => Outcome::Good,
            false => Outcome::Otherwise(format!("no {word} on the command line")),
        };
    };
    match last_value(name, lines) {
        Some(seen) if seen == wanted => Outcome::Good,
        Some(seen) => Outcome::Otherwise(format!("{name}={}", shown(seen))),
        None => Outcome::Otherwise(format!("no {name} on the command line")),
    }
}

fn nosuid(lines: &[&str]) -> Outcome {
    let mut open = Vec::new();
    for line in lines {
        let mut fields = line.split(' ');
        let (Some(_), Some(point), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return not_told(MOUNTS);
        };
        let kind = kind.split('.').next().unwrap_or(kind);
        let holds_programs = PROGRAM_FILESYSTEMS.contains(&kind);
        if holds_programs && !options.split(',').any(|option| option == "nosuid") {
            open.push(shown(point));
        }
    }
    match open.len() {
        0 => Outcome::Good,
        more if more > MOST_MOUNTS => {
            let rest = more - MOST_MOUNTS;
            open.truncate(MOST_MOUNTS);
            Outcome::Otherwise(format!("without nosuid: {}, and {rest} more", open.join(" ")))
        }
        _ => Outcome::Otherwise(format!("without nosuid: {}", open.join(" "))),
    }
}

/// What a guest wrote, made harmless.
fn shown(text: &str) -> String {
    match text {
        "" => "(nothing)".into(),
        text => harmless_line(text, LONGEST_TEXT),
    }
}

#[cfg(test)]
mod tests;
