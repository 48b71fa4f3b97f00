//! Where the blobs of an OCI image are: in a folder, or in an archive of one (image-spec 1.1,
//! `image-layout.md`).

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::document::{self, Descriptor};
use super::{Blob, OciError};
use crate::FileError;
use crate::archive::{ArchiveError, Layering, NodeKind, Spool, Tree, Unpacked, merge};
use crate::error::Attempt;

/// Longest document, in bytes: what registries accept for a manifest.
const MAX_DOCUMENT: u64 = 4 << 20;
/// The file that says it is a layout.
const MARK: &str = "oci-layout";

/// A layout.
pub(super) enum Layout {
    /// A folder.
    Folder(PathBuf),
    /// An archive, as it was read.
    Archive { tree: Tree, spool: Spool },
}

/// The file that says it is a layout.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    image_layout_version: String,
}

impl Layout {
    /// Opens the layout at `path`; an archive's files wait in the folder `scratch`.
    pub(super) fn open(path: &Path, scratch: &Path) -> Result<Self, OciError> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .attempt("open", path)?;
        let metadata = file.metadata().attempt("inspect", path)?;
        let layout = if metadata.is_dir() {
            Self::Folder(path.to_owned())
        } else if metadata.is_file() {
            let mut tree = Tree::new();
            let mut spool = Spool::new(scratch)?;
            let source = Unpacked::detect(file).map_err(ArchiveError::at(0));
            source
                .and_then(|source| merge(source, Layering::Plain, &mut tree, &mut spool))
                .map_err(OciError::Archive)?;
            Self::Archive { tree, spool }
        } else {
            return Err(OciError::NotLayout("it is neither a folder nor an archive"));
        };
        layout.check()?;
        Ok(layout)
    }

    fn check(&self) -> Result<(), OciError> {
        let absent = OciError::NotLayout("there is no file oci-layout");
        let mark = match self.open_file(MARK)? {
            Some(source) => Self::bounded(source, MARK)?,
            None => return Err(absent),
        };
        let mark: Mark = document::parse(&mark, MARK)?;
        match mark.image_layout_version.starts_with("1.") {
            true => Ok(()),
            false => Err(OciError::NotLayout("its layout is of another version than 1")),
        }
    }

    /// All of a small file.
    pub(super) fn file(&self, name: &'static str) -> Result<Vec<u8>, OciError> {
        match self.open_file(name)? {
            Some(source) => Self::bounded(source, name),
            None => Err(OciError::NotLayout("there is no file index.json")),
        }
    }

    /// Reads and checks a blob that is a document.
    pub(super) fn document<T: DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
        what: &str,
    ) -> Result<T, OciError> {
        if descriptor.size > MAX_DOCUMENT {
            return Err(OciError::LongDocument { document: what.to_owned(), limit: MAX_DOCUMENT });
        }
        let mut blob = self.blob(descriptor)?;
        let bytes = Self::bounded(&mut blob, what)?;
        blob.finish()?;
        document::parse(&bytes, what)
    }

    /// Opens a blob, to be checked while it is read.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Blob<'_>, OciError> {
        let digest = descriptor.sha256()?;
        let source = self
            .open_file(&format!("blobs/sha256/{digest}"))?
            .ok_or(OciError::MissingBlob(digest))?;
        Ok(Blob::new(source, (digest, descriptor.size)))
    }

    /// Opens a file by its name, which is ours: a digest's digits at most come from a document.
    fn open_file(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>, FileError> {
        match self {
            Self::Archive { tree, spool } => match tree.get(name).map(|node| &node.kind) {
                Some(NodeKind::File(contents)) => Ok(Some(Box::new(spool.open(*contents)))),
                _ => Ok(None),
            },
            Self::Folder(folder) => {
                let path = folder.join(name);
                let file = OpenOptions::new()
                    .read(true)
                    .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
                    .open(&path)
                    .attempt("open", &path);
                let file: File = match file {
                    Err(error) if error.is_absent() => return Ok(None),
                    file => file?,
                };
                Ok(Some(Box::new(file)))
            }
        }
    }

    fn bounded(source: impl Read, document: &str) -> Result<Vec<u8>, OciError> {
        let mut bytes = Vec::new();
        let read = source.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        read.attempt("read", Path::new(document))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let document = document.to_owned();
            return Err(OciError::LongDocument { document, limit: MAX_DOCUMENT });
        }
        Ok(bytes)
    }
}
