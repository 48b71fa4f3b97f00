//! Reads the entries of a tar archive one after the other: POSIX `ustar` and `pax`, GNU tar's
//! long names, and the format before both. Nothing is believed: sizes are bounded before memory
//! is taken for them, and where two readings of an entry are possible it is refused.

use std::io::{self, Read};

use super::header::{BLOCK, Header};
use super::path::MAX_PATH;
use super::pax::Pax;
use super::{ArchiveError, EntryFault, read_full, shown};

/// Entries of an archive, those with long names and attributes counted too. A distribution with
/// a desktop has some 400 000 files.
pub(super) const MAX_ENTRIES: u64 = 2_000_000;
/// Bytes of an unpacked archive: 64 GiB.
pub(super) const MAX_UNPACKED: u64 = 64 << 30;
/// Bytes of the extended header of one entry.
const MAX_PAX: u64 = 1 << 20;
/// Bytes read at once where they are only passed over.
const CHUNK: usize = 64 * 1024;

const LONG_NAME: u8 = b'L';
const LONG_LINK: u8 = b'K';
const PAX: u8 = b'x';
const PAX_GLOBAL: u8 = b'g';
const LABEL: u8 = b'V';

/// One entry. Its contents are read from the [`Reader`] before the next one.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its path, as the archive has it.
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) owner: u64,
    pub(super) group: u64,
    /// Extended attributes, all that are there.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Folder,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    /// What no tree keeps, and why.
    Refused(EntryFault),
}

/// A tar archive being read.
#[derive(Debug)]
pub(super) struct Reader<R> {
    source: R,
    /// Bytes read.
    offset: u64,
    /// Bytes of the current entry's contents not yet read.
    remaining: u64,
    /// Bytes that fill up its last block.
    padding: u64,
    entries: u64,
}

/// What entries before the one they belong to say of it.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, offset: 0, remaining: 0, padding: 0, entries: 0 }
    }

    /// The next entry; none at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut extension = Extension::default();
        loop {
            self.pass_contents()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(ArchiveError::TooManyEntries);
            }
            let size = header.size().ok_or_else(|| self.malformed("a malformed size"))?;
            match header.kind() {
                LONG_NAME => extension.path = Some(self.long_name(size)?),
                LONG_LINK => extension.link = Some(self.long_name(size)?),
                PAX => extension.pax = self.pax(size)?,
                PAX_GLOBAL => {
                    // For all that follows: nothing a file system has, only notes.
                    if !self.pax(size)?.is_empty() {
                        return Err(self.malformed("a global header that changes entries"));
                    }
                }
                LABEL => self.expect_contents(size)?,
                _ => return self.entry(&header, size, extension).map(Some),
            }
        }
    }

    /// Reads contents of the current entry; none at their end.
    pub(super) fn contents(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let length = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(0);
        }
        let count = loop {
            match self.source.read(&mut buffer[..length]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(ArchiveError::at(self.offset))?,
            }
        };
        if count == 0 {
            return Err(self.truncated("the contents of an entry"));
        }
        self.advance(count)?;
        self.remaining -= count as u64;
        Ok(count)
    }

    /// Reads what comes after the archive's end, so that the whole source was seen. It must be
    /// called when there is no further entry.
    pub(super) fn finish(mut self) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = read_full(&mut self.source, &mut buffer);
            let count = count.map_err(ArchiveError::at(self.offset))?;
            if count == 0 {
                return Ok(());
            }
            self.advance(count)?;
        }
    }

    /// The next header; none where a block of zeros ends the archive.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut block = [0; BLOCK];
        let count = read_full(&mut self.source, &mut block);
        let count = count.map_err(ArchiveError::at(self.offset))?;
        let header = Header(block);
        if count < BLOCK {
            self.offset += count as u64;
            // What is too short for one block cannot be told from any other file.
            return Err(match self.entries {
                0 if self.offset > 0 => ArchiveError::NotTar,
                _ => self.truncated("what should be the next entry"),
            });
        }
        if header.is_zero() {
            self.advance(BLOCK)?;
            return Ok(None);
        }
        if !header.checksum_fits() {
            return Err(match self.entries {
                0 => ArchiveError::NotTar,
                _ => self.malformed("a header with a wrong checksum"),
            });
        }
        self.advance(BLOCK)?;
        Ok(Some(header))
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        extension: Extension,
    ) -> Result<Entry, ArchiveError> {
        let Extension { path, link, pax } = extension;
        let path = pax.path.or(path).unwrap_or_else(|| header.path());
        let link = pax.link.or(link).unwrap_or_else(|| header.link());
        let size = pax.size.unwrap_or(size);
        let kind = match header.kind() {
            _ if pax.sparse => EntryKind::Refused(EntryFault::Sparse),
            // Before POSIX a folder was a file whose name ends so.
            b'0' | 0 | b'7' if path.ends_with(b"/") => EntryKind::Folder,
            b'0' | 0 | b'7' => EntryKind::File,
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' | b'4' => EntryKind::Refused(EntryFault::Device),
            b'5' => EntryKind::Folder,
            b'6' => EntryKind::Refused(EntryFault::NoFile("FIFO")),
            b'S' => EntryKind::Refused(EntryFault::Sparse),
            other => EntryKind::Refused(EntryFault::UnknownKind(other)),
        };
        let offset = self.offset;
        let malformed = |what| ArchiveError::Malformed { what, offset };
        let mode = header.mode().ok_or(malformed("malformed permissions"))?;
        let owner = pax.owner.or(header.owner()).ok_or(malformed("a malformed owner"))?;
        let group = pax.group.or(header.group()).ok_or(malformed("a malformed group"))?;
        // Programs differ on whether contents follow such a header: the archive would be
        // another one to each of them.
        if kind != EntryKind::File && size != 0 && !matches!(kind, EntryKind::Refused(_)) {
            let fault = EntryFault::UnexpectedContents;
            return Err(ArchiveError::Entry { entry: shown(&path), fault });
        }
        self.expect_contents(size)?;
        let mode = (mode & 0o7777) as u32;
        let attributes = pax.attributes.into_iter().collect();
        Ok(Entry { path, kind, mode, owner, group, attributes })
    }

    /// A name in an entry of its own, as GNU tar writes one that is too long for its field.
    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        // With the zero at its end.
        if size > MAX_PATH as u64 + 1 {
            return Err(self.malformed("a name that is too long"));
        }
        let mut name = self.take(size)?;
        let end = name.iter().position(|byte| *byte == 0);
        name.truncate(end.unwrap_or(name.len()));
        Ok(name)
    }

    fn pax(&mut self, size: u64) -> Result<Pax, ArchiveError> {
        if size > MAX_PAX {
            return Err(self.malformed("an extended header that is too long"));
        }
        let records = self.take(size)?;
        Pax::parse(&records).ok_or_else(|| self.malformed("a malformed extended header"))
    }

    /// All contents of a small entry.
    fn take(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        self.expect_contents(size)?;
        let mut contents = vec![0; size as usize];
        let mut filled = 0;
        while filled < contents.len() {
            filled += self.contents(&mut contents[filled..])?;
        }
        Ok(contents)
    }

    fn expect_contents(&mut self, size: u64) -> Result<(), ArchiveError> {
        if size > MAX_UNPACKED {
            return Err(ArchiveError::TooLarge);
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// Passes over what is left of the current entry.
    fn pass_contents(&mut self) -> Result<(), ArchiveError> {
        self.remaining += std::mem::take(&mut self.padding);
        if self.remaining == 0 {
            return Ok(());
        }
        let mut buffer = vec![0; CHUNK.min(self.remaining as usize)];
        while self.remaining > 0 {
            self.contents(&mut buffer)?;
        }
        Ok(())
    }

    fn advance(&mut self, count: usize) -> Result<(), ArchiveError> {
        self.offset += count as u64;
        if self.offset > MAX_UNPACKED {
            return Err(ArchiveError::TooLarge);
        }
        Ok(())
    }

    fn malformed(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Malformed { what, offset: self.offset }
    }

    fn truncated(&self, within: &'static str) -> ArchiveError {
        ArchiveError::Truncated { offset: self.offset, within }
    }
}
