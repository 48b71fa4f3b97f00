//! What can be wrong with an archive, and with one entry of it.

use std::io;

use super::read::{MAX_ENTRIES, MAX_UNPACKED};
use super::unpack::{Bomb, RATIO};
use crate::FileError;

/// Characters of a name that are shown.
const SHOWN: usize = 200;

/// An archive that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read, or its compressed form is broken.
    #[error("could not read the archive after byte {offset} of its unpacked form")]
    Read {
        /// Bytes read until then, unpacked.
        offset: u64,
        /// What is wrong.
        source: io::Error,
    },
    /// It ends too early.
    #[error("could not read all of the archive: it is cut off at byte {offset}, in {within}")]
    Truncated {
        /// Bytes read until then, unpacked.
        offset: u64,
        /// What should have gone on.
        within: &'static str,
    },
    /// It is no tar archive.
    #[error(
        "could not read the archive: it is no tar archive, plain or packed with gzip, zstd or xz"
    )]
    NotTar,
    /// Something in it means nothing.
    #[error("could not read the archive: {what} at byte {offset}")]
    Malformed {
        /// What it is.
        what: &'static str,
        /// Where, in bytes of the unpacked form.
        offset: u64,
    },
    /// One of its entries has no place in a root file system.
    #[error("could not take the entry `{entry}`: {fault}")]
    Entry {
        /// Its name, made harmless to print.
        entry: String,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// It has more entries than any root file system.
    #[error("could not take the archive: it has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// It is larger than any root file system.
    #[error("could not take the archive: it unpacks to more than {} GiB", MAX_UNPACKED >> 30)]
    TooLarge,
    /// It unpacks to so much more than it is that it can only be meant to fill the disk.
    #[error("could not take the archive: it unpacks to more than {RATIO} times its size")]
    Bomb,
    /// The normalized archive cannot be written.
    #[error("could not write the normalized archive")]
    Write {
        /// What the system said.
        source: io::Error,
    },
    /// The files' contents cannot be kept.
    #[error(transparent)]
    Spool(#[from] FileError),
}

/// Why an entry is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// It would climb out of the tree.
    #[error("its path has a `..` component")]
    Parent,
    /// It does not say where it is in relation to the tree.
    #[error("its path is absolute")]
    Absolute,
    /// No file system keeps such a name.
    #[error("its path, or a name in it, is too long")]
    TooLong,
    /// Such a name is made to mislead whoever sees it.
    #[error("its path has a control character")]
    ControlCharacter,
    /// It has no name.
    #[error("it has no name")]
    NoName,
    /// It would replace the root of the tree.
    #[error("it would replace the root folder, and is no folder")]
    Root,
    /// Something on its path is a symbolic link.
    #[error("`{0}` on its path is a symbolic link")]
    BelowSymlink(String),
    /// Something on its path is neither a folder nor a symbolic link.
    #[error("`{0}` on its path is no folder")]
    BelowFile(String),
    /// A hard link's target has a path that would not be taken for an entry.
    #[error("it is a hard link to `{target}`, which is not taken: {fault}")]
    LinkPath {
        /// The target, made harmless to print.
        target: String,
        /// What is wrong with it.
        fault: Box<EntryFault>,
    },
    /// A hard link to what did not come before it.
    #[error("it is a hard link to `{0}`, which did not come before it")]
    LinkMissing(String),
    /// A hard link to a folder.
    #[error("it is a hard link to the folder `{0}`")]
    LinkFolder(String),
    /// A symbolic link to nothing, or to more than a path can be.
    #[error("it is a symbolic link with an impossible target")]
    SymlinkTarget,
    /// A device.
    #[error("it is a device; the guest has a /dev of its own")]
    Device,
    /// A FIFO or socket: something that exists between running programs only.
    #[error("it is a {0}, which an image does not keep")]
    NoFile(&'static str),
    /// A file with holes.
    #[error("it is stored as a sparse file; make the archive without holes (not tar --sparse)")]
    Sparse,
    /// A kind of entry that is not known.
    #[error("it is of an unknown kind ({0:#04x})")]
    UnknownKind(u8),
    /// A kind of entry without contents has contents.
    #[error("it has contents, which its kind cannot have")]
    UnexpectedContents,
    /// Owner or group has no place in a user's range of subordinate ids.
    #[error("its owner or group is {0}; the largest is 65535")]
    Owner(u64),
    /// An extended attribute that is kept has a malformed name or value.
    #[error("its extended attribute `{0}` is malformed")]
    Attribute(String),
    /// A name that OCI keeps for itself.
    #[error("its path has a name that begins with `.wh.`, which means a removal in a layer")]
    Whiteout,
    /// With it the tree would be larger than any.
    #[error("the tree is too large with it")]
    TreeTooLarge,
}

impl ArchiveError {
    /// What an error of reading after `offset` unpacked bytes means.
    pub(crate) fn at(offset: u64) -> impl Fn(io::Error) -> Self {
        move |source| {
            let is_bomb = source.get_ref().is_some_and(|inner| inner.is::<Bomb>());
            match source.kind() {
                _ if is_bomb => Self::Bomb,
                io::ErrorKind::UnexpectedEof => Self::Truncated {
                    offset,
                    within: "its packed form (unpacked bytes are counted)",
                },
                _ => Self::Read { offset, source },
            }
        }
    }

    /// Whether there was no room for what it holds.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Spool(error) => error.is_disk_full(),
            Self::Write { source } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// A name as it can be shown: of bearable length, without characters that move the cursor, end
/// the line or turn the direction of writing.
pub(crate) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|character| if is_misleading(character) { '\u{fffd}' } else { character })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Control characters, and the marks that change the direction of writing.
fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_harmless_and_bounded() {
        assert_eq!(shown(b"a\x1b[2J\nb\xff"), "a\u{fffd}[2J\u{fffd}b\u{fffd}");
        assert_eq!(shown("x\u{202e}y".as_bytes()), "x\u{fffd}y");
        assert_eq!(shown(&[b'a'; 5000]).chars().count(), SHOWN + 1);
    }
}
