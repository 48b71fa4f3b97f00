//! Undoes the compressions kernels and modules are shipped in. All in Rust, so that a broken
//! file is an error and never a fault.

use std::io::{self, Write};

/// Largest result accepted, in bytes: several times the size of any kernel.
const LIMIT: usize = 512 << 20;

/// Largest uncompressed block of the LZ4 legacy format (lz4 `lz4_Frame_format.md`, legacy frame).
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

/// Memory for unpacking xz, in KiB: that of `xz -9` is 64 MiB, and `xz` knows no larger preset.
pub(crate) const XZ_MEMORY: u32 = 300 * 1024;

const ELF: &[u8] = b"\x7fELF";
const LZ4_LEGACY: &[u8] = b"\x02\x21\x4c\x18";
const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Compressed bytes that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// No known compression begins like this.
    #[error("could not recognise the compression of data beginning with {0:02x?}")]
    Unknown(Vec<u8>),
    /// The bytes are not what their beginning promises.
    #[error("could not decompress {format} data")]
    Broken {
        /// Name of the compression.
        format: &'static str,
        /// What is wrong.
        source: io::Error,
    },
}

/// Returns the uncompressed form of `data`: itself when it is an ELF file already.
pub(crate) fn decompress(data: &[u8]) -> Result<Vec<u8>, DecompressError> {
    let (format, result) = if data.starts_with(ELF) {
        return Ok(data.to_vec());
    } else if data.starts_with(ZSTD) {
        ("zstd", zstd(data))
    } else if data.starts_with(XZ) {
        ("xz", xz(data))
    } else if let Some(blocks) = data.strip_prefix(LZ4_LEGACY) {
        ("lz4", lz4_legacy(blocks))
    } else {
        return Err(DecompressError::Unknown(data.iter().take(6).copied().collect()));
    };
    result.map_err(|source| DecompressError::Broken { format, source })
}

fn zstd(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(data).map_err(io::Error::other)?;
    let mut out = Bounded::default();
    io::copy(&mut decoder, &mut out)?;
    Ok(out.0)
}

fn xz(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoder = lzma_rust2::XzReader::new_mem_limit(data, true, XZ_MEMORY);
    let mut out = Bounded::default();
    io::copy(&mut decoder, &mut out)?;
    Ok(out.0)
}

/// Blocks, each a little-endian length and that many bytes.
fn lz4_legacy(mut blocks: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Bounded::default();
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (block, rest) = rest.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        let plain = lz4_flex::block::decompress(block, LZ4_LEGACY_BLOCK)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        out.write_all(&plain)?;
        blocks = rest;
    }
    Ok(out.0)
}

/// Takes bytes up to the limit.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Compressed samples for tests.

    /// Legacy LZ4 of `plain`, in one block.
    pub(crate) fn lz4(plain: &[u8]) -> Vec<u8> {
        let block = lz4_flex::block::compress(plain);
        let mut data = super::LZ4_LEGACY.to_vec();
        data.extend((block.len() as u32).to_le_bytes());
        data.extend(block);
        data
    }

    /// zstd of `plain`.
    pub(crate) fn zstd(plain: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(plain, ruzstd::encoding::CompressionLevel::Fastest)
    }

    /// xz of `plain`.
    pub(crate) fn xz(plain: &[u8]) -> Vec<u8> {
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), Default::default()).unwrap();
        std::io::Write::write_all(&mut encoder, plain).unwrap();
        encoder.finish().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_gives_back_the_same_bytes() {
        let plain = b"\x7fELF then something that repeats, repeats, repeats".repeat(50);
        for data in
            [plain.clone(), samples::lz4(&plain), samples::zstd(&plain), samples::xz(&plain)]
        {
            assert_eq!(decompress(&data).unwrap(), plain);
        }
    }

    #[test]
    fn truncated_data_is_an_error() {
        let plain = b"\x7fELF and more".repeat(50);
        for data in [samples::lz4(&plain), samples::zstd(&plain), samples::xz(&plain)] {
            assert!(decompress(&data[..data.len() - 8]).is_err());
        }
    }

    #[test]
    fn unknown_data_shows_how_it_begins() {
        let error = decompress(b"\x1f\x8b\x08").unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not recognise the compression of data beginning with [1f, 8b, 08]"
        );
    }
}
