//! Untrusted archives become one clean tree.
//!
//! ```text
//! bytes ─▶ unpack ─▶ read ─▶ merge ─▶ Tree ─▶ write ─▶ one normalized tar archive
//!          (gzip…)   (tar)     │               ▲
//!                              └──▶ Spool ─────┘
//!                             (files' contents)
//! ```
//! What others wrote is decided about here, in safe Rust, before any other program sees it: the
//! tree can hold nothing that is outside of it, lies below a file or a symbolic link, or is a
//! device. A later program gets only what [`write`] wrote: sorted, with parents before what is
//! in them, with constant times.
//!
//! Not here: where archives come from (`rootfs`, `oci`) and what an image makes of the tree.

mod error;
mod header;
mod merge;
mod path;
mod pax;
mod read;
mod spool;
mod tree;
mod unpack;
mod write;

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

pub(crate) use error::shown;
pub use error::{ArchiveError, EntryFault};
pub(crate) use merge::{Layering, merge};
pub(crate) use path::EntryPath;
pub(crate) use spool::{Contents, Spool};
pub(crate) use tree::{Metadata, Node, NodeKind, Tree};
pub(crate) use unpack::{Compression, Unpacked};
pub(crate) use write::write;

use crate::Digest;

/// Reads archives, each on top of those before it, and writes what they come to as one
/// normalized tar archive. Contents wait in a file without a name in the folder `scratch`.
///
/// The archives may be plain or packed with gzip, zstd or xz; `layers` says whether they are
/// layers of an OCI image, in which some names remove what is below them.
///
/// # Errors
/// When an archive cannot be read, or has an entry that is not taken. What was written until
/// then is of no use.
pub fn normalize<R: Read>(
    archives: impl IntoIterator<Item = R>,
    layers: bool,
    scratch: &Path,
    output: impl Write,
) -> Result<Digest, ArchiveError> {
    let layering = if layers { Layering::Oci } else { Layering::Plain };
    let mut tree = Tree::new();
    let mut spool = Spool::new(scratch)?;
    for archive in archives {
        let source = Unpacked::detect(archive).map_err(ArchiveError::at(0))?;
        merge(source, layering, &mut tree, &mut spool)?;
    }
    let mut output = BufWriter::new(output);
    let digest = write(&tree, &spool, &mut output)?;
    output.flush().map_err(|source| ArchiveError::Write { source })?;
    Ok(digest)
}

/// Reads until the buffer is full or the source ends; returns how much was read.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
