//! How far records were sent elsewhere: `forward` in the log's folder, written by the one process that
//! sends them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use casemate_host::durable::{self, DurableError};
use casemate_host::places;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// How far records of one log are at each place they are sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Forwarded {
    /// At the syslog server.
    #[serde(default)]
    pub syslog: Progress,
    /// At the kernel's audit.
    #[serde(default)]
    pub auditd: Progress,
}

/// How far they are at one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Progress {
    /// Number of the last record that arrived; 0 for none.
    pub number: u64,
    /// Its digest, by which another log is told from this one.
    pub digest: String,
    /// Why the next one has not arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The folder.
fn folder(log: &Path) -> PathBuf {
    log.join("forward")
}

impl Forwarded {
    /// The folder, made if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or somebody else could write to it.
    pub fn make_folder(log: &Path) -> Result<PathBuf, places::PlacesError> {
        places::make_directory(log)?;
        let folder = folder(log);
        places::make_directory(&folder)?;
        Ok(folder)
    }

    /// What was kept for the log in this folder. Nothing, and a file that is damaged, is a beginning:
    /// what comes twice is seen by its number, what never comes is not.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(log: &Path) -> Result<Self, DurableError> {
        match durable::load(&folder(log).join("state.json")) {
            Err(DurableError::Parse { .. }) => Ok(Self::default()),
            other => other.map(Option::unwrap_or_default),
        }
    }

    /// Keeps it.
    ///
    /// # Errors
    /// It cannot be written; what was kept stays.
    pub fn store(&self, log: &Path) -> Result<(), DurableError> {
        durable::store(&folder(log).join("state.json"), self)
    }

    /// The right to send, of one process at a time; none when another has it.
    ///
    /// # Errors
    /// The folder or the file cannot be made.
    pub fn lock(log: &Path) -> io::Result<Option<Flock<File>>> {
        let folder = Self::make_folder(log).map_err(io::Error::other)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(folder.join("lock"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}
