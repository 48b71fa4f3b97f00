//! One cgroup per session, so that everything a session started can be ended, daemons included.
//!
//! Only cgroup v2 is used. Where it is not mounted or not ours (a container, an odd init),
//! sessions run without, and hanging up reaches their process group only.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Folder of the sessions' cgroups.
const SESSIONS: &str = "/sys/fs/cgroup/casemate";

/// Where sessions' cgroups are made, and those that could not be removed yet.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    available: bool,
    /// Sessions that are over and left processes behind: removed when those are gone.
    leftover: Vec<PathBuf>,
}

/// A session's cgroup. Stays when dropped; [`Cgroups::discard`] removes it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: OwnedFd,
    path: PathBuf,
}

impl Cgroups {
    /// Prepares the folder; false in the result's `available` when there is no cgroup v2.
    pub(crate) fn new() -> Self {
        let root = Path::new(SESSIONS).parent().unwrap_or(Path::new("/"));
        let available = root.join("cgroup.procs").exists()
            && (Path::new(SESSIONS).exists() || fs::create_dir(SESSIONS).is_ok());
        Self { available, leftover: Vec::new() }
    }

    /// A new cgroup for the session with this id; none when that does not work here.
    pub(crate) fn create(&mut self, session: u32) -> Option<Cgroup> {
        if !self.available {
            return None;
        }
        let path = Path::new(SESSIONS).join(session.to_string());
        match fs::create_dir(&path) {
            Ok(()) => {}
            // Of an agent before this one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => return None,
        }
        let folder = fs::File::open(&path).ok()?.into();
        Some(Cgroup { folder, path })
    }

    /// Removes a session's cgroup, now or when its last process is gone.
    pub(crate) fn discard(&mut self, cgroup: Option<Cgroup>) {
        let Some(cgroup) = cgroup else { return };
        if fs::remove_dir(&cgroup.path).is_err() {
            self.leftover.push(cgroup.path);
        }
    }

    /// Tries again to remove what was left over.
    pub(crate) fn tidy(&mut self) {
        self.leftover.retain(|path| match fs::remove_dir(path) {
            Ok(()) => false,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
    }
}

impl Cgroup {
    /// For clone3.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Ends every process in it, now.
    pub(crate) fn kill(&self) {
        // Before Linux 5.14 there is no such file; the process group was signalled anyway.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }
}
