//! The stream: one header, then records. Numbers are little-endian.
//!
//! ```text
//! header   "casemate" 1  flags u8  entries u32  bytes u64       what will come at most
//! 'D'      length u16  name                                     into a folder
//! 'U'                                                           out of it
//! 'F'      flags u8  size u64  length u16  name                 a file, then pieces until it is whole
//! 'B'      length u32  bytes                                    a piece
//! 'S'      sum u64                                              an item (what was named) is whole
//! 'E'      sum u64                                              everything is
//! 'X'      length u16  text                                     given up; why
//! ```
//! A sum is of all bytes of the stream before it.

use crate::limits::MAX_REASON;
use crate::name::NameError;

/// How a stream begins: the last byte is the version.
pub(crate) const MAGIC: [u8; 9] = *b"casemate\x01";

/// Flag of the header: what arrives must be on the disk before it is confirmed.
pub(crate) const LASTING: u8 = 1;

/// Flag of a file: it may be executed.
pub(crate) const EXECUTABLE: u8 = 1;

/// Length of the header, in bytes.
pub(crate) const HEADER: usize = MAGIC.len() + 1 + 4 + 8;

pub(crate) const FOLDER: u8 = b'D';
pub(crate) const LEAVE: u8 = b'U';
pub(crate) const FILE: u8 = b'F';
pub(crate) const PIECE: u8 = b'B';
pub(crate) const ITEM_END: u8 = b'S';
pub(crate) const END: u8 = b'E';
pub(crate) const ABORT: u8 = b'X';

/// A stream that is none, or more than it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It does not begin as one.
    #[error("what came is no copy of files")]
    Magic,
    /// A flag nobody knows.
    #[error("what came has an unknown flag")]
    Flags,
    /// A record that cannot stand here.
    #[error("a record of the copy stands where it cannot")]
    Record,
    /// A name that is refused.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A length beyond its limit.
    #[error("a record of the copy is too long")]
    Length,
    /// Too many folders inside each other, or too long a path.
    #[error("folders lie too deep inside each other")]
    Depth,
    /// Too many files and folders.
    #[error("there are more files than were announced or may be")]
    Entries,
    /// Too many bytes.
    #[error("there are more bytes than were announced or may be")]
    Bytes,
    /// The checksum is another.
    #[error("the checksum is wrong: something was lost or changed on the way")]
    Sum,
    /// It ended before its end.
    #[error("it ended before everything had come")]
    Short,
}

/// A record that says why a copy is given up.
pub fn encode_abort(reason: &str) -> Vec<u8> {
    let reason = cut(reason);
    let mut record = vec![ABORT];
    record.extend_from_slice(&(reason.len() as u16).to_le_bytes());
    record.extend_from_slice(reason.as_bytes());
    record
}

/// At most [`MAX_REASON`] bytes of a text.
pub(crate) fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
