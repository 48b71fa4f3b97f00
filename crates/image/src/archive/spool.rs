//! The contents of files, kept in one file until the whole tree is known: what is written last
//! may replace what was read first.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::FileError;
use crate::error::Attempt;

/// Bytes copied at once.
const CHUNK: usize = 256 * 1024;

/// A file without a name that holds contents, gone with this value.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    folder: PathBuf,
    length: u64,
    buffer: Vec<u8>,
}

/// Where in a [`Spool`] the contents of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contents {
    offset: u64,
    /// How many bytes they are.
    pub(crate) length: u64,
}

impl Spool {
    /// Makes one on the file system of `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self, FileError> {
        let file = tempfile::tempfile_in(folder).attempt("create a file in", folder)?;
        Ok(Self { file, folder: folder.to_owned(), length: 0, buffer: vec![0; CHUNK] })
    }

    /// Appends what `read` gives, until it gives nothing.
    pub(crate) fn append<E: From<FileError>>(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Contents, E> {
        let offset = self.length;
        loop {
            let count = read(&mut self.buffer)?;
            if count == 0 {
                return Ok(Contents { offset, length: self.length - offset });
            }
            self.file
                .write_all_at(&self.buffer[..count], self.length)
                .attempt("write to a file in", &self.folder)?;
            self.length += count as u64;
        }
    }

    /// Reads contents back.
    pub(crate) fn open(&self, contents: Contents) -> impl Read {
        SpoolReader {
            file: &self.file,
            at: contents.offset,
            end: contents.offset + contents.length,
        }
    }
}

struct SpoolReader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..length], self.at)?;
        if count == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}
