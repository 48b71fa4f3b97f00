//! A file that was opened elsewhere and may come back changed: it takes the place of the original in one
//! step, and only of what was sent.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use crate::decode::{Decoder, Event};
use crate::entry::{self, Kind};
use crate::name::numbered;
use crate::place::{self, STAGING};
use crate::receive::{ReceiveError, fill};
use crate::send::Like;
use crate::stream::StreamError;

/// What came back is at most so much larger than the original, in bytes.
const MORE: u64 = 256 * 1024 * 1024;

/// Files beside the original among which left ones are looked for.
const MAX_LOOKED_AT: usize = 100_000;

/// Why what came back is not in its place. It is kept.
#[derive(Debug, thiserror::Error)]
#[error("what came back is {}, until the next file is opened there", .kept.display())]
pub struct ReplaceError {
    /// Where.
    pub kept: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// A file as it was when it was sent.
#[derive(Debug)]
pub struct Original {
    folder: OwnedFd,
    path: PathBuf,
    name: String,
    stat: FileStat,
    temporary: Option<String>,
    /// Says that the file is somebody's; open in whoever has the file.
    lock: Option<Flock<File>>,
}

/// Where the changed file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// In the original's place.
    Original,
    /// Beside it, under this name: the original had been changed here too.
    Beside(String),
}

impl Original {
    /// Looks at a file. A link is followed: what it leads to is the original.
    ///
    /// # Errors
    /// It is no file that can be read, or has a name that cannot be sent.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EISDIR.into());
        };
        let name = name.to_str().ok_or(Errno::EILSEQ)?.to_owned();
        let folder = OwnedFd::from(File::open(parent)?);
        let stat = entry::look(&folder, name.as_str())?;
        match entry::kind(&stat) {
            Kind::File => Ok(Self { folder, path, name, stat, temporary: None, lock: None }),
            _ => Err(io::Error::other("it is no file")),
        }
    }

    /// Its path, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that may come back.
    pub fn limit(&self) -> u64 {
        self.stat.st_size.unsigned_abs().saturating_mul(2).saturating_add(MORE)
    }

    /// A new file beside it, for what comes back. It is removed again unless it takes the original's place.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn temporary(&mut self) -> io::Result<File> {
        self.clean();
        let mode = Mode::from_bits_truncate(0o600);
        for attempt in 0..100 {
            let name = format!("{STAGING}{}-{attempt}", std::process::id());
            match place::create(self.folder.as_fd(), &name, mode) {
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
                Ok(file) => {
                    self.temporary = Some(name);
                    let file = File::from(file);
                    let lock = Flock::lock(file.try_clone()?, FlockArg::LockExclusive);
                    self.lock = Some(lock.map_err(|(_, error)| error)?);
                    // Another one may have taken it for left, in the moment without a lock.
                    if fstat(&file)?.st_nlink > 0 {
                        return Ok(file);
                    }
                }
            }
        }
        Err(Errno::EEXIST.into())
    }

    /// Removes files of this kind whose makers were killed.
    fn clean(&self) {
        let names = entry::names(&self.folder, MAX_LOOKED_AT).unwrap_or_default();
        for name in names.iter().filter(|name| name.to_bytes().starts_with(STAGING.as_bytes())) {
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
            let opened = entry::open_beneath(&self.folder, name.as_c_str(), flags, Mode::empty());
            if let Ok(file) = opened
                && let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            {
                // A folder of this name is a receiver's.
                let _ = unlinkat(&self.folder, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
                drop(lock);
            }
        }
    }

    /// Puts what has come into the original's place, with its mode; beside it when that is not what was
    /// sent any more.
    ///
    /// # Errors
    /// Neither can be done; the original is as it was, and what has come stays beside it.
    pub fn replace(mut self, changed: &File) -> Result<Replaced, ReplaceError> {
        let temporary = self.temporary.take().unwrap_or_default();
        self.put(changed, &temporary).map_err(|source| {
            let kept = self.path.with_file_name(&temporary);
            ReplaceError { kept, source }
        })
    }

    fn put(&self, changed: &File, temporary: &str) -> io::Result<Replaced> {
        fchmod(changed, Mode::from_bits_truncate(self.stat.st_mode & 0o777))?;
        fsync(changed)?;
        let now = entry::look(&self.folder, self.name.as_str());
        if now.is_ok_and(|now| Like::of(&now) == Like::of(&self.stat)) {
            renameat(&self.folder, temporary, &self.folder, self.name.as_str())?;
            return Ok(Replaced::Original);
        }
        for number in 2.. {
            let Some(name) = numbered(&self.name, number) else { break };
            match place::put(self.folder.as_fd(), temporary, self.folder.as_fd(), &name) {
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(Replaced::Beside(name)),
            }
        }
        Err(Errno::EEXIST.into())
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = unlinkat(&self.folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Reads a stream that has one file or none; false when it has none. What it is called does not matter.
///
/// # Errors
/// What came is something else, or cannot be written.
pub fn receive_single(
    decoder: &mut Decoder,
    input: &mut impl Read,
    file: &mut File,
) -> Result<bool, ReceiveError> {
    let mut came = false;
    loop {
        while let Some(event) = decoder.next_event()? {
            match event {
                Event::File { .. } if came => return Err(StreamError::Entries.into()),
                Event::File { .. } => came = true,
                Event::Data(bytes) => {
                    let failed =
                        |source| ReceiveError::Write { name: "what came back".into(), source };
                    file.write_all(bytes).map_err(failed)?;
                }
                Event::Begin { .. } | Event::FileEnd | Event::ItemEnd => {}
                Event::End => return Ok(came),
                Event::Aborted(why) => return Err(ReceiveError::Aborted(why.to_owned())),
                Event::Folder(_) | Event::Leave => return Err(StreamError::Record.into()),
            }
        }
        fill(decoder, input)?;
    }
}
