//! Locks that end with their holder: open file description locks (fcntl(2), Linux 3.15) on a file
//! that says who has it. The kernel drops the lock however the holder ends, and others can ask for
//! it without taking it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};

/// Who has a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// When it took the lock, in nanoseconds since 1970.
    pub since: u64,
}

/// A lock that is ours until this is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// Who signed it before us and did not end in order, if anybody.
    previous: Option<Holder>,
    /// Somebody else has it.
    handed_over: bool,
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub enum Taking {
    /// It is ours.
    Ours(Lock),
    /// Somebody has it: who, if that could be read.
    Theirs(Option<Holder>),
}

impl Lock {
    /// Takes the lock on the file at `path`, which is made (mode 0600) if it is not there. Does
    /// not wait.
    ///
    /// # Errors
    /// The file cannot be opened: [`io::ErrorKind::NotFound`] when its directory is not there, or
    /// has just been removed by the holder.
    pub fn take(path: &Path) -> io::Result<Taking> {
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
            let previous = read_holder(&mut file);
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
                // The holder may have removed the file before it let go of it.
                Ok(_) if !is_still(&file, path) => {}
                Ok(_) => return Ok(Taking::Ours(Self { file, previous, handed_over: false })),
                Err(Errno::EAGAIN | Errno::EACCES) => return Ok(Taking::Theirs(previous)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Who signed it before us and did not end in order, if anybody.
    pub fn previous(&self) -> Option<Holder> {
        self.previous
    }

    /// A descriptor for a program that is at work on what the lock is for: were we killed, nobody
    /// else could take the lock before the program has ended too.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Hands it to a program, which has it for as long as it keeps the descriptor open.
    ///
    /// # Errors
    /// There are too many open files; then nobody has it.
    pub fn hand_over(mut self) -> io::Result<OwnedFd> {
        let descriptor = self.share()?;
        self.handed_over = true;
        Ok(descriptor)
    }

    /// Writes into the file that this process has it.
    ///
    /// # Errors
    /// The file cannot be written; the lock is ours all the same.
    pub fn sign(&mut self) -> io::Result<()> {
        let holder = Holder { pid: std::process::id(), since: crate::clock::now_ns() };
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&serde_json::to_vec(&holder)?)
    }
}

impl Drop for Lock {
    /// Lets go of it at once. Closing is not enough: a process just forked by another thread has
    /// all our descriptors until it executes its program.
    fn drop(&mut self) {
        if !self.handed_over {
            let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK)));
        }
    }
}

/// Who has the lock on the file at `path`; none when nobody does. Takes nothing.
///
/// # Errors
/// The file is there and cannot be looked at.
pub fn holder(path: &Path) -> io::Result<Option<Holder>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut asked = whole_file(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    let held = asked.l_type != libc::F_UNLCK as libc::c_short;
    Ok(if held { read_holder(&mut file) } else { None })
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = Vec::new();
    file.take(1024).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn one_has_it_and_others_see_who() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        assert_eq!(holder(&path).expect("asked"), None);
        let Taking::Ours(mut lock) = Lock::take(&path).expect("tried") else {
            panic!("nobody else is here");
        };
        lock.sign().expect("signed");
        let held = holder(&path).expect("asked").expect("held");
        assert_eq!(held.pid, std::process::id());
        match Lock::take(&path).expect("tried") {
            Taking::Theirs(other) => assert_eq!(other, Some(held)),
            Taking::Ours(_) => panic!("taken twice"),
        }
        let shared = lock.share().expect("shared");
        drop(lock);
        assert_eq!(holder(&path).expect("asked"), None, "though another descriptor is open");
        drop(shared);
        match Lock::take(&path).expect("tried") {
            Taking::Ours(lock) => assert_eq!(lock.previous(), Some(held)),
            Taking::Theirs(_) => panic!("nobody has it"),
        }
    }

    #[test]
    fn a_shared_lock_outlives_the_process_that_took_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        let Taking::Ours(lock) = Lock::take(&path).expect("tried") else {
            panic!("nobody else is here");
        };
        // As after a kill, all that is left is the program's descriptor.
        let mut program = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(lock.share().expect("shared"))
            .spawn()
            .expect("started");
        let Lock { file, .. } = &*std::mem::ManuallyDrop::new(lock);
        let file = file.as_raw_fd();
        nix::unistd::close(file).expect("closed");
        assert!(matches!(Lock::take(&path).expect("tried"), Taking::Theirs(_)));
        drop(program.stdin.take());
        program.wait().expect("ended");
        // Another test may just be starting a program, which has the descriptor for a moment.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while matches!(Lock::take(&path).expect("tried"), Taking::Theirs(_)) {
            assert!(std::time::Instant::now() < deadline, "never released");
        }
    }

    #[test]
    fn a_lock_that_was_handed_over_is_held_until_its_descriptor_is_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        let Taking::Ours(lock) = Lock::take(&path).expect("tried") else {
            panic!("nobody else is here");
        };
        let descriptor = lock.hand_over().expect("handed over");
        assert!(matches!(Lock::take(&path).expect("tried"), Taking::Theirs(_)));
        drop(descriptor);
        // Another test may just be starting a program, which has the descriptor for a moment.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while matches!(Lock::take(&path).expect("tried"), Taking::Theirs(_)) {
            assert!(std::time::Instant::now() < deadline, "never released");
        }
    }

    #[test]
    fn a_lock_without_its_directory_is_not_found() {
        let error = Lock::take(Path::new("/nonexistent/lock")).expect_err("nowhere");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
