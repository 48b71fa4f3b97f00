//! Takes the uncompressed kernel out of a bzImage, for a PVH boot: under emulation the guest
//! would spend more time unpacking itself than booting.
//!
//! Offsets are those of the kernel's `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel
//! Header".

use crate::decompress::{DecompressError, decompress};

const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Protocol 2.08 brought the payload fields.
const VERSION_WITH_PAYLOAD: u16 = 0x0208;
const SECTOR: usize = 512;
/// The build appends the uncompressed size to the payload.
const SIZE_FIELD: usize = 4;

/// A kernel image that cannot be taken apart.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It is no bzImage, or one older than protocol 2.08.
    #[error("could not find the setup header of a bzImage with a payload")]
    NotBzImage,
    /// Its header points outside of the file.
    #[error("could not find the payload of the bzImage: the file ends before it")]
    Truncated,
    /// Its payload cannot be unpacked.
    #[error("could not unpack the payload of the bzImage")]
    Payload(#[from] DecompressError),
    /// What was unpacked is no kernel, or not all of it.
    #[error("could not use the payload of the bzImage: it is no ELF file of {expected} bytes")]
    NotElf {
        /// The length the bzImage names, in bytes.
        expected: u32,
    },
}

/// Returns the ELF kernel inside `bzimage`.
pub(crate) fn vmlinux(bzimage: &[u8]) -> Result<Vec<u8>, KernelError> {
    let is_bzimage = bytes(bzimage, BOOT_FLAG) == Some([0x55, 0xaa])
        && bytes(bzimage, HEADER_MAGIC) == Some(*b"HdrS");
    let version = bytes(bzimage, VERSION).map_or(0, u16::from_le_bytes);
    if !is_bzimage || version < VERSION_WITH_PAYLOAD {
        return Err(KernelError::NotBzImage);
    }
    let sectors = match bzimage[SETUP_SECTS] {
        0 => 4,
        count => usize::from(count),
    };
    let field = |offset| bytes(bzimage, offset).map(|raw| u32::from_le_bytes(raw) as usize);
    let payload = field(PAYLOAD_OFFSET)
        .and_then(|offset| offset.checked_add((sectors + 1) * SECTOR))
        .and_then(|start| Some(start..start.checked_add(field(PAYLOAD_LENGTH)?)?))
        .and_then(|range| bzimage.get(range))
        .ok_or(KernelError::Truncated)?;
    let (compressed, expected) =
        payload.split_last_chunk::<SIZE_FIELD>().ok_or(KernelError::Truncated)?;
    let expected = u32::from_le_bytes(*expected);
    let kernel = decompress(compressed)?;
    if !kernel.starts_with(b"\x7fELF") || kernel.len() != expected as usize {
        return Err(KernelError::NotElf { expected });
    }
    Ok(kernel)
}

fn bytes<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
pub(crate) mod samples {
    //! Made-up kernels for tests.

    use super::*;

    /// A bzImage with one setup sector around `payload`.
    pub(crate) fn bzimage(payload: &[u8], uncompressed: u32) -> Vec<u8> {
        const GAP: usize = 16;
        let mut image = vec![0; 2 * SECTOR + GAP];
        image[SETUP_SECTS] = 1;
        image[BOOT_FLAG..][..2].copy_from_slice(&[0x55, 0xaa]);
        image[HEADER_MAGIC..][..4].copy_from_slice(b"HdrS");
        image[VERSION..][..2].copy_from_slice(&0x020fu16.to_le_bytes());
        image[PAYLOAD_OFFSET..][..4].copy_from_slice(&(GAP as u32).to_le_bytes());
        let length = (payload.len() + SIZE_FIELD) as u32;
        image[PAYLOAD_LENGTH..][..4].copy_from_slice(&length.to_le_bytes());
        image.extend(payload);
        image.extend(uncompressed.to_le_bytes());
        image.extend(b"signature");
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decompress;

    #[test]
    fn kernel_comes_out_of_both_compressions() {
        let kernel = b"\x7fELF made-up kernel".repeat(100);
        for payload in [decompress::samples::lz4(&kernel), decompress::samples::zstd(&kernel)] {
            let image = samples::bzimage(&payload, kernel.len() as u32);
            assert_eq!(vmlinux(&image).unwrap(), kernel);
        }
    }

    #[test]
    fn other_files_are_refused() {
        for data in [&b""[..], b"MZ", &[0; 4096]] {
            assert!(matches!(vmlinux(data), Err(KernelError::NotBzImage)));
        }
    }

    #[test]
    fn header_pointing_outside_is_refused() {
        let image = samples::bzimage(b"payload", 7);
        let mut far = image.clone();
        far[PAYLOAD_OFFSET..][..4].fill(0xff);
        let mut long = image;
        long[PAYLOAD_LENGTH..][..4].fill(0xff);
        for image in [far, long] {
            assert!(matches!(vmlinux(&image), Err(KernelError::Truncated)));
        }
    }

    #[test]
    fn a_payload_of_the_wrong_length_is_refused() {
        let kernel = b"\x7fELF kernel";
        let image = samples::bzimage(&decompress::samples::zstd(kernel), 99);
        let error = vmlinux(&image).unwrap_err();
        assert!(matches!(error, KernelError::NotElf { expected: 99 }));
    }
}
