//! Receiving: what a stream says is done in one folder, with names that were checked, and comes into its
//! place only as a whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::syncfs;

use crate::decode::{Decoder, Event};
use crate::limits::MAX_ENTRIES;
use crate::place::{self, Place, Stage};
use crate::reply::{Reply, Totals};
use crate::stream::{StreamError, cut};

/// Bytes between two looks at how much room is left.
const LOOK: u64 = 4 * 1024 * 1024;

/// Room that is kept, where some is: one part of so many of the file system, and no more than that.
const KEPT_PART: u64 = 20;
/// Bytes that a file or folder takes beside its content.
const BLOCK: u64 = 4096;
const KEPT_MOST: u64 = 1024 * 1024 * 1024;

/// Names of what has arrived that are kept to be told.
const MAX_TOLD: usize = 1000;

/// Why not everything arrived.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// What came is no copy, or more than it may be.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A file or folder cannot be made.
    #[error("could not make `{name}`")]
    Make {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("could not write `{name}`")]
    Write {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Little is left of the disk, and that is not for guests.
    #[error("could not write `{name}`: the disk is full but for what is kept free")]
    Kept {
        /// The file that did not fit.
        name: String,
    },
    /// The sender gave up.
    #[error("the sender gave up: {0}")]
    Aborted(String),
    /// Nothing more comes, for a reason of this side.
    #[error("could not go on reading")]
    Read(#[source] io::Error),
    /// The folder on the way.
    #[error("could not make a folder for what is on its way")]
    Stage(#[source] io::Error),
}

impl ReceiveError {
    /// With its cause, as one line.
    pub fn sentence(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

/// What becomes of modes, and of the last room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// A file that could be executed where it comes from can be here. Never on the host.
    pub keep_executable: bool,
    /// A twentieth of the file system, at most 1 GiB, stays free.
    pub keep_room: bool,
}

/// What arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How much.
    pub totals: Totals,
    /// Under which names, the first thousand.
    pub names: Vec<String>,
}

/// Takes events of a stream.
#[derive(Debug)]
pub struct Receiver<'a> {
    place: &'a Place,
    stage: Stage<'a>,
    modes: Modes,
    folders: Vec<OwnedFd>,
    file: Option<(File, String)>,
    /// Name of the item on its way.
    item: String,
    /// What of it has come.
    pending: (u32, u64),
    since_look: u64,
    lasting: bool,
    outcome: Outcome,
}

impl<'a> Receiver<'a> {
    /// Removes what others left, and begins.
    ///
    /// # Errors
    /// No folder can be made in the place.
    pub fn new(place: &'a Place, modes: Modes) -> Result<Self, ReceiveError> {
        place.clean();
        let stage = place.stage().map_err(ReceiveError::Stage)?;
        Ok(Self {
            place,
            stage,
            modes,
            folders: Vec::new(),
            file: None,
            item: String::new(),
            pending: (0, 0),
            since_look: LOOK,
            lasting: false,
            outcome: Outcome::default(),
        })
    }

    /// Reads a whole stream and does what it says. `progress` is called with the bytes so far.
    ///
    /// # Errors
    /// See [`Receiver::take`]; also when `progress` fails: nobody waits for it any more.
    pub fn run(
        &mut self,
        decoder: &mut Decoder,
        input: &mut impl Read,
        progress: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<(), ReceiveError> {
        loop {
            while let Some(event) = decoder.next_event()? {
                if self.take(&event)? {
                    return Ok(());
                }
            }
            fill(decoder, input)?;
            progress(self.bytes()).map_err(ReceiveError::Read)?;
        }
    }

    /// Does what an event says. True behind the end.
    ///
    /// # Errors
    /// Nothing of the item on its way will be in place; those before are.
    pub fn take(&mut self, event: &Event<'_>) -> Result<bool, ReceiveError> {
        match event {
            Event::Begin { lasting, .. } => self.lasting = *lasting,
            Event::Folder(name) => {
                self.entry(name)?;
                let made = place::create_folder(self.here(), name);
                self.folders.push(made.map_err(make(name))?);
            }
            Event::Leave => drop(self.folders.pop()),
            Event::File { name, executable, .. } => {
                self.entry(name)?;
                let mode = if *executable && self.modes.keep_executable { 0o777 } else { 0o666 };
                let made = place::create(self.here(), name, Mode::from_bits_truncate(mode));
                self.file = Some((File::from(made.map_err(make(name))?), (*name).to_owned()));
            }
            Event::Data(bytes) => self.data(bytes)?,
            Event::FileEnd => drop(self.file.take()),
            Event::ItemEnd => self.item_end()?,
            Event::End => {
                self.last()?;
                return Ok(true);
            }
            Event::Aborted(why) => return Err(ReceiveError::Aborted((*why).to_owned())),
        }
        Ok(false)
    }

    /// How much is in its place.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Bytes that have come, in place or not.
    pub fn bytes(&self) -> u64 {
        self.outcome.totals.bytes + self.pending.1
    }

    /// What the sender is told.
    pub fn reply(&self, sum: u64, problem: Option<&ReceiveError>) -> Reply {
        let problem = problem.map(|error| {
            let count = self.outcome.totals.items;
            cut(&format!("{} ({count} arrived before)", error.sentence())).to_owned()
        });
        Reply { totals: self.outcome.totals, sum, problem }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.folders.last().map_or(self.stage.folder(), AsFd::as_fd)
    }

    fn entry(&mut self, name: &str) -> Result<(), ReceiveError> {
        if self.folders.is_empty() {
            name.clone_into(&mut self.item);
        }
        self.pending.0 = self.pending.0.saturating_add(1).min(MAX_ENTRIES);
        self.look(BLOCK, name)
    }

    /// So many bytes more: now and then it is looked whether there is room.
    fn look(&mut self, bytes: u64, name: &str) -> Result<(), ReceiveError> {
        self.since_look += bytes;
        if self.modes.keep_room && self.since_look >= LOOK {
            self.since_look = 0;
            if !has_room(self.place) {
                return Err(ReceiveError::Kept { name: name.to_owned() });
            }
        }
        Ok(())
    }

    /// Everything is in its place. Before the sender hears so and removes its own, it lasts.
    fn last(&self) -> Result<(), ReceiveError> {
        if !self.lasting {
            return Ok(());
        }
        let place = self.place.as_fd();
        syncfs(place).and_then(|()| nix::unistd::fsync(place)).map_err(|error| {
            ReceiveError::Write {
                name: self.place.path().display().to_string(),
                source: error.into(),
            }
        })
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ReceiveError> {
        let name = self.file.as_ref().map(|(_, name)| name.clone()).ok_or(StreamError::Record)?;
        self.look(bytes.len() as u64, &name)?;
        let Some((file, name)) = &mut self.file else {
            return Err(StreamError::Record.into());
        };
        let written = file.write_all(bytes);
        written.map_err(|source| ReceiveError::Write { name: name.clone(), source })?;
        self.pending.1 += bytes.len() as u64;
        Ok(())
    }

    fn item_end(&mut self) -> Result<(), ReceiveError> {
        let name = std::mem::take(&mut self.item);
        let failed = |source| ReceiveError::Write { name: name.clone(), source };
        let found = self.stage.publish(&name).map_err(failed)?;
        let (entries, bytes) = std::mem::take(&mut self.pending);
        let totals = &mut self.outcome.totals;
        totals.items += 1;
        totals.entries += entries;
        totals.bytes += bytes;
        if self.outcome.names.len() < MAX_TOLD {
            self.outcome.names.push(found);
        }
        Ok(())
    }

    /// Where names of the outcome lie.
    pub fn path(&self) -> PathBuf {
        self.place.path().into()
    }
}

/// Reads more of a stream.
pub(crate) fn fill(decoder: &mut Decoder, input: &mut impl Read) -> Result<(), ReceiveError> {
    loop {
        match input.read(decoder.space()) {
            Ok(0) => return Err(StreamError::Short.into()),
            Ok(count) => {
                decoder.filled(count);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ReceiveError::Read(error)),
        }
    }
}

fn make(name: &str) -> impl FnOnce(Errno) -> ReceiveError {
    let name = name.to_owned();
    |error| ReceiveError::Make { name, source: error.into() }
}

/// More than what is kept is left. What cannot be found out is no reason to refuse.
fn has_room(place: &Place) -> bool {
    let Ok(found) = fstatvfs(place) else { return true };
    let unit = found.fragment_size();
    let all = found.blocks().saturating_mul(unit);
    let kept = (all / KEPT_PART).min(KEPT_MOST);
    // Some file systems do not count files.
    let files = found.files() == 0 || found.files_available() > found.files() / KEPT_PART;
    files && found.blocks_available().saturating_mul(unit) > kept
}
