//! Images on their way between machines: a tar archive of the manifest, its signature and the
//! parts, in that order.
//!
//! What comes in may be anybody's. Only the files its manifest names are taken, each exactly once,
//! with the size and digest the manifest states; nothing is unpacked by its name alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

use crate::digest;
use crate::error::{Attempt, FileError};
use crate::image::{Image, ImageError, MANIFEST};
use crate::manifest::{Manifest, Part};
use crate::names::ImageName;
use crate::scratch::Scratch;
use crate::signature::{LONGEST, SIGNATURE, SignatureError};
use crate::store::{Provenance, Store, StoreError};
use crate::{Digest, Phase, Progress};

/// Longest manifest: one package takes about 150 bytes, so this is for 100 000 packages.
const LONGEST_MANIFEST: u64 = 16 * 1024 * 1024;

/// An archive that holds no image that can be taken.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read, or ends too early.
    #[error("could not read the archive")]
    Read(#[source] io::Error),
    /// Its first file is not the manifest.
    #[error("could not find an image in the archive: it begins with {0:?}, not with {MANIFEST}")]
    NoManifest(String),
    /// A file that the manifest does not name, or names once only.
    #[error("could not take the archive: it holds {0:?}, which its manifest does not ask for")]
    Stray(String),
    /// A file that is too long, too short, or no plain file.
    #[error("could not take the archive: {0:?} is not the file its manifest describes")]
    Changed(String),
    /// The archive ends before the image does.
    #[error("could not take the archive: {0:?} is missing")]
    Missing(String),
    /// The manifest.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FileError> for ImportError {
    fn from(error: FileError) -> Self {
        Self::Store(error.into())
    }
}

impl ImportError {
    /// Whether there was no room for the image.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Store(StoreError::File(error)) if error.is_disk_full())
    }

    /// Whether the image is older than the last one.
    pub fn is_older(&self) -> bool {
        matches!(self, Self::Store(StoreError::Older { .. }))
    }
}

impl Image {
    /// Writes the image as an archive.
    ///
    /// # Errors
    /// A file cannot be read, or the archive not be written.
    pub fn export(&self, out: impl Write) -> Result<(), FileError> {
        let mut archive = Builder::new(out);
        let mut files = vec![MANIFEST];
        if self.signature().is_file() {
            files.push(SIGNATURE);
        }
        files.extend(self.manifest.all_parts().map(|part| part.file.as_str()));
        for file in files {
            let path = self.directory.join(file);
            let source = File::open(&path).attempt("open", &path)?;
            let size = source.metadata().attempt("inspect", &path)?.len();
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(size);
            archive.append_data(&mut header, file, source).attempt("export", &path)?;
        }
        let finished = archive.into_inner().and_then(|mut out| out.flush());
        finished.attempt("export", &self.directory)
    }
}

impl Store {
    /// Takes an image from an archive and makes it the current generation of `name`. With a key,
    /// only one that its owner signed; an older one than the last only when the user goes back.
    ///
    /// # Errors
    /// [`ImportError`]; the store is then as it was before.
    pub fn import(
        &self,
        name: &ImageName,
        archive: impl Read,
        key: Option<&str>,
        going_back: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Image, ImportError> {
        let _lock = self.names().lock(name, || progress(Progress::begin(Phase::Wait)))?;
        let scratch = Scratch::new(&self.scratch_folder())?;
        progress(Progress::begin(Phase::Import));
        let manifest = unpack(&scratch.image(), archive)?;
        let digest = Digest::of(&manifest.to_bytes());
        let found = Image::open(scratch.image(), digest)?;
        if let Some(key) = key {
            found.check_signature(key)?;
        }
        progress(Progress::begin(Phase::Store));
        Ok(self.accept(name, &scratch, &manifest, Provenance::Elsewhere { going_back })?)
    }
}

/// Writes what the archive holds to `folder`, everything checked.
fn unpack(folder: &Path, archive: impl Read) -> Result<Manifest, ImportError> {
    let mut archive = Archive::new(archive);
    let mut entries = archive.entries().map_err(ImportError::Read)?;
    let mut manifest: Option<Manifest> = None;
    let mut wanted: BTreeMap<PathBuf, Part> = BTreeMap::new();
    let mut may_be_signature = false;
    for entry in &mut entries {
        let mut entry = entry.map_err(ImportError::Read)?;
        let path = entry.path().map_err(ImportError::Read)?.into_owned();
        let shown = path.display().to_string();
        let plain = entry.header().entry_type() == EntryType::Regular;
        let size = entry.size();
        if manifest.is_none() {
            if !plain || path != Path::new(MANIFEST) {
                return Err(ImportError::NoManifest(shown));
            }
            let bytes = read_whole(&mut entry, size, LONGEST_MANIFEST, &shown)?;
            let path = folder.join(MANIFEST);
            fs::write(&path, &bytes).attempt("write", &path)?;
            let read = Image::open(folder.to_owned(), Digest::of(&bytes))?.manifest;
            // What is not said the way this version says it would not have the same digest again.
            if read.to_bytes() != bytes {
                return Err(ImportError::Changed(MANIFEST.to_owned()));
            }
            wanted =
                read.all_parts().map(|part| (part.file.clone().into(), part.clone())).collect();
            manifest = Some(read);
            may_be_signature = true;
            continue;
        }
        if std::mem::take(&mut may_be_signature) && plain && path == Path::new(SIGNATURE) {
            let bytes = read_whole(&mut entry, size, LONGEST, &shown)?;
            let path = folder.join(SIGNATURE);
            fs::write(&path, bytes).attempt("write", &path)?;
            continue;
        }
        let Some(part) = wanted.remove(&path) else { return Err(ImportError::Stray(shown)) };
        if !plain || size != part.size {
            return Err(ImportError::Changed(shown));
        }
        let target = folder.join(&part.file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).attempt("create", parent)?;
        }
        let out = File::create_new(&target).attempt("create", &target)?;
        let written = digest::copy(&mut entry, out).attempt("write", &target)?;
        if written != (part.sha256, part.size) {
            return Err(ImportError::Changed(shown));
        }
    }
    match (manifest, wanted.into_keys().next()) {
        (None, _) => Err(ImportError::Missing(MANIFEST.to_owned())),
        (Some(_), Some(missing)) => Err(ImportError::Missing(missing.display().to_string())),
        (Some(manifest), None) => Ok(manifest),
    }
}

fn read_whole(
    entry: &mut impl Read,
    size: u64,
    longest: u64,
    name: &str,
) -> Result<Vec<u8>, ImportError> {
    if size > longest {
        return Err(ImportError::Changed(name.to_owned()));
    }
    let mut bytes = Vec::new();
    entry.take(longest).read_to_end(&mut bytes).map_err(ImportError::Read)?;
    if bytes.len() as u64 != size {
        return Err(ImportError::Missing(name.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
