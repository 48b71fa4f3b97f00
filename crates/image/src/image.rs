//! One image of the store: a directory named by the digest of its manifest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Attempt, FileError};
use crate::manifest::{FORMAT, Manifest, Module, Part};
use crate::{BOOT_GROUP, Digest};

/// Name of the manifest in an image's directory.
pub(crate) const MANIFEST: &str = "manifest.json";

/// An image in the store. Its files have mode 0644 and are never written again.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Where its parts are.
    pub directory: PathBuf,
    /// What it consists of.
    pub manifest: Manifest,
}

/// An image that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// One of its files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The manifest's bytes do not have the digest that names the image.
    #[error("could not trust image {expected}: its manifest was changed")]
    ManifestChanged {
        /// The digest the image is named by.
        expected: Digest,
    },
    /// The manifest cannot be read.
    #[error("could not read the manifest of image {digest}")]
    Manifest {
        /// The image.
        digest: Digest,
        /// What is wrong with the manifest.
        source: serde_json::Error,
    },
    /// The manifest was written by a later version.
    #[error("could not use image {digest}: its manifest has format {format}, known is {FORMAT}")]
    Format {
        /// The image.
        digest: Digest,
        /// The manifest's format.
        format: u32,
    },
    /// The manifest names a file that cannot be part of the image.
    #[error("could not use image {digest}: its manifest names {file:?}")]
    StrayFile {
        /// The image.
        digest: Digest,
        /// The name.
        file: String,
    },
    /// A part's bytes are not those the manifest names.
    #[error("could not trust {}: it is not the file this image was built with", path.display())]
    PartChanged {
        /// The part.
        path: PathBuf,
    },
    /// The image has no such group of modules.
    #[error("could not find the module group `{group}` in image {digest}")]
    NoGroup {
        /// The image.
        digest: Digest,
        /// The group asked for.
        group: String,
    },
}

impl Image {
    /// Reads the image in `directory`, which must have the manifest this digest belongs to.
    pub(crate) fn open(directory: PathBuf, digest: Digest) -> Result<Self, ImageError> {
        let path = directory.join(MANIFEST);
        let bytes = fs::read(&path).attempt("read", &path)?;
        if Digest::of(&bytes) != digest {
            return Err(ImageError::ManifestChanged { expected: digest });
        }
        let broken = |source| ImageError::Manifest { digest, source };
        let Format { format } = serde_json::from_slice(&bytes).map_err(broken)?;
        if format != FORMAT {
            return Err(ImageError::Format { digest, format });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(broken)?;
        if let Some(file) = manifest.stray_file() {
            let file = file.to_owned();
            return Err(ImageError::StrayFile { digest, file });
        }
        Ok(Self { digest, directory, manifest })
    }

    /// The kernel as an uncompressed ELF file, for a PVH boot.
    pub fn kernel(&self) -> PathBuf {
        self.path(&self.manifest.parts.kernel)
    }

    /// The kernel as the distribution ships it.
    pub fn bzimage(&self) -> PathBuf {
        self.path(&self.manifest.parts.bzimage)
    }

    /// The root file system, erofs.
    pub fn root(&self) -> PathBuf {
        self.path(&self.manifest.parts.root)
    }

    /// The modules of the boot group and these further groups, in load order. A group all of
    /// whose modules are built into the kernel adds none.
    ///
    /// # Errors
    /// [`ImageError::NoGroup`] when the image's kernel lacks a group.
    pub fn modules(&self, groups: &[&str]) -> Result<Vec<&Module>, ImageError> {
        let mut wanted = BTreeSet::new();
        for group in [&BOOT_GROUP].into_iter().chain(groups) {
            let names = self.manifest.module_groups.get(*group).ok_or_else(|| {
                ImageError::NoGroup { digest: self.digest, group: (*group).to_owned() }
            })?;
            wanted.extend(names);
        }
        let modules = self.manifest.modules.iter();
        Ok(modules.filter(|module| wanted.contains(&module.name)).collect())
    }

    /// Hashes the manifest and the kernel again: the quick check before each start. The root
    /// file system is checked block by block while it is read, where dm-verity is used.
    ///
    /// # Errors
    /// Names what was changed or cannot be read.
    pub fn check_boot_parts(&self) -> Result<(), ImageError> {
        Self::open(self.directory.clone(), self.digest)?;
        self.check(&self.manifest.parts.kernel)
    }

    /// Hashes everything again.
    ///
    /// # Errors
    /// Names the first part that was changed or cannot be read.
    pub fn check_all_parts(&self) -> Result<(), ImageError> {
        Self::open(self.directory.clone(), self.digest)?;
        self.manifest.all_parts().try_for_each(|part| self.check(part))
    }

    /// Reads a part into memory and checks it.
    pub(crate) fn read(&self, part: &Part) -> Result<Vec<u8>, ImageError> {
        let path = self.path(part);
        let bytes = fs::read(&path).attempt("read", &path)?;
        if Digest::of(&bytes) != part.sha256 {
            return Err(ImageError::PartChanged { path });
        }
        Ok(bytes)
    }

    fn check(&self, part: &Part) -> Result<(), ImageError> {
        let path = self.path(part);
        let file = File::open(&path).attempt("open", &path)?;
        let found = Digest::of_reader(file).attempt("read", &path)?;
        if found != (part.sha256, part.size) {
            return Err(ImageError::PartChanged { path });
        }
        Ok(())
    }

    fn path(&self, part: &Part) -> PathBuf {
        self.directory.join(Path::new(&part.file))
    }
}

/// The one field every format of the manifest has.
#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}
