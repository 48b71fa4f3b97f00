//! A look at the disks a user hands in, before they are given to a machine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use casemate_config::{Compartment, DiskFormat};

/// A disk that cannot be handed in.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It is not there, or may not be read.
    #[error("could not open the disk {} of compartment `{name}`", path.display())]
    Open {
        /// The compartment.
        name: String,
        /// The disk.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a folder, a socket, ….
    #[error("could not use {} of compartment `{name}` as a disk: it is no file or block device", path.display())]
    Kind {
        /// The compartment.
        name: String,
        /// What was given.
        path: PathBuf,
    },
    /// What is declared as qcow2 is none, or leads to other files.
    #[error("could not use the disk {} of compartment `{name}`: {flaw}", path.display())]
    Qcow2 {
        /// The compartment.
        name: String,
        /// The disk.
        path: PathBuf,
        /// What is wrong with it.
        flaw: &'static str,
    },
}

impl DiskError {
    /// What the user can do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Open { .. } => "correct its path, or its owner and permissions",
            Self::Kind { .. } => "give the path of a disk image or of a block device",
            Self::Qcow2 { .. } => {
                "make a whole one of it: qemu-img convert -O qcow2 OLD NEW; or correct `format`"
            }
        }
    }
}

/// Looks at each disk of a compartment; returns those that are block devices.
pub(crate) fn look_at(compartment: &Compartment) -> Result<BTreeSet<PathBuf>, DiskError> {
    let own = compartment.root_disk.iter().map(|path| (path, DiskFormat::Raw));
    let additional = compartment.additional_disks.iter().map(|disk| (&disk.path, disk.format));
    let mut block_devices = BTreeSet::new();
    for (path, format) in own.chain(additional) {
        let name = || compartment.name.to_string();
        let open = |source| DiskError::Open { name: name(), path: path.clone(), source };
        let kind = fs::metadata(path).map_err(open)?.file_type();
        if kind.is_block_device() {
            block_devices.insert(path.clone());
        } else if !kind.is_file() {
            return Err(DiskError::Kind { name: name(), path: path.clone() });
        }
        if format == DiskFormat::Qcow2 {
            match qcow2_flaw(path) {
                Err(source) => return Err(open(source)),
                Ok(Some(flaw)) => {
                    return Err(DiskError::Qcow2 { name: name(), path: path.clone(), flaw });
                }
                Ok(None) => {}
            }
        }
    }
    Ok(block_devices)
}

/// What speaks against a file that shall be a qcow2 image. Its header may name other files of the
/// host, which QEMU would open. Format: QEMU's `docs/interop/qcow2.txt`.
fn qcow2_flaw(path: &Path) -> io::Result<Option<&'static str>> {
    const HEADER: usize = 104;
    const EXTERNAL_DATA: u64 = 1 << 2;
    let mut header = Vec::with_capacity(HEADER);
    File::open(path)?.take(HEADER as u64).read_to_end(&mut header)?;
    // What a short file lacks reads as zero; a version 2 header ends at byte 72.
    header.resize(HEADER, 0);
    let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|index| header[at + index]));
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
    Ok(match (word(4), long(8)) {
        _ if !header.starts_with(b"QFI\xfb") => Some("it is no qcow2 image"),
        (2 | 3, backing) if backing != 0 => Some("it has a backing file"),
        (2, _) => None,
        (3, _) if long(72) & EXTERNAL_DATA != 0 => Some("it has an external data file"),
        (3, _) => None,
        _ => Some("its version of qcow2 is not known"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw(header: &[u8]) -> Option<&'static str> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), header).expect("written");
        qcow2_flaw(file.path()).expect("read")
    }

    fn header(version: u8, backing: u8, incompatible: u8) -> Vec<u8> {
        let mut header = vec![0; 112];
        header[..4].copy_from_slice(b"QFI\xfb");
        header[7] = version;
        header[15] = backing;
        header[79] = incompatible;
        header
    }

    #[test]
    fn only_whole_images_are_taken() {
        assert_eq!(flaw(&header(3, 0, 0)), None);
        assert_eq!(flaw(&header(2, 0, 0)[..72]), None);
        // Bits of version 3 mean nothing in version 2.
        assert_eq!(flaw(&header(2, 0, 4)), None);
        assert_eq!(flaw(&header(3, 104, 0)), Some("it has a backing file"));
        assert_eq!(flaw(&header(2, 72, 0)), Some("it has a backing file"));
        assert_eq!(flaw(&header(3, 0, 4)), Some("it has an external data file"));
        assert_eq!(flaw(&header(4, 0, 0)), Some("its version of qcow2 is not known"));
        assert_eq!(flaw(b"QFI"), Some("it is no qcow2 image"));
        assert_eq!(flaw(b""), Some("it is no qcow2 image"));
    }
}
