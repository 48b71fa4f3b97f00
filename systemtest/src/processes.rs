//! Looking at processes through `/proc`, proc(5).

use std::collections::BTreeSet;
use std::fs;

/// A process: its id and, since ids come again, when it started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    parent: i32,
    started: u64,
    zombie: bool,
    /// Its program's short name.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Process {
    /// The process with this id.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = line.split(|&byte| byte == 0).filter(|word| !word.is_empty());
        Some(Self {
            pid,
            zombie: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            name,
            arguments: words.map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
        })
    }

    /// The process that started it, or that took its place.
    pub fn parent(&self) -> Option<Self> {
        Self::of(self.parent)
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started == self.started && !now.zombie)
    }

    /// Largest amount of memory it ever had, in KiB; none when it is gone.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// Its arguments name this compartment.
    fn mentions(&self, compartment: &str) -> bool {
        let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '-';
        self.arguments.iter().any(|argument| {
            argument
                .split(|byte: char| !is_name(byte))
                .any(|word| word.strip_prefix("casemate-").unwrap_or(word) == compartment)
        })
    }
}

/// Every process there is, but for this one.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("proc is mounted");
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let own = std::process::id() as i32;
    ids.filter(|&pid| pid != own)
        .filter_map(Process::of)
        .filter(|process| !process.zombie)
        .collect()
}

/// The processes whose arguments name a compartment, and all their descendants.
pub fn of_compartment(name: &str) -> BTreeSet<Process> {
    let all = all();
    let found = all.iter().filter(|process| process.mentions(name)).cloned().collect();
    with_descendants(found, &all)
}

/// What a process started, and what that started, and so on; ids.
pub fn descendants(pid: i32) -> Vec<i32> {
    let all = all();
    let found = all.iter().filter(|process| process.pid == pid).cloned().collect();
    with_descendants(found, &all).into_iter().map(|process| process.pid).collect()
}

fn with_descendants(mut found: BTreeSet<Process>, all: &[Process]) -> BTreeSet<Process> {
    loop {
        let before = found.len();
        let ids: BTreeSet<i32> = found.iter().map(|process| process.pid).collect();
        found.extend(all.iter().filter(|process| ids.contains(&process.parent)).cloned());
        if found.len() == before {
            return found;
        }
    }
}
