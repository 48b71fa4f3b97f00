//! Writes a tree as one tar archive that any tar unpacks to the same: sorted, parents first, all
//! times alike. The same tree gives the same bytes.
//!
//! Long names are written as GNU tar does, so that they are taken as they are, whatever
//! language the program that unpacks them believes to be in; attributes as `pax` records.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use sha2::Sha256;
use sha2::digest::Update;

use super::header::{BLOCK, Header};
use super::{ArchiveError, Metadata, Node, NodeKind, Spool, Tree, pax};
use crate::Digest;
use crate::debian::EPOCH;

const FILE: u8 = b'0';
const HARD_LINK: u8 = b'1';
const SYMLINK: u8 = b'2';
const FOLDER: u8 = b'5';
const LONG_NAME: u8 = b'L';
const LONG_LINK: u8 = b'K';
const PAX: u8 = b'x';

/// What entries that only extend the next one are called, as GNU tar calls them.
const EXTENSION: &[u8] = b"././@LongLink";
/// Bytes a name may have in a header.
const SHORT: usize = 100;
/// An archive is filled up to a multiple of this.
const RECORD: usize = 20 * BLOCK;
/// Bytes copied at once.
const CHUNK: usize = 256 * 1024;

/// Writes the tree; returns the digest of all that was written.
pub(crate) fn write(
    tree: &Tree,
    spool: &Spool,
    output: impl Write,
) -> Result<Digest, ArchiveError> {
    let mut writer = Writer { output, hasher: Sha256::default(), length: 0 };
    let mut names: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    for visit in tree.walk() {
        let Node { metadata, kind } = visit.node;
        match kind {
            NodeKind::Folder(_) => {
                let path = [visit.path.as_slice(), b"/"].concat();
                let path = if visit.path.is_empty() { b"./".to_vec() } else { path };
                writer.entry(FOLDER, &path, b"", metadata, 0)?;
            }
            NodeKind::Symlink(target) => {
                writer.entry(SYMLINK, &visit.path, target, metadata, 0)?;
            }
            NodeKind::File(contents) => match names.get(&visit.number) {
                Some(first) => writer.entry(HARD_LINK, &visit.path, first, metadata, 0)?,
                None => {
                    writer.entry(FILE, &visit.path, b"", metadata, contents.length)?;
                    writer.copy(spool.open(*contents))?;
                    names.insert(visit.number, visit.path);
                }
            },
        }
    }
    writer.finish()
}

struct Writer<W> {
    output: W,
    hasher: Sha256,
    length: usize,
}

impl<W: Write> Writer<W> {
    fn entry(
        &mut self,
        kind: u8,
        path: &[u8],
        link: &[u8],
        metadata: &Metadata,
        size: u64,
    ) -> Result<(), ArchiveError> {
        for (extension, name) in [(LONG_NAME, path), (LONG_LINK, link)] {
            if name.len() > SHORT {
                self.extension(extension, &[name, b"\0"].concat())?;
            }
        }
        if kind != HARD_LINK && !metadata.attributes.is_empty() {
            let records = metadata.attributes.iter();
            let records = records.flat_map(|(name, value)| pax::attribute(name, value));
            self.extension(PAX, &records.collect::<Vec<u8>>())?;
        }
        let owner = (metadata.owner.into(), metadata.group.into());
        let header = Header::new(kind, path, link).seal(metadata.mode, owner, size, EPOCH);
        self.bytes(&header.0)
    }

    /// An entry that says more about the next one.
    fn extension(&mut self, kind: u8, contents: &[u8]) -> Result<(), ArchiveError> {
        let size = contents.len() as u64;
        self.bytes(&Header::new(kind, EXTENSION, b"").seal(0o644, (0, 0), size, EPOCH).0)?;
        self.bytes(contents)?;
        self.fill(BLOCK)
    }

    fn copy(&mut self, mut contents: impl Read) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = contents.read(&mut buffer);
            match count.map_err(|source| ArchiveError::Write { source })? {
                0 => return self.fill(BLOCK),
                count => self.bytes(&buffer[..count])?,
            }
        }
    }

    fn finish(mut self) -> Result<Digest, ArchiveError> {
        self.bytes(&[0; 2 * BLOCK])?;
        self.fill(RECORD)?;
        Ok(Digest::of_hasher(self.hasher))
    }

    fn fill(&mut self, multiple: usize) -> Result<(), ArchiveError> {
        let missing = self.length.next_multiple_of(multiple) - self.length;
        self.bytes(&vec![0; missing])
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.hasher.update(bytes);
        self.length += bytes.len();
        self.output.write_all(bytes).map_err(|source| ArchiveError::Write { source })
    }
}
