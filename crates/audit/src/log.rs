//! Writing: one record at a time, by whichever process has the lock.
//!
//! Between two records others may have written, rotated, or been killed in the middle of a line. So
//! each time the end of the file is looked at, unless it is where this process left it. What stands
//! there behind the last record, and is none, a writer that was killed left, a full disk, or somebody
//! else: it stays, and the next record, `sealed`, is bound to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::chain::first_of;
use crate::record::{Event, NOTHING, Record, digest};

/// Longest line that is written or read, in bytes.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// Bytes before the end in which the last record must be: several lines that are none may follow it.
pub(crate) const TAIL: u64 = 4 * MAX_LINE as u64;

/// How long another writer is waited for, and between two looks.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// Name of the file that is written to.
pub(crate) const CURRENT: &str = "audit.jsonl";

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file or the folder.
    #[error("could not {verb} {}", .path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no record near its end to go on from.
    #[error("could not go on with {}: there is no record in its last {TAIL} bytes", .0.display())]
    Damaged(PathBuf),
    /// The record is longer than any that is read.
    #[error("could not write a record of {0} bytes")]
    TooLong(usize),
}

/// A log that is written to.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    /// A file that is longer is closed, and the next begun.
    max_size: u64,
    /// Where this process left it.
    left: Option<Left>,
}

#[derive(Debug)]
struct Left {
    file: File,
    /// Device and inode, which change when another rotates.
    identity: (u64, u64),
    size: u64,
    last: Last,
}

/// The last record.
#[derive(Clone, Debug)]
struct Last {
    number: u64,
    digest: String,
    /// What stands behind it.
    end: End,
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With the end of a line.
    Whole,
    /// With a whole record that lacks it.
    Missing,
    /// With so many bytes that are no record.
    Torn(u64),
}

impl Log {
    /// The log in a folder, which is made with the first record. Files of over `max_size` bytes are
    /// closed.
    pub fn new(folder: PathBuf, max_size: u64) -> Self {
        Self { folder, max_size, left: None }
    }

    /// Writes a record; returns its number.
    ///
    /// # Errors
    /// Nothing is written, or (a full disk) a piece that the next writer seals.
    pub fn write(&mut self, event: &Event) -> Result<u64, LogError> {
        let _lock = self.lock()?;
        let mut left = match self.left.take() {
            Some(left) if self.is_where_it_was(&left) => left,
            _ => self.open()?,
        };
        if let End::Torn(bytes) = left.last.end {
            let sealed = Event::general("sealed").with("torn-bytes", bytes);
            self.append(&mut left, &sealed)?;
        }
        if left.size >= self.max_size {
            left = self.rotate(left)?;
        }
        self.append(&mut left, event)?;
        let number = left.last.number;
        self.left = Some(left);
        Ok(number)
    }

    fn lock(&self) -> Result<Flock<File>, LogError> {
        casemate_host::places::make_directory(&self.folder).map_err(|error| LogError::File {
            verb: "make",
            path: self.folder.clone(),
            source: io::Error::other(error),
        })?;
        let path = self.folder.join("audit.lock");
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(at("open", &path))?;
        // Who has it writes one line. One that was stopped in the middle must not stop all others.
        let begin = Instant::now();
        let mut file = file;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) if begin.elapsed() < PATIENCE => {
                    file = again;
                    std::thread::sleep(PAUSE);
                }
                Err((_, errno)) => return Err(at("lock", &path)(errno.into())),
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(CURRENT)
    }

    fn is_where_it_was(&self, left: &Left) -> bool {
        let found = fs::metadata(self.path());
        found.is_ok_and(|found| {
            (found.dev(), found.ino()) == left.identity && found.len() == left.size
        })
    }

    /// Opens the file and finds its last record.
    fn open(&self) -> Result<Left, LogError> {
        let path = self.path();
        let mut options = OpenOptions::new();
        let file = options.create(true).read(true).append(true).mode(0o600).open(&path);
        let mut file = file.map_err(at("open", &path))?;
        let metadata = file.metadata().map_err(at("look at", &path))?;
        let size = metadata.len();
        let last = match size {
            0 => self.last_rotated()?,
            _ => find_last(&mut file, size).map_err(at("read", &path))?,
        };
        let last = last.ok_or(LogError::Damaged(path))?;
        Ok(Left { file, identity: (metadata.dev(), metadata.ino()), size, last })
    }

    /// The last record of the newest file that was closed; the beginning when there is none.
    fn last_rotated(&self) -> Result<Option<Last>, LogError> {
        let files = rotated(&self.folder).map_err(at("read", &self.folder))?;
        let Some((_, path)) = files.last() else {
            return Ok(Some(Last { number: 0, digest: NOTHING.into(), end: End::Whole }));
        };
        let mut file = File::open(path).map_err(at("open", path))?;
        let size = file.metadata().map_err(at("look at", path))?.len();
        find_last(&mut file, size).map_err(at("read", path))
    }

    /// Closes the file, and begins the next. Killed in between, the next writer begins it.
    fn rotate(&self, left: Left) -> Result<Left, LogError> {
        let path = self.path();
        let first = first_number(&path).map_err(at("read", &path))?;
        let first = first.ok_or_else(|| LogError::Damaged(path.clone()))?;
        left.file.sync_all().map_err(at("write", &path))?;
        let to = self.folder.join(format!("audit-{first:012}.jsonl"));
        fs::rename(&path, &to).map_err(at("rename", &path))?;
        self.open()
    }

    /// Appends a record, behind the end of a line that has none.
    fn append(&self, left: &mut Left, event: &Event) -> Result<(), LogError> {
        let record = Record::new(left.last.number + 1, left.last.digest.clone(), event);
        let line = record.line();
        if line.len() > MAX_LINE {
            return Err(LogError::TooLong(line.len()));
        }
        // One write, so that a reader sees all of it or nothing, and a kill seldom a half.
        let end: &[u8] = if left.last.end == End::Whole { b"" } else { b"\n" };
        let bytes = [end, line.as_bytes(), b"\n"].concat();
        left.file.write_all(&bytes).map_err(at("write", &self.path()))?;
        left.size += bytes.len() as u64;
        left.last =
            Last { number: record.number, digest: digest(line.as_bytes()), end: End::Whole };
        Ok(())
    }
}

/// Closed files by the number of their first record, oldest first.
pub(crate) fn rotated(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(number) = first_of(&path) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// The last record before `size` and what stands behind it, or none when it is not near the end.
fn find_last(file: &mut File, size: u64) -> io::Result<Option<Last>> {
    let from = size.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(size - from).read_to_end(&mut bytes)?;
    let mut last = None;
    // Behind the end of its line; what is before a first, cut one is not looked at.
    let mut behind = 0;
    let mut begin = 0;
    while let Some(length) = bytes[begin..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[begin..begin + length];
        begin += length + 1;
        if let Ok(record) = serde_json::from_slice::<Record>(line) {
            (last, behind) = (Some((record.number, digest(line))), begin);
        }
    }
    let (number, before) = match last {
        Some(last) => last,
        // Not even the very first is whole.
        None if from == 0 => (0, NOTHING.to_owned()),
        None => return Ok(None),
    };
    let rest = &bytes[behind..];
    Ok(Some(match serde_json::from_slice::<Record>(rest) {
        _ if rest.is_empty() => Last { number, digest: before, end: End::Whole },
        Ok(record) if record.number == number + 1 && record.previous == before => {
            Last { number: number + 1, digest: digest(rest), end: End::Missing }
        }
        _ => Last { number, digest: digest(rest), end: End::Torn(rest.len() as u64) },
    }))
}

/// The number of a file's first record.
fn first_number(path: &Path) -> io::Result<Option<u64>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(TAIL).read_to_end(&mut bytes)?;
    let mut lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.find_map(|line| Some(serde_json::from_slice::<Record>(line).ok()?.number)))
}

fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::File { verb, path, source }
}
