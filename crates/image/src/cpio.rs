//! Writes the archive format of an initial ram disk: `newc`, as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` describes it.
//!
//! Inode numbers count up, owner and times are zero: the same entries give the same bytes.

const MAGIC: &str = "070701";
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const TRAILER: &str = "TRAILER!!!";
const ALIGNMENT: usize = 4;
/// Archives are padded to whole blocks, so that another can follow.
const BLOCK: usize = 512;

/// An archive being written.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

#[derive(Debug, Default)]
struct Header {
    mode: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
}

impl Archive {
    /// Adds a folder with these permission bits. Its parent must have been added before.
    pub(crate) fn directory(&mut self, path: &str, permissions: u32) {
        let header = Header { mode: DIRECTORY | permissions, links: 2, ..Header::default() };
        self.entry(path, &header, &[]);
    }

    /// Adds a file with these permission bits.
    ///
    /// # Panics
    /// When the file is 4 GiB or longer, which the format cannot express.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        let header = Header {
            mode: FILE | permissions,
            links: 1,
            size: u32::try_from(contents.len()).expect("a file of an initrd is below 4 GiB"),
            ..Header::default()
        };
        self.entry(path, &header, contents);
    }

    /// Adds a character device.
    pub(crate) fn character_device(&mut self, path: &str, permissions: u32, device: (u32, u32)) {
        let header = Header { mode: CHARACTER_DEVICE | permissions, links: 1, size: 0, device };
        self.entry(path, &header, &[]);
    }

    /// Ends the archive and returns its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.write(0, TRAILER, &Header { links: 1, ..Header::default() }, &[]);
        self.pad(BLOCK);
        self.bytes
    }

    fn entry(&mut self, path: &str, header: &Header, contents: &[u8]) {
        self.entries += 1;
        self.write(self.entries, path, header, contents);
    }

    fn write(&mut self, inode: u32, path: &str, header: &Header, contents: &[u8]) {
        let (owner, group, time, parent_device, checksum) = (0, 0, 0, (0, 0), 0);
        let fields = [
            inode,
            header.mode,
            owner,
            group,
            header.links,
            time,
            header.size,
            parent_device.0,
            parent_device.1,
            header.device.0,
            header.device.1,
            path.len() as u32 + 1,
            checksum,
        ];
        self.bytes.extend(MAGIC.bytes());
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad(ALIGNMENT);
        self.bytes.extend(contents);
        self.pad(ALIGNMENT);
    }

    fn pad(&mut self, alignment: usize) {
        let length = self.bytes.len().next_multiple_of(alignment);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_has_exactly_these_bytes() {
        let mut archive = Archive::default();
        archive.directory("dev", 0o755);
        archive.character_device("dev/console", 0o600, (5, 1));
        archive.file("init", 0o755, b"hello");
        // The magic, inode, mode and owner; group, links, time, size and parent device; its minor
        // number, the entry's device, name length and checksum; the name and the contents.
        let mut expected = concat!(
            "07070100000001000041ed00000000",
            "0000000000000002000000000000000000000000",
            "0000000000000000000000000000000400000000",
            "dev\0\0\0",
            "070701000000020000218000000000",
            "0000000000000001000000000000000000000000",
            "0000000000000005000000010000000c00000000",
            "dev/console\0\0\0",
            "07070100000003000081ed00000000",
            "0000000000000001000000000000000500000000",
            "0000000000000000000000000000000500000000",
            "init\0\0hello\0\0\0",
            "070701000000000000000000000000",
            "0000000000000001000000000000000000000000",
            "0000000000000000000000000000000b00000000",
            "TRAILER!!!\0\0\0\0",
        )
        .as_bytes()
        .to_vec();
        expected.resize(expected.len().next_multiple_of(BLOCK), 0);
        assert_eq!(
            String::from_utf8(archive.finish()).unwrap(),
            String::from_utf8(expected).unwrap()
        );
    }
}
