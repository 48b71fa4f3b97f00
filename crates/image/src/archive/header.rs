//! The header block of a tar entry, as POSIX `ustar` and GNU tar have it.
//!
//! Offsets are those of `pax`, "ustar Interchange Format", in POSIX.1-2017, and of GNU tar's
//! `tar.h`.

use std::ops::Range;

/// Headers and contents come in whole blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const OWNER: Range<usize> = 108..116;
const GROUP: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const TIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const KIND: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const PREFIX: Range<usize> = 345..500;

/// The magic of POSIX; its version may be anything.
const POSIX: &[u8] = b"ustar\0";
/// The magic of GNU tar, which has other things where POSIX has the prefix.
const GNU: &[u8; 8] = b"ustar  \0";

/// One header block.
#[derive(Debug, Clone)]
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl Header {
    /// A header as GNU tar writes it. A name longer than its field is cut: a long name comes in
    /// an entry of its own before.
    pub(super) fn new(kind: u8, name: &[u8], link: &[u8]) -> Self {
        let mut header = Self([0; BLOCK]);
        header.put_text(NAME, name);
        header.put_text(LINK, link);
        header.0[KIND] = kind;
        header.0[MAGIC].copy_from_slice(GNU);
        header
    }

    /// Fills in the numbers, and the checksum over all of it.
    pub(super) fn seal(mut self, mode: u32, owner: (u32, u32), size: u64, time: u64) -> Self {
        self.put_number(MODE, mode.into());
        self.put_number(OWNER, owner.0.into());
        self.put_number(GROUP, owner.1.into());
        self.put_number(SIZE, size);
        self.put_number(TIME, time);
        let text = format!("{:06o}\0 ", self.sums().0);
        self.0[CHECKSUM].copy_from_slice(text.as_bytes());
        self
    }

    /// Whether the whole block is zero, as at the end of an archive.
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether the checksum fits; some old programs added signed bytes.
    pub(super) fn checksum_fits(&self) -> bool {
        let (unsigned, signed) = self.sums();
        octal(&self.0[CHECKSUM])
            .is_some_and(|sum| sum == u64::from(unsigned) || i64::try_from(sum) == Ok(signed))
    }

    /// The letter or digit that says what kind of entry it is.
    pub(super) fn kind(&self) -> u8 {
        self.0[KIND]
    }

    /// The path, put together from both of its fields.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[NAME]);
        let prefix = text(&self.0[PREFIX]);
        if !self.0[MAGIC].starts_with(POSIX) || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// What a link points to.
    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[LINK]).to_vec()
    }

    /// Permission bits.
    pub(super) fn mode(&self) -> Option<u64> {
        number(&self.0[MODE])
    }

    /// Number of the owner.
    pub(super) fn owner(&self) -> Option<u64> {
        number(&self.0[OWNER])
    }

    /// Number of the group.
    pub(super) fn group(&self) -> Option<u64> {
        number(&self.0[GROUP])
    }

    /// Length of the contents in bytes.
    pub(super) fn size(&self) -> Option<u64> {
        number(&self.0[SIZE])
    }

    /// The sum of all bytes, those of the checksum taken as blanks.
    fn sums(&self) -> (u32, i64) {
        let bytes = self.0.iter().enumerate();
        let bytes = bytes.map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte });
        bytes.fold((0, 0), |(unsigned, signed), byte| {
            (unsigned + u32::from(byte), signed + i64::from(byte.cast_signed()))
        })
    }

    fn put_text(&mut self, field: Range<usize>, text: &[u8]) {
        let length = text.len().min(field.len());
        self.0[field][..length].copy_from_slice(&text[..length]);
    }

    /// Octal digits and a zero; what does not fit is written in base 256.
    fn put_number(&mut self, field: Range<usize>, number: u64) {
        let digits = field.len() - 1;
        let text = format!("{number:0digits$o}");
        if text.len() == digits {
            self.0[field][..digits].copy_from_slice(text.as_bytes());
            return;
        }
        let start = field.end - 8;
        self.0[start..field.end].copy_from_slice(&number.to_be_bytes());
        self.0[field.start] |= 0x80;
    }
}

/// A field's bytes up to the first zero.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A number, octal or in base 256; none when it is malformed, negative or too large.
fn number(field: &[u8]) -> Option<u64> {
    match field[0] {
        0x80 => {
            let (high, low) = field[1..].split_at(field.len().saturating_sub(9));
            let zero = high.iter().all(|byte| *byte == 0);
            zero.then(|| low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
        byte if byte & 0x80 != 0 => None,
        _ => octal(field),
    }
}

/// Octal digits between blanks, ended by a blank, a zero or the field's end. None at all are 0.
fn octal(field: &[u8]) -> Option<u64> {
    let start = field.iter().position(|byte| *byte != b' ').unwrap_or(field.len());
    let field = &field[start..];
    let end = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
    field[..end].iter().try_fold(0u64, |number, byte| match byte {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_forms_are_read() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x01\0\0\0\0"), Some(1 << 32));
        for field in [&b"0000648\0"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff", b"-1      "] {
            assert_eq!(number(field), None, "{field:?}");
        }
        assert_eq!(number(b"\x80\x01\0\0\0\0\0\0\0\0\0\0"), None, "too large");
        assert_eq!(number(b"777777777777"), Some((1 << 36) - 1), "no end");
    }

    #[test]
    fn what_is_written_reads_back() {
        for size in [0, 0o7777_7777_7777 >> 3, 8 << 30, u64::MAX >> 1] {
            let header = Header::new(b'0', &[b'n'; 100], b"to").seal(0o4755, (1, 65535), size, 9);
            assert!(header.checksum_fits());
            assert_eq!((header.path(), header.link()), (vec![b'n'; 100], b"to".to_vec()));
            assert_eq!(header.size(), Some(size));
            assert_eq!(
                (header.mode(), header.owner(), header.group()),
                (Some(0o4755), Some(1), Some(65535))
            );
        }
    }

    #[test]
    fn a_changed_byte_does_not_fit_the_checksum() {
        let mut header = Header::new(b'0', b"name", b"").seal(0, (0, 0), 0, 0);
        header.0[3] ^= 1;
        assert!(!header.checksum_fits());
    }
}
