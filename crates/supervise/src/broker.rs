//! The broker of a call: the process that decides it, starts its target and connects the two.
//!
//! ```text
//! guest ─▶ agent ─▶ link ─ Call ─▶ supervisor ── starts ──▶ broker: policy, target, its session
//!                    ▲                 │ ▲                     │
//!                    └── Connect, fd ──┘ └──── verdict ────────┘
//! ```
//!
//! One process for each call, gone when the call goes through: what it may take (a question to the
//! user, the start of another compartment) holds up nobody. Its standard input is the far end of the
//! socket that the caller's link gets; its standard output says the [`Verdict`], one line. When the near
//! end is closed, because the caller or the supervisor has gone, it stops asking and starting.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longest verdict, in bytes.
pub const MAX_VERDICT: u64 = 64 * 1024;

/// Name of the hidden command of `casemate` that is the broker.
pub const COMMAND: &str = "broker";

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "call")]
pub enum Verdict {
    /// Its service is at the other end of the socket.
    Connected {
        /// Where it went: a compartment's name, or `dom0`.
        target: String,
        /// The file and line of the policy that let it through.
        by: String,
    },
    /// It does not go through.
    Refused {
        /// Exit code of whoever called: 125 to 127.
        code: u8,
        /// What the caller is told. What stands in the policy is not for a guest.
        reason: String,
        /// What the log is told.
        detail: String,
    },
}

/// What a service of the host did that the log shall have: a second line, once it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "served")]
pub enum Served {
    /// Files came to the host.
    Copy {
        /// Of what was named, so many arrived.
        items: u32,
        /// Files and folders.
        files: u32,
        /// Bytes.
        bytes: u64,
        /// Everything did.
        whole: bool,
    },
}

/// How to start a broker.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file of `casemate`.
    pub path: PathBuf,
    /// The only configuration to read.
    pub config: Option<PathBuf>,
    /// Who calls.
    pub source: String,
}

/// The `casemate` that belongs to the supervisor in this file: beside it, or in `bin` of the same
/// prefix.
pub fn command_line(supervisor: &Path) -> PathBuf {
    let beside = supervisor.with_file_name("casemate");
    let prefix = supervisor.ancestors().nth(3);
    let in_bin = prefix.map(|prefix| prefix.join("bin/casemate"));
    match in_bin {
        Some(path) if !beside.exists() => path,
        _ => beside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_beside_the_supervisor_or_in_bin() {
        let prefix = tempfile::tempdir().expect("a directory");
        let libexec = prefix.path().join("libexec/casemate");
        std::fs::create_dir_all(&libexec).expect("made");
        let supervisor = libexec.join("casemate-supervisor");
        assert_eq!(command_line(&supervisor), prefix.path().join("bin/casemate"));
        std::fs::write(libexec.join("casemate"), "").expect("written");
        assert_eq!(command_line(&supervisor), libexec.join("casemate"));
    }
}
