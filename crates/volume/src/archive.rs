//! The framing of an exported volume: a plain tar archive (POSIX ustar), its last member the SHA-256
//! of all before it.
//!
//! The reader takes less than tar does: files only, no links, no folders, no extensions, and no
//! member larger than the caller says for its name. The digest finds damage, not forgery: who can
//! write the archive can write the digest.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// Bytes of a header; contents are padded to a multiple.
const BLOCK: usize = 512;
/// The last member.
const DIGEST: &str = "sha256";

/// Why an archive could not be written or used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be written.
    #[error("could not write the archive")]
    Write(#[source] io::Error),
    /// It cannot be read, or ends too early.
    #[error("could not read the archive")]
    Read(#[source] io::Error),
    /// It is not what an export writes.
    #[error("could not use the archive: {0}")]
    Refused(&'static str),
    /// One of its members is not.
    #[error("could not use {member:?} of the archive: {why}")]
    Member {
        /// Its name, as far as it can be printed.
        member: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Writes an archive.
pub(crate) struct Writer<W> {
    output: W,
    digest: Sha256,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output, digest: Sha256::new() }
    }

    /// Writes a member. The name is short ASCII.
    pub(crate) fn member(&mut self, name: &str, content: &[u8]) -> Result<(), ArchiveError> {
        self.put(&header(name, content.len()))?;
        self.put(content)?;
        self.put(&[0; BLOCK][..padding(content.len())])
    }

    /// Writes the digest and the end.
    pub(crate) fn finish(mut self) -> Result<(), ArchiveError> {
        let digest = hexadecimal(&self.digest.clone().finalize());
        self.member(DIGEST, digest.as_bytes())?;
        self.put(&[0; 2 * BLOCK])?;
        self.output.flush().map_err(ArchiveError::Write)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.digest.update(bytes);
        self.output.write_all(bytes).map_err(ArchiveError::Write)
    }
}

/// Reads an archive nobody vouches for.
pub(crate) struct Reader<R> {
    input: R,
    digest: Sha256,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, digest: Sha256::new() }
    }

    /// The next member; none after the last, which has been compared with the digest then. `most`
    /// says how many bytes a member of this name may have, none when there may be no such member.
    pub(crate) fn next(
        &mut self,
        most: impl FnOnce(&str) -> Option<u64>,
    ) -> Result<Option<(String, Vec<u8>)>, ArchiveError> {
        let before = self.digest.clone();
        let block = self.take(BLOCK)?;
        let (name, length) = parse(&block).map_err(ArchiveError::Refused)?;
        let refused = |why| ArchiveError::Member { member: name.clone(), why };
        let most = if name == DIGEST { Some(64) } else { most(&name) };
        let most = most.ok_or_else(|| refused("nothing of this name belongs there"))?;
        if length > most {
            return Err(refused("it is too long"));
        }
        let length = usize::try_from(length).map_err(|_| refused("it is too long"))?;
        let content = self.take(length)?;
        if self.take(padding(length))?.iter().any(|byte| *byte != 0) {
            return Err(refused("it is longer than it says"));
        }
        if name != DIGEST {
            return Ok(Some((name, content)));
        }
        if content != hexadecimal(&before.finalize()).as_bytes() {
            return Err(ArchiveError::Refused("it was damaged: its digest is another"));
        }
        if self.take(2 * BLOCK)?.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Refused("it goes on after its end"));
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).map_err(ArchiveError::Read)?;
        self.digest.update(&bytes);
        Ok(bytes)
    }
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(BLOCK) - length
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A header as POSIX pax(1) describes ustar: owner 0, mode 0600, no date.
fn header(name: &str, length: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{length:011o}\0"));
    put(136, "00000000000\0");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The sum of a header's bytes, its own field taken as spaces.
fn checksum(block: &[u8]) -> u32 {
    let own = 148..156;
    let byte = |(at, byte): (usize, &u8)| if own.contains(&at) { b' ' } else { *byte };
    block.iter().enumerate().map(|pair| u32::from(byte(pair))).sum()
}

/// Name and length in a header, which must be the very one we write for these.
fn parse(block: &[u8]) -> Result<(String, u64), &'static str> {
    if block.iter().all(|byte| *byte == 0) {
        return Err("it ends too early");
    }
    if &block[257..263] != b"ustar\0" {
        return Err("it is no tar archive of the kind an export writes");
    }
    let name: Vec<u8> = block[..100].iter().copied().take_while(|byte| *byte != 0).collect();
    let name = String::from_utf8(name).ok().filter(|name| name.is_ascii() && name.len() < 100);
    let name = name.ok_or("a name in it is none an export writes")?;
    let digits = std::str::from_utf8(&block[124..135]).ok();
    let length = digits.and_then(|digits| usize::from_str_radix(digits, 8).ok());
    match length {
        Some(length) if *block == header(&name, length) => Ok((name, length as u64)),
        _ => Err("there is something else than plain files in it, or it was damaged"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        for (name, content) in members {
            writer.member(name, content).expect("written");
        }
        writer.finish().expect("finished");
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        let mut reader = Reader::new(bytes);
        let mut members = Vec::new();
        while let Some(member) = reader.next(|name| (name != "bad").then_some(1000))? {
            members.push(member);
        }
        Ok(members)
    }

    #[test]
    fn what_is_written_is_read() {
        let content = [7; 600];
        let bytes = written(&[("empty", b""), ("data.raw/00000001", &content)]);
        assert_eq!(bytes.len() % BLOCK, 0);
        let members = read(&bytes).expect("read");
        assert_eq!(members[0], ("empty".to_owned(), vec![]));
        assert_eq!(members[1], ("data.raw/00000001".to_owned(), content.to_vec()));
    }

    #[test]
    fn an_archive_cut_off_or_changed_anywhere_is_refused() {
        let bytes = written(&[("a", b"content"), ("b", &[1; 513])]);
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            assert!(read(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn members_that_do_not_belong_are_refused() {
        assert!(matches!(read(&written(&[("bad", b"")])), Err(ArchiveError::Member { .. })));
        assert!(matches!(read(&written(&[("a", &[0; 1001])])), Err(ArchiveError::Member { .. })));
        for kind in b"1235Lxg" {
            let mut block = header("a", 0);
            block[156] = *kind;
            let sum = checksum(&block);
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            assert!(matches!(read(&block), Err(ArchiveError::Refused(_))), "{kind}");
        }
    }
}
