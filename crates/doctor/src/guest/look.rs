//! One row of the table against what a guest says.

use casemate_plan::hardening::{ALLOCATOR_PATH, Measure, PROGRAM_FILESYSTEMS, Row};
use casemate_wire::text::harmless_line;

use super::answer::Files;

/// Longest text of a guest in a finding, in characters.
const LONGEST_TEXT: usize = 200;

/// Mount points told of one finding.
const MOST_MOUNTS: usize = 8;

pub(super) const COMMAND_LINE: &str = "/proc/cmdline";
pub(super) const MODULES: &str = "/proc/modules";
pub(super) const MOUNTS: &str = "/proc/self/mounts";
pub(super) const LIMITS: &str = "/proc/self/limits";
pub(super) const STATUS: &str = "/proc/self/status";
pub(super) const MAPS: &str = "/proc/self/maps";

/// What one check came to.
pub(super) enum Outcome {
    /// As it should be.
    Good,
    /// Otherwise, as seen.
    Otherwise(String),
    /// The kernel has no such thing.
    Lacking(String),
    /// The guest does not tell, for this reason.
    Unknown(String),
}

/// The file of a kernel setting.
pub(super) fn sysctl_file(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// Compares one row with what the guest says.
pub(super) fn look(row: &Row, files: &Files<'_>) -> Outcome {
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
