//! Undoes the compression of an archive while it is read, and stops when it unpacks to more than
//! anything that is not meant to fill a disk.
//!
//! All in Rust, as [`crate::decompress`] is. What an archive is packed with is seen by its first
//! bytes, never by its name.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::read_full;
use crate::decompress::XZ_MEMORY;

/// How many times its own size an archive may unpack to, when that is more than [`SLACK`]: root
/// file systems come to three or four times, their most even files to twenty.
pub(super) const RATIO: u64 = 200;
/// Bytes that any archive may unpack to: 256 MiB.
const SLACK: u64 = 256 << 20;
/// Bytes read from the packed form at once.
const CHUNK: usize = 64 * 1024;

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    Plain,
    /// gzip, RFC 1952; several members count as one.
    Gzip,
    /// zstd, RFC 8878; several frames count as one.
    Zstd,
    /// xz; several streams count as one.
    Xz,
}

/// The error of an archive that unpacks to too much, within an [`io::Error`].
#[derive(Debug)]
pub(super) struct Bomb;

impl fmt::Display for Bomb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("could not unpack data to so many times its size")
    }
}

impl std::error::Error for Bomb {}

/// An archive's unpacked bytes.
pub(crate) struct Unpacked<'a> {
    source: Box<dyn Read + 'a>,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
}

impl<'a> Unpacked<'a> {
    /// Finds out how `source` is packed.
    pub(crate) fn detect(mut source: impl Read + 'a) -> io::Result<Self> {
        let mut start = [0; XZ.len()];
        let count = read_full(&mut source, &mut start)?;
        let start = start[..count].to_vec();
        let compression = match &*start {
            start if start.starts_with(GZIP) => Compression::Gzip,
            start if start.starts_with(ZSTD) => Compression::Zstd,
            start if start.starts_with(XZ) => Compression::Xz,
            _ => Compression::Plain,
        };
        Ok(Self::new(Cursor::new(start).chain(source), compression))
    }

    /// Unpacks `source`, which must be packed this way.
    pub(crate) fn new(source: impl Read + 'a, compression: Compression) -> Self {
        let packed = Rc::new(Cell::new(0));
        let counted = Counted { source, count: packed.clone() };
        let buffered = BufReader::with_capacity(CHUNK, counted);
        let source: Box<dyn Read + 'a> = match compression {
            Compression::Plain => Box::new(buffered),
            Compression::Gzip => Box::new(MultiGzDecoder::new(buffered)),
            Compression::Zstd => Box::new(Zstd::new(buffered)),
            Compression::Xz => Box::new(XzReader::new_mem_limit(buffered, true, XZ_MEMORY)),
        };
        Self { source, packed, unpacked: 0 }
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.unpacked += count as u64;
        if self.unpacked > SLACK && self.unpacked / RATIO > self.packed.get() {
            return Err(io::Error::other(Bomb));
        }
        Ok(count)
    }
}

/// Counts what is read.
struct Counted<R> {
    source: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Frame after frame of zstd.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether a frame has begun and not ended.
    in_frame: bool,
    /// Whether there was a frame at all.
    any: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), in_frame: false, any: false }
    }

    /// Begins the next frame; false when there is none.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return match self.any {
                    true => Ok(false),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            self.any = true;
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.source).take(length.into());
                    if io::copy(&mut skipped, &mut io::sink())? < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// Ends a frame whose bytes have all been read.
    fn end(&mut self) -> io::Result<()> {
        self.in_frame = false;
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(expected), Some(found)) if expected != found => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of a frame is wrong"))
            }
            _ => Ok(()),
        }
    }

    /// A decoder's error; at the end of its source it means that more was needed.
    fn broken(&mut self, error: FrameDecoderError) -> io::Error {
        match self.source.fill_buf() {
            Ok([]) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, error),
            Err(error) => error,
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let step = BlockDecodingStrategy::UptoBlocks(1);
                if let Err(error) = self.decoder.decode_blocks(&mut self.source, step) {
                    return Err(self.broken(error));
                }
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.end()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::decompress::samples;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Unpacked::detect(packed)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn every_compression_is_recognised_and_parts_count_as_one() {
        let plain = b"something that repeats, repeats, repeats".repeat(50);
        for pack in [gzip as fn(&[u8]) -> Vec<u8>, samples::zstd, samples::xz] {
            assert_eq!(unpack(&pack(&plain)).unwrap(), plain);
            let twice = [pack(&plain), pack(&plain)].concat();
            assert_eq!(unpack(&twice).unwrap(), plain.repeat(2));
        }
        assert_eq!(unpack(&plain).unwrap(), plain);
        assert_eq!(unpack(b"x").unwrap(), b"x");
    }

    #[test]
    fn skippable_frames_are_skipped() {
        let skippable = [&0x184d_2a50u32.to_le_bytes()[..], &3u32.to_le_bytes(), b"abc"].concat();
        let packed = [samples::zstd(b"one"), skippable, samples::zstd(b"two")].concat();
        assert_eq!(unpack(&packed).unwrap(), b"onetwo");
    }

    #[test]
    fn cut_off_and_changed_data_is_an_error() {
        let plain: Vec<u8> =
            (0..100_000u32).flat_map(|i| i.wrapping_mul(i).to_le_bytes()).collect();
        for pack in [gzip as fn(&[u8]) -> Vec<u8>, samples::zstd, samples::xz] {
            let packed = pack(&plain);
            for length in [packed.len() / 2, packed.len() - 1] {
                assert!(unpack(&packed[..length]).is_err(), "{:02x?}", &packed[..4]);
            }
            let mut changed = packed.clone();
            changed[packed.len() / 2] ^= 0x10;
            assert!(unpack(&changed).is_err(), "{:02x?}", &packed[..4]);
        }
    }

    #[test]
    fn a_bomb_is_stopped() {
        let packed = gzip(&vec![0; 300 << 20]);
        let mut unpacked = Unpacked::detect(&packed[..]).unwrap();
        let error = io::copy(&mut unpacked, &mut io::sink()).unwrap_err();
        assert!(error.get_ref().unwrap().is::<Bomb>());
    }
}
