//! Headers of layers, read before any program opens them.
//!
//! The VMM writes these files, and a VMM may be taken over by its guest. A header could name any
//! file of the host as backing or data file, and be believed. Ours name none: which layer stands on
//! which is written in `volume.json` alone and told to every program that opens them. A header that
//! says anything our own `qemu-img create` does not say is refused.
//!
//! Offsets are those of QEMU's docs/interop/qcow2.txt; numbers are big-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use casemate_host::lock::Lock;
use nix::libc;

use crate::tool::{QEMU_IMG, ToolError};

/// Bytes of a version 3 header with all the fields QEMU 7 writes.
const HEADER: usize = 112;
/// Bytes of one cluster: QEMU's default.
const CLUSTER_BITS: u32 = 16;
/// Bytes of the disk that one entry of the first table stands for: a cluster of 8-byte entries.
const PER_ENTRY: u64 = 1 << (2 * CLUSTER_BITS - 3);
/// The one incompatible feature allowed: that the file was not closed, and QEMU is to repair its
/// reference counts.
const DIRTY: u64 = 1;

/// Why a layer is not used.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its header says something that ours do not.
    #[error("could not use the layer {path}: {why}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It cannot be read.
    #[error("could not read the layer {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be made or grown.
    #[error("could not make the layer {path}")]
    Make {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ToolError,
    },
}

/// What matters of a header that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the disk.
    pub(crate) size: u64,
    first_table: u64,
    entries: u32,
}

/// Reads and checks the header of a layer of a volume of `most` bytes.
pub(crate) fn check(path: &Path, most: u64) -> Result<Header, LayerError> {
    let read = |source| LayerError::Read { path: path.into(), source };
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = file.map_err(read)?;
    if !file.metadata().map_err(read)?.is_file() {
        return Err(LayerError::Refused { path: path.into(), why: "it is no file" });
    }
    let mut bytes = Vec::with_capacity(HEADER);
    (&file).take(HEADER as u64).read_to_end(&mut bytes).map_err(read)?;
    parse(&bytes, most).map_err(|why| LayerError::Refused { path: path.into(), why })
}

/// Whether nothing has been written to the layer since it was made.
pub(crate) fn is_empty(path: &Path, most: u64) -> Result<bool, LayerError> {
    let header = check(path, most)?;
    let mut table = vec![0; header.entries as usize * 8];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut table, header.first_table))
        .map_err(|source| LayerError::Read { path: path.into(), source })?;
    Ok(table.iter().all(|byte| *byte == 0))
}

/// Makes an empty layer of `size` bytes, on the disk when this returns.
pub(crate) fn create(path: &Path, size: u64, lock: &Lock) -> Result<(), LayerError> {
    let size = size.to_string();
    let arguments = ["create".as_ref(), "-q".as_ref(), "-f".as_ref(), "qcow2".as_ref()];
    let file = [path.as_os_str(), size.as_ref()];
    QEMU_IMG
        .run_confined(arguments.into_iter().chain(file), folder_of(path), lock)
        .map_err(|source| LayerError::Make { path: path.into(), source })?;
    sync(path)
}

/// Grows a layer that passed [`check`] to `size` bytes.
pub(crate) fn grow(path: &Path, size: u64, lock: &Lock) -> Result<(), LayerError> {
    let size = size.to_string();
    let arguments = ["resize".as_ref(), "-q".as_ref(), "-f".as_ref(), "qcow2".as_ref()];
    let file = [path.as_os_str(), size.as_ref()];
    QEMU_IMG
        .run_confined(arguments.into_iter().chain(file), folder_of(path), lock)
        .map_err(|source| LayerError::Make { path: path.into(), source })?;
    sync(path)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn sync(path: &Path) -> Result<(), LayerError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| LayerError::Read { path: path.into(), source })
}

fn parse(bytes: &[u8], most: u64) -> Result<Header, &'static str> {
    let short = |at: usize| -> Result<u32, &'static str> {
        let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
        field.map(u32::from_be_bytes).ok_or("it is cut off")
    };
    let long = |at: usize| -> Result<u64, &'static str> {
        let field = bytes.get(at..at + 8).and_then(|field| field.try_into().ok());
        field.map(u64::from_be_bytes).ok_or("it is cut off")
    };
    if bytes.get(..4) != Some(b"QFI\xfb") || short(4)? != 3 {
        return Err("it is no qcow2 of version 3");
    }
    if long(8)? != 0 || short(16)? != 0 {
        return Err("it names a backing file");
    }
    if short(20)? != CLUSTER_BITS || short(96)? != 4 {
        return Err("its clusters or reference counts are of another size than ours");
    }
    if short(32)? != 0 {
        return Err("it is encrypted by itself");
    }
    if short(60)? != 0 {
        return Err("it has snapshots inside");
    }
    if long(72)? & !DIRTY != 0 {
        return Err("it is corrupt, has a data file, or needs another feature that ours do not");
    }
    if !(104..=112).contains(&short(100)?) {
        return Err("its header is longer than ours");
    }
    let header = Header { size: long(24)?, first_table: long(40)?, entries: short(36)? };
    if header.size > most {
        return Err("it is larger than its volume");
    }
    if u64::from(header.entries) > most.div_ceil(PER_ENTRY) {
        return Err("its table is larger than its disk needs");
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        bytes[20..24].copy_from_slice(&CLUSTER_BITS.to_be_bytes());
        bytes[24..32].copy_from_slice(&(64_u64 << 20).to_be_bytes());
        bytes[36..40].copy_from_slice(&1_u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&0x30000_u64.to_be_bytes());
        bytes[96..100].copy_from_slice(&4_u32.to_be_bytes());
        bytes[100..104].copy_from_slice(&112_u32.to_be_bytes());
        bytes
    }

    #[test]
    fn whatever_differs_from_ours_is_refused() {
        let most = 64 << 20;
        assert_eq!(parse(&good(), most).map(|header| header.size), Ok(64 << 20));
        for length in 0..104 {
            assert!(parse(&good()[..length], most).is_err(), "{length}");
        }
        // Magic, version, backing file, cluster size, size, encryption, tables, snapshots,
        // features, reference counts, length.
        let wrong: [(usize, u8); 16] = [
            (0, b'q'),
            (7, 2),
            (7, 4),
            (8, 1),
            (15, 1),
            (19, 9),
            (23, 12),
            (24, 1),
            (28, 5),
            (35, 2),
            (36, 1),
            (39, 2),
            (63, 1),
            (79, 4),
            (99, 3),
            (103, 200),
        ];
        for (at, value) in wrong {
            let mut bytes = good();
            bytes[at] = value;
            assert!(parse(&bytes, most).is_err(), "{at} = {value}");
        }
        let mut bytes = good();
        for bit in 0..64 {
            bytes[72..80].copy_from_slice(&(1_u64 << bit).to_be_bytes());
            assert_eq!(parse(&bytes, most).is_ok(), bit == 0, "feature {bit}");
        }
    }

    #[test]
    fn links_and_folders_are_no_layers() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("1.qcow2");
        std::os::unix::fs::symlink("/etc/passwd", &link).expect("linked");
        assert!(matches!(check(&link, 1 << 30), Err(LayerError::Read { .. })));
        assert!(matches!(check(directory.path(), 1 << 30), Err(LayerError::Refused { .. })));
    }
}
