//! Reads the output of mmdebstrap, apt and mkfs.erofs: how far they are, and why they failed.
//! Their words are those of the C locale, which mmdebstrap sets.

use crate::{Phase, Progress};

/// Printed by our hook when it begins.
pub(super) const KERNEL_MARK: &str = "casemate: fetching the kernel";
/// Printed by our hook before the names of packages none of which exist.
pub(super) const NO_KERNEL_MARK: &str = "casemate: no such kernel package: ";

/// The lists are fetched by the first hook, where there is one, or else by mmdebstrap.
const LISTS_WORDS: [&str; 2] = ["I: running --setup-hook", "I: running apt-get update"];
const NETWORK_WORDS: [&str; 7] = [
    "Temporary failure resolving",
    "Could not resolve",
    "Could not connect",
    "Unable to connect",
    "Network is unreachable",
    "Connection timed out",
    "Connection failed",
];
const NAMESPACE_WORDS: [&str; 2] = ["unshare() failed", "unshare syscall failed"];

/// Why a program failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    DiskFull,
    NoNamespaces,
    NoNetwork,
    NoPackage(String),
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Packages of the running round of apt.
    total: usize,
    downloaded: usize,
    unpacked: usize,
    configured: usize,
    reason: Option<Reason>,
}

impl Output {
    /// Takes in a line; returns a step if it tells of one.
    pub(super) fn line(&mut self, line: &str) -> Option<Progress> {
        self.look_for_reason(line);
        if LISTS_WORDS.iter().any(|words| line.starts_with(words)) {
            return Some(Progress::begin(Phase::Lists));
        }
        if line == KERNEL_MARK {
            return Some(Progress::begin(Phase::Kernel));
        }
        if let Some(total) = newly_installed(line) {
            (self.total, self.downloaded) = (total, 0);
            (self.unpacked, self.configured) = (0, 0);
            return (total > 0).then(|| Progress::begin(Phase::Download));
        }
        // Lists are fetched and a stand-in package is installed before any round begins.
        if self.total == 0 {
            return None;
        }
        if let Some(package) = line.strip_prefix("Get:") {
            let package = package.split_whitespace().nth(4)?;
            return Some(step(Phase::Download, &mut self.downloaded, self.total, package));
        }
        if let Some(package) = line.strip_prefix("Unpacking ") {
            return Some(step(Phase::Unpack, &mut self.unpacked, self.total, package));
        }
        let package = line.strip_prefix("Setting up ")?;
        Some(step(Phase::Configure, &mut self.configured, self.total, package))
    }

    /// Why the program failed, if its output says.
    pub(super) fn reason(self) -> Option<Reason> {
        self.reason
    }

    fn look_for_reason(&mut self, line: &str) {
        let found = if line.contains("No space left on device") {
            Some(Reason::DiskFull)
        } else if NAMESPACE_WORDS.iter().any(|words| line.contains(words)) {
            Some(Reason::NoNamespaces)
        } else if let Some(package) = missing_package(line) {
            Some(Reason::NoPackage(package.to_owned()))
        } else if NETWORK_WORDS.iter().any(|words| line.contains(words)) {
            Some(Reason::NoNetwork)
        } else {
            None
        };
        // A full disk explains everything that follows it; else the first reason counts.
        if self.reason.is_none() || found == Some(Reason::DiskFull) {
            self.reason = found.or(self.reason.take());
        }
    }
}

fn step(phase: Phase, done: &mut usize, total: usize, package: &str) -> Progress {
    *done += 1;
    let name = package.split([' ', ':']).next().unwrap_or(package);
    Progress::step(phase, *done, total, name)
}

/// `0 upgraded, 48 newly installed, 0 to remove and 0 not upgraded.`
fn newly_installed(line: &str) -> Option<usize> {
    let (_, rest) = line.split_once(" upgraded, ")?;
    let (count, _) = rest.split_once(" newly installed")?;
    count.parse().ok()
}

fn missing_package(line: &str) -> Option<&str> {
    line.strip_prefix("E: Unable to locate package ")
        .or_else(|| line.strip_prefix(NO_KERNEL_MARK))
        .or_else(|| {
            let rest = line.strip_prefix("E: Package '")?;
            rest.strip_suffix("' has no installation candidate")
        })
        .or_else(|| {
            let rest = line.strip_prefix("E: Couldn't find any package by ")?;
            rest.split('\'').nth(1)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<(Phase, Option<f32>, Option<String>)> {
        let mut output = Output::default();
        text.lines()
            .filter_map(|line| output.line(line))
            .map(|step| (step.phase, step.fraction, step.subject))
            .collect()
    }

    fn reason(text: &str) -> Option<Reason> {
        let mut output = Output::default();
        for line in text.lines() {
            output.line(line);
        }
        output.reason()
    }

    #[test]
    fn phases_and_fractions_follow_the_output() {
        let text = "\
I: running apt-get update...
Get:1 http://mirror.example/debian bookworm InRelease [151 kB]
Unpacking usr-is-merged (1) ...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Get:1 http://mirror.example/debian bookworm/main amd64 less amd64 590-2 [132 kB]
Unpacking less (590-2) ...
Setting up libcom-err2:amd64 (1.47.0-2) ...
Setting up less (590-2) ...
casemate: fetching the kernel
";
        let package = |name: &str| Some(name.to_owned());
        let expected = [
            (Phase::Lists, None, None),
            (Phase::Download, None, None),
            (Phase::Download, Some(0.5), package("less")),
            (Phase::Unpack, Some(0.5), package("less")),
            (Phase::Configure, Some(0.5), package("libcom-err2")),
            (Phase::Configure, Some(1.0), package("less")),
            (Phase::Kernel, None, None),
        ];
        assert_eq!(steps(text), expected);
    }

    #[test]
    fn missing_packages_are_named() {
        for line in [
            "E: Unable to locate package nosuch",
            "E: Package 'nosuch' has no installation candidate",
            "E: Couldn't find any package by glob 'nosuch'",
            "casemate: no such kernel package: nosuch",
        ] {
            assert_eq!(reason(line), Some(Reason::NoPackage("nosuch".into())));
        }
    }

    #[test]
    fn a_full_disk_outweighs_what_else_went_wrong() {
        let text = "\
Err:1 http://mirror.example bookworm InRelease
  Temporary failure resolving 'mirror.example'
E: write failed: No space left on device
E: Unable to locate package less
";
        assert_eq!(reason(text), Some(Reason::DiskFull));
        let first = text.lines().take(2).collect::<Vec<_>>().join("\n");
        assert_eq!(reason(&first), Some(Reason::NoNetwork));
    }
}
