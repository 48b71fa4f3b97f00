//! Archives for tests, hostile ones included: what a `tar` program refuses to write.

use super::header::{BLOCK, Header};
use super::pax;

/// An archive being made.
#[derive(Default)]
pub(crate) struct Sample(Vec<u8>);

impl Sample {
    /// A file.
    pub(crate) fn file(self, path: &str, contents: &str) -> Self {
        self.entry(b'0', path.as_bytes(), b"", contents.as_bytes())
    }

    /// A folder.
    pub(crate) fn folder(self, path: &str) -> Self {
        self.entry(b'5', path.as_bytes(), b"", b"")
    }

    /// A symbolic link.
    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path.as_bytes(), target.as_bytes(), b"")
    }

    /// A hard link.
    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path.as_bytes(), target.as_bytes(), b"")
    }

    /// An entry of any kind. A file can be run by all, so that one may be a program.
    pub(crate) fn entry(self, kind: u8, path: &[u8], link: &[u8], contents: &[u8]) -> Self {
        self.owned(kind, path, link, (0, 0), contents)
    }

    /// An entry with an owner.
    pub(crate) fn owned(
        mut self,
        kind: u8,
        path: &[u8],
        link: &[u8],
        owner: (u32, u32),
        contents: &[u8],
    ) -> Self {
        let size = contents.len() as u64;
        self.0.extend(Header::new(kind, path, link).seal(0o755, owner, size, 12345).0);
        self.0.extend(contents);
        self.fill()
    }

    /// Records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let records = records.iter();
        let records: Vec<u8> =
            records.flat_map(|(key, value)| pax::record(key.as_bytes(), value)).collect();
        self.entry(b'x', b"pax", b"", &records)
    }

    /// A header that promises so many bytes, and nothing after it.
    pub(crate) fn promise(mut self, path: &str, size: u64) -> Self {
        self.0.extend(Header::new(b'0', path.as_bytes(), b"").seal(0o644, (0, 0), size, 0).0);
        self
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// The archive, ended as it should be.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 2 * BLOCK]).0
    }

    /// The archive without an end.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }

    fn fill(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }
}
