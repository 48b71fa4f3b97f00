//! Decoding a stream: no I/O, nothing believed, nothing allocated after the beginning.

use crate::limits::{MAX_DEPTH, MAX_ENTRIES, MAX_NAME, MAX_PATH, MAX_PIECE, MAX_REASON};
use crate::name;
use crate::receive::{ReceiveError, fill};
use crate::stream::{
    ABORT, END, EXECUTABLE, FILE, FOLDER, HEADER, ITEM_END, LASTING, LEAVE, MAGIC, PIECE,
    StreamError,
};
use crate::sum::Sum;

/// Bytes that are held: a piece with its head.
const CAPACITY: usize = MAX_PIECE + 64;

/// What a receiver takes at most, whatever is announced.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files and folders.
    pub entries: u32,
    /// Bytes in files.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: MAX_ENTRIES, bytes: u64::MAX }
    }
}

/// What stands in a stream, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// It begins.
    Begin {
        /// Files and folders at most.
        entries: u32,
        /// Bytes in files at most.
        bytes: u64,
        /// What arrives must be on the disk before it is confirmed.
        lasting: bool,
    },
    /// What follows lies in this folder.
    Folder(&'a str),
    /// The folder ends.
    Leave,
    /// A file; its bytes follow.
    File {
        /// Its name.
        name: &'a str,
        /// Its length, in bytes.
        size: u64,
        /// It may be executed.
        executable: bool,
    },
    /// Bytes of it.
    Data(&'a [u8]),
    /// It has come as a whole.
    FileEnd,
    /// A file or folder that was named for itself has come as a whole.
    ItemEnd,
    /// Everything has come.
    End,
    /// The sender gave up; why, in its words.
    Aborted(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    /// Records of files and folders, or the end.
    Entries,
    /// So much of a file is still to come.
    File {
        left: u64,
    },
    /// So much of this piece, and then of its file.
    Piece {
        piece: usize,
        left: u64,
    },
    /// A file has just come as a whole.
    FileEnd,
    /// The end of an item must come.
    Item,
    Over,
}

/// Takes bytes of a stream and says what stands in them.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    state: State,
    sum: Sum,
    entries: u32,
    bytes: u64,
    /// Lengths of the names of open folders, and of all together.
    open: Vec<u8>,
    path: usize,
}

impl Decoder {
    /// At the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: vec![0; CAPACITY].into_boxed_slice(),
            start: 0,
            end: 0,
            state: State::Header,
            sum: Sum::default(),
            entries: 0,
            bytes: 0,
            open: Vec::with_capacity(MAX_DEPTH),
            path: 0,
        }
    }

    /// Where to put what comes; never empty when [`Decoder::next_event`] has said `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            // A few bytes of a record that is not whole.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were put there.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Puts there what comes next from `input`.
    ///
    /// # Errors
    /// Nothing comes any more.
    pub fn read_from(&mut self, input: &mut impl std::io::Read) -> Result<(), ReceiveError> {
        fill(self, input)
    }

    /// The checksum of everything that was taken.
    pub fn sum(&self) -> u64 {
        self.sum.value()
    }

    /// Everything has come, or the sender has given up.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The next thing; none when more bytes are needed, and behind the end.
    ///
    /// # Errors
    /// This is no stream, or more than it may be. There is no going on from it.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, StreamError> {
        match self.state {
            State::Over => Ok(None),
            State::Header => self.header(),
            State::FileEnd => {
                self.state = if self.open.is_empty() { State::Item } else { State::Entries };
                Ok(Some(Event::FileEnd))
            }
            State::Piece { piece, left } => Ok(self.piece(piece, left)),
            State::Entries | State::File { .. } | State::Item => self.record(),
        }
    }

    fn held(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes so many bytes, which are there; where they are.
    fn take(&mut self, count: usize) -> std::ops::Range<usize> {
        let range = self.start..self.start + count;
        self.sum.update(&self.buffer[range.clone()]);
        self.start = range.end;
        range
    }

    fn header(&mut self) -> Result<Option<Event<'_>>, StreamError> {
        let held = self.held();
        let known = held.len().min(MAGIC.len());
        if held[..known] != MAGIC[..known] {
            return Err(StreamError::Magic);
        }
        if held.len() < HEADER {
            return Ok(None);
        }
        let mut numbers = Numbers(&held[MAGIC.len()..HEADER]);
        let (flags, entries, bytes) = (numbers.u8(), numbers.u32(), numbers.u64());
        if flags & !LASTING != 0 {
            return Err(StreamError::Flags);
        }
        if entries > self.limits.entries || entries > MAX_ENTRIES {
            return Err(StreamError::Entries);
        }
        if bytes > self.limits.bytes {
            return Err(StreamError::Bytes);
        }
        (self.entries, self.bytes) = (entries, bytes);
        self.state = State::Entries;
        self.take(HEADER);
        Ok(Some(Event::Begin { entries, bytes, lasting: flags & LASTING != 0 }))
    }

    fn piece(&mut self, piece: usize, left: u64) -> Option<Event<'_>> {
        let count = self.held().len().min(piece);
        if count == 0 {
            return None;
        }
        let left = left - count as u64;
        self.state = match (piece - count, left) {
            (0, 0) => State::FileEnd,
            (0, left) => State::File { left },
            (piece, left) => State::Piece { piece, left },
        };
        let range = self.take(count);
        Some(Event::Data(&self.buffer[range]))
    }

    fn record(&mut self) -> Result<Option<Event<'_>>, StreamError> {
        let Some(&kind) = self.held().first() else { return Ok(None) };
        let inside = !self.open.is_empty();
        match (kind, self.state) {
            (FOLDER, State::Entries) => self.folder(),
            (FILE, State::Entries) => self.file(),
            (LEAVE, State::Entries) if inside => {
                self.take(1);
                self.path -= usize::from(self.open.pop().unwrap_or(0));
                if self.open.is_empty() {
                    self.state = State::Item;
                }
                Ok(Some(Event::Leave))
            }
            (PIECE, State::File { left }) => {
                let Some(head) = self.held().get(1..5) else { return Ok(None) };
                let piece = Numbers(head).u32() as usize;
                if piece == 0 || piece > MAX_PIECE || piece as u64 > left {
                    return Err(StreamError::Length);
                }
                self.take(5);
                self.state = State::Piece { piece, left };
                Ok(self.piece(piece, left))
            }
            (ITEM_END, State::Item) => Ok(self.checked()?.then(|| {
                self.state = State::Entries;
                Event::ItemEnd
            })),
            (END, State::Entries) if !inside => Ok(self.checked()?.then(|| {
                self.state = State::Over;
                Event::End
            })),
            (ABORT, _) => {
                let Some(range) = self.text(1, MAX_REASON)? else { return Ok(None) };
                self.state = State::Over;
                // Whoever shows it makes it harmless; what is no text is no reason.
                Ok(Some(Event::Aborted(std::str::from_utf8(&self.buffer[range]).unwrap_or(""))))
            }
            _ => Err(StreamError::Record),
        }
    }

    /// Takes a record that ends with a text, whose length is at `at`; where the text is.
    fn text(
        &mut self,
        at: usize,
        longest: usize,
    ) -> Result<Option<std::ops::Range<usize>>, StreamError> {
        let Some(length) = self.held().get(at..at + 2) else { return Ok(None) };
        let length = usize::from(Numbers(length).u16());
        if length > longest {
            return Err(StreamError::Length);
        }
        if self.held().len() < at + 2 + length {
            return Ok(None);
        }
        let range = self.take(at + 2 + length);
        Ok(Some(range.end - length..range.end))
    }

    /// One more file or folder with a name at `at`; where the name is.
    fn named(&mut self, at: usize) -> Result<Option<std::ops::Range<usize>>, StreamError> {
        let Some(range) = self.text(at, MAX_NAME)? else { return Ok(None) };
        self.entries = self.entries.checked_sub(1).ok_or(StreamError::Entries)?;
        if self.path + range.len() > MAX_PATH {
            return Err(StreamError::Depth);
        }
        Ok(Some(range))
    }

    fn folder(&mut self) -> Result<Option<Event<'_>>, StreamError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(StreamError::Depth);
        }
        let Some(range) = self.named(1)? else { return Ok(None) };
        let length = u8::try_from(range.len()).map_err(|_| StreamError::Length)?;
        let name = name::check(&self.buffer[range])?;
        self.open.push(length);
        self.path += usize::from(length);
        Ok(Some(Event::Folder(name)))
    }

    fn file(&mut self) -> Result<Option<Event<'_>>, StreamError> {
        let Some(head) = self.held().get(1..10) else { return Ok(None) };
        let mut numbers = Numbers(head);
        let (flags, size) = (numbers.u8(), numbers.u64());
        if flags & !EXECUTABLE != 0 {
            return Err(StreamError::Flags);
        }
        let Some(range) = self.named(10)? else { return Ok(None) };
        let name = name::check(&self.buffer[range])?;
        self.bytes = self.bytes.checked_sub(size).ok_or(StreamError::Bytes)?;
        self.state = match size {
            0 => State::FileEnd,
            left => State::File { left },
        };
        Ok(Some(Event::File { name, size, executable: flags & EXECUTABLE != 0 }))
    }

    /// Takes a sum, if it is there; it must be ours.
    fn checked(&mut self) -> Result<bool, StreamError> {
        let Some(stated) = self.held().get(1..9) else { return Ok(false) };
        let stated = Numbers(stated).u64();
        self.take(1);
        if stated != self.sum.value() {
            return Err(StreamError::Sum);
        }
        self.take(8);
        Ok(true)
    }
}

/// Numbers one behind the other; 0 where nothing is left.
pub(crate) struct Numbers<'a>(pub(crate) &'a [u8]);

impl Numbers<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => [0; N],
        }
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.next::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.next())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.next())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.next())
    }
}
