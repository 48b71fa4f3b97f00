//! Sending files: they are read as they go, in pieces, and what was sent can be removed afterwards.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::entry::{self, Kind};
use crate::limits::MAX_PIECE;
use crate::reply::{Reply, Totals};
use crate::stream::{
    END, EXECUTABLE, FILE, FOLDER, HEADER, ITEM_END, LASTING, LEAVE, MAGIC, PIECE, encode_abort,
};
use crate::sum::Sum;
use crate::walk::{self, Found, Item, Survey, Visitor, WalkError};

/// Bytes of a piece before its contents.
const HEAD: usize = 5;

/// Less room is not worth a piece.
const LEAST: usize = 4096;

/// Why a copy did not leave.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Something cannot be sent.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// It is not as it was at the beginning.
    #[error("{} changed while it was being sent", .0.display())]
    Changed(PathBuf),
    /// Nobody takes it any more.
    #[error("the receiver took no more")]
    Write(#[source] io::Error),
}

/// What is to be sent.
#[derive(Debug)]
pub struct Sender {
    items: Vec<Item>,
    survey: Survey,
    moving: bool,
}

impl Sender {
    /// Looks at everything; `moving` says that it shall be removed afterwards.
    ///
    /// # Errors
    /// Something cannot go at all.
    pub fn new(paths: &[PathBuf], moving: bool) -> Result<Self, WalkError> {
        let items = walk::items(paths, moving)?;
        let survey = walk::survey_items(&items, moving)?;
        Ok(Self { items, survey, moving })
    }

    /// Sends that nothing comes, and why.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn refuse(out: &mut impl Write, reason: &str) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0; HEADER - MAGIC.len()]);
        bytes.extend_from_slice(&encode_abort(reason));
        out.write_all(&bytes)
    }

    /// How much there is.
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Sends everything. `progress` is called with the bytes so far.
    ///
    /// # Errors
    /// Whoever takes it has been told why, as far as it listens.
    pub fn send(
        self,
        out: &mut impl Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Sent, SendError> {
        let Self { items, survey, moving } = self;
        let mut way = Way {
            out: &mut *out,
            held: Vec::with_capacity(HEAD + MAX_PIECE),
            summed: 0,
            sum: Sum::default(),
            left: (survey.entries, survey.bytes),
            totals: Totals::default(),
            traces: Vec::new(),
            keep_traces: moving,
            path: PathBuf::new(),
            progress,
        };
        way.held.extend_from_slice(&MAGIC);
        way.held.push(if moving { LASTING } else { 0 });
        way.held.extend_from_slice(&survey.entries.to_le_bytes());
        way.held.extend_from_slice(&survey.bytes.to_le_bytes());
        let walked = walk::walk(&items, &mut way).and_then(|()| {
            way.end(END)?;
            way.flush()
        });
        let (totals, sum) = (way.totals, way.sum.value());
        let traces = std::mem::take(&mut way.traces);
        match walked {
            Ok(()) => Ok(Sent { totals, sum, items, traces }),
            Err(error) => {
                if !matches!(error, SendError::Write(_)) {
                    let flushed = way.flush();
                    // It may not listen any more.
                    let _ = flushed.map(|()| out.write_all(&encode_abort(&error.to_string())));
                }
                Err(error)
            }
        }
    }
}

/// What was sent.
#[derive(Debug)]
pub struct Sent {
    /// How much.
    pub totals: Totals,
    sum: u64,
    items: Vec<Item>,
    traces: Vec<Trace>,
}

/// A file or folder as it was when it was sent.
#[derive(Debug)]
struct Trace {
    item: usize,
    /// Below the item's folder.
    path: PathBuf,
    shown: PathBuf,
    folder: bool,
    like: Like,
}

/// By what a file is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Like {
    inode: (u64, u64),
    size: i64,
    changed: (i64, i64),
}

impl Like {
    pub(crate) fn of(stat: &FileStat) -> Self {
        Self {
            inode: (stat.st_dev, stat.st_ino),
            size: stat.st_size,
            changed: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }
}

impl Sent {
    /// The receiver has it all, unchanged.
    pub fn is_confirmed_by(&self, reply: &Reply) -> bool {
        reply.problem.is_none() && reply.totals == self.totals && reply.sum == self.sum
    }

    /// Removes what was sent, and nothing else: a file that is another or was changed meanwhile stays,
    /// and so does a folder in which something is left. What stays is returned, with why.
    pub fn remove(self) -> Vec<(PathBuf, io::Error)> {
        let mut kept = Vec::new();
        // Folders behind what lies in them.
        for trace in self.traces.iter().rev() {
            if let Some(item) = self.items.get(trace.item)
                && let Err(error) = remove(&item.folder, trace)
            {
                kept.push((trace.shown.clone(), error));
            }
        }
        kept
    }
}

fn remove(folder: &OwnedFd, trace: &Trace) -> io::Result<()> {
    let parent = match trace.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => entry::open_folder(folder, parent)?,
        None => folder.try_clone()?,
    };
    let name = trace.path.file_name().ok_or(Errno::EINVAL)?;
    let now = Like::of(&entry::look(&parent, name)?);
    if trace.folder {
        return Ok(unlinkat(&parent, name, UnlinkatFlags::RemoveDir)?);
    }
    if now != trace.like {
        return Err(io::Error::other("it was changed after it was sent"));
    }
    Ok(unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?)
}

/// The stream as it is written.
struct Way<'a, W> {
    out: &'a mut W,
    /// Written, and not gone yet.
    held: Vec<u8>,
    /// How much of that is in the sum.
    summed: usize,
    sum: Sum,
    /// Entries and bytes that may still go.
    left: (u32, u64),
    totals: Totals,
    traces: Vec<Trace>,
    keep_traces: bool,
    path: PathBuf,
    progress: &'a mut dyn FnMut(u64),
}

impl<W: Write> Way<'_, W> {
    fn flush(&mut self) -> Result<(), SendError> {
        self.add_up();
        self.out.write_all(&self.held).map_err(SendError::Write)?;
        self.held.clear();
        self.summed = 0;
        (self.progress)(self.totals.bytes);
        Ok(())
    }

    fn add_up(&mut self) {
        self.sum.update(&self.held[self.summed..]);
        self.summed = self.held.len();
    }

    /// Room for so many bytes.
    fn make_room(&mut self, count: usize) -> Result<(), SendError> {
        match self.held.capacity() - self.held.len() < count {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// A record that ends with the sum of everything before.
    fn end(&mut self, kind: u8) -> Result<(), SendError> {
        self.make_room(9)?;
        self.held.push(kind);
        self.add_up();
        let sum = self.sum.value();
        self.held.extend_from_slice(&sum.to_le_bytes());
        Ok(())
    }

    fn named(&mut self, found: &Found<'_>, kind: u8, head: &[u8]) -> Result<(), SendError> {
        let changed = || SendError::Changed(found.path.into());
        self.left.0 = self.left.0.checked_sub(1).ok_or_else(changed)?;
        self.make_room(1 + head.len() + 2 + found.name.len())?;
        self.held.push(kind);
        self.held.extend_from_slice(head);
        self.held.extend_from_slice(&(found.name.len() as u16).to_le_bytes());
        self.held.extend_from_slice(found.name.as_bytes());
        self.totals.entries += 1;
        Ok(())
    }

    fn trace(&mut self, found: &Found<'_>, stat: &FileStat) {
        if self.keep_traces {
            use std::os::unix::ffi::OsStrExt;
            let real = std::ffi::OsStr::from_bytes(found.real.to_bytes());
            self.traces.push(Trace {
                item: self.totals.items as usize,
                path: self.path.join(real),
                shown: found.path.into(),
                folder: entry::kind(stat) == Kind::Folder,
                like: Like::of(stat),
            });
        }
    }

    /// Sends so many bytes of a file; false when it has fewer.
    fn contents(&mut self, file: &mut File, mut left: u64) -> io::Result<Result<bool, SendError>> {
        while left > 0 {
            if let Err(error) = self.make_room(HEAD + LEAST) {
                return Ok(Err(error));
            }
            let start = self.held.len();
            let room = self.held.capacity() - start - HEAD;
            let want = left.min(room as u64) as usize;
            self.held.resize(start + HEAD + want, 0);
            let mut filled = 0;
            while filled < want {
                match file.read(&mut self.held[start + HEAD + filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.held.truncate(start);
                        return Err(error);
                    }
                }
            }
            if filled < want {
                self.held.truncate(start);
                return Ok(Ok(false));
            }
            self.held[start] = PIECE;
            self.held[start + 1..start + HEAD].copy_from_slice(&(want as u32).to_le_bytes());
            left -= want as u64;
            self.totals.bytes += want as u64;
        }
        Ok(Ok(true))
    }
}

impl<W: Write> Visitor for Way<'_, W> {
    type Error = SendError;

    fn file(&mut self, found: &Found<'_>) -> Result<(), SendError> {
        let changed = || SendError::Changed(found.path.into());
        let failed = |error: Errno| SendError::Walk(WalkError::io(found.path)(error));
        // What has become a pipe meanwhile must not hold us up.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let opened = entry::open_beneath(found.folder, found.real, flags, Mode::empty());
        let mut file = File::from(opened.map_err(failed)?);
        let stat = fstat(&file).map_err(failed)?;
        if entry::kind(&stat) != Kind::File {
            return Err(changed());
        }
        let size = stat.st_size.unsigned_abs();
        self.left.1 = self.left.1.checked_sub(size).ok_or_else(changed)?;
        let executable = if stat.st_mode & 0o100 != 0 { EXECUTABLE } else { 0 };
        let mut head = [executable; 9];
        head[1..].copy_from_slice(&size.to_le_bytes());
        self.named(found, FILE, &head)?;
        match self.contents(&mut file, size) {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Err(changed()),
            Ok(Err(error)) => return Err(error),
            Err(error) => return Err(WalkError::io(found.path)(error).into()),
        }
        // Part of it may be of before a change, part of after.
        let after = fstat(&file).map_err(failed)?;
        if Like::of(&after) != Like::of(&stat) {
            return Err(changed());
        }
        self.trace(found, &stat);
        Ok(())
    }

    fn folder(&mut self, found: &Found<'_>) -> Result<(), SendError> {
        self.named(found, FOLDER, &[])?;
        self.trace(found, found.stat);
        use std::os::unix::ffi::OsStrExt;
        self.path.push(std::ffi::OsStr::from_bytes(found.real.to_bytes()));
        Ok(())
    }

    fn leave(&mut self) -> Result<(), SendError> {
        self.path.pop();
        self.make_room(1)?;
        self.held.push(LEAVE);
        Ok(())
    }

    fn left_out(&mut self, path: &Path, why: &'static str) -> Result<(), SendError> {
        match self.keep_traces {
            true => Err(WalkError::Kind { path: path.into(), why }.into()),
            false => Ok(()),
        }
    }

    fn item(&mut self, _: &Item) -> Result<(), SendError> {
        Ok(())
    }

    fn item_end(&mut self) -> Result<(), SendError> {
        self.totals.items += 1;
        self.end(ITEM_END)
    }
}
