//! The hardening of guests: one table, from which a start is planned and a running guest is checked.
//!
//! ```text
//! table::ROWS ─▶ render  ─▶ kernel command line, sysctls, files, restrictions   (this crate)
//!             └▶ doctor  ─▶ what is to be seen from inside, compared            (casemate-doctor)
//! ```
//!
//! Pure data. The reasons for what is in the table and what is not: docs/design/0009-hardening.md.

mod modules;
mod render;
mod table;

use casemate_config::{Allocator, GuestInit, Hardening};
use serde::Serialize;

pub use render::{files, kernel_words, restrictions, sysctls};
pub use table::rows;

/// Where the library of a hardened allocator lies in a guest.
pub const ALLOCATOR_PATH: &str = "/usr/lib/casemate/hardened-malloc.so";

/// The file that makes the dynamic linker load it into every program, ld.so(8).
pub const PRELOAD: &str = "/etc/ld.so.preload";

/// File systems on which programs can lie. Where one is mounted without `nosuid`, a set-user-id
/// program gives its owner's rights.
pub const PROGRAM_FILESYSTEMS: [&str; 12] = [
    "btrfs", "erofs", "ext2", "ext3", "ext4", "fuse", "overlay", "ramfs", "squashfs", "tmpfs",
    "virtiofs", "xfs",
];

/// How bad it is when something is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing need be done.
    Note,
    /// Protection that could be had is not there.
    Warning,
    /// Something does not work, or protection that was asked for is not there.
    Error,
}

/// From which setting of `guest.hardening` on a row applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// `standard`.
    Standard,
    /// `strict`.
    Strict,
}

/// One thing that is set in a guest, and looked at from inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Unique; its first word is the kind.
    pub id: String,
    /// What it is, without a verb.
    pub title: &'static str,
    /// What it is good for, in one sentence.
    pub why: &'static str,
    /// How bad its absence is where nobody asked for it; where it was asked for it is an error.
    pub severity: Severity,
    /// Since which level it applies.
    pub level: Level,
    /// How it is set, and with that what is looked at.
    pub measure: Measure,
}

/// How a row is carried out. Whoever checks it looks at the same thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A word of the kernel's command line.
    KernelParameter(&'static str),
    /// A kernel setting.
    Sysctl {
        /// As sysctl(8) names it.
        name: &'static str,
        /// What is written.
        value: &'static str,
        /// Values that are as good or better.
        also: &'static [&'static str],
    },
    /// A kernel module that is never loaded (`module_blacklist=`).
    Module(&'static str),
    /// A file.
    File {
        /// Where it is.
        path: &'static str,
        /// All of it.
        content: &'static str,
        /// Only where systemd is process 1.
        systemd: bool,
    },
    /// No file system with programs is mounted without `nosuid`.
    Nosuid,
    /// Sessions run with no_new_privs.
    NoNewPrivs,
    /// Sessions leave no core file.
    NoCoreDumps,
    /// The hardened allocator is in every dynamic program.
    Allocator,
}

impl Level {
    /// The level a compartment asks for; none when it asks for nothing.
    pub const fn asked(hardening: Hardening) -> Option<Self> {
        match hardening {
            Hardening::None => None,
            Hardening::Standard => Some(Self::Standard),
            Hardening::Strict => Some(Self::Strict),
        }
    }

    /// The word of the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Strict => "strict",
        }
    }
}

impl Row {
    /// Whether it applies to a guest of this level and init.
    pub fn applies(&self, level: Level, init: GuestInit, allocator: Allocator) -> bool {
        let possible = match self.measure {
            Measure::File { systemd: true, .. } => init == GuestInit::Systemd,
            Measure::Allocator => allocator != Allocator::Default,
            _ => true,
        };
        possible && self.level <= level
    }

    /// What can be done when it is not so although it was asked for.
    pub const fn mend(&self) -> &'static str {
        match self.measure {
            Measure::KernelParameter(_) => {
                "take what contradicts it out of `kernel-params`, then restart the compartment; \
                 with a `kernel` of your own, build it with this option"
            }
            Measure::Sysctl { .. } => {
                "something in the guest changed it, or its kernel refuses the value: look at \
                 `casemate logs`, /etc/sysctl.d of the image and `guest.sysctls`"
            }
            Measure::Module(_) => {
                "take `module_blacklist=` out of `kernel-params`, which replaces ours, then restart"
            }
            Measure::File { .. } => {
                "take the file out of `guest.files`, or restart the compartment to have it written \
                 again"
            }
            Measure::Nosuid => {
                "mount it with nosuid, or find out who in the guest mounted it: casemate run --root \
                 NAME -- findmnt"
            }
            Measure::NoNewPrivs | Measure::NoCoreDumps => {
                "restart the compartment: the agent sets it for each session"
            }
            Measure::Allocator => {
                "use an image with glibc 2.25 or later, and leave /etc/ld.so.preload as it is"
            }
        }
    }
}

#[cfg(test)]
mod tests;
