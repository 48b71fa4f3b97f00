//! The store: images by digest, names by generation.
//!
//! ```text
//! images/DIGEST/{manifest.json, root.erofs, kernel, bzImage, modules/NAME.ko}
//! names/NAME.json     generations and which is current; NAME.lock while one is built
//! derived/            made from images and other files, may be removed at any time
//! tmp/                builds under way
//! ```
//! An image is put together in `tmp` and renamed into `images`, so what is there is complete.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::build::{self, BuildError};
use crate::error::{Attempt, FileError};
use crate::image::{Image, ImageError, MANIFEST};
use crate::initrd::{self, InitrdError};
use crate::manifest::Manifest;
use crate::names::{Generation, ImageName, Names, replace, sync_folder};
use crate::scratch::{self, Scratch};
use crate::{Digest, Phase, Progress, Recipe};

/// A store of images in a directory.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    names: Names,
}

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// One of its files.
    #[error(transparent)]
    File(#[from] FileError),
    /// One of its images.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A name's record cannot be read.
    #[error("could not read the image name's record {}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A name's record was written by a later version.
    #[error("could not use {}: it has format {format}, which this version does not know", path.display())]
    RecordFormat {
        /// The record.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
}

impl Store {
    /// Opens the store in `directory`, made when it is not there, and removes what killed
    /// builds left.
    ///
    /// # Errors
    /// When its folders cannot be made or read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).attempt("create", directory)?;
        let directory = directory.canonicalize().attempt("find", directory)?;
        for folder in ["images", "derived", "tmp"] {
            let folder = directory.join(folder);
            fs::create_dir_all(&folder).attempt("create", &folder)?;
        }
        scratch::remove_dead(&directory.join("tmp"))?;
        let names = Names::open(directory.join("names"))?;
        Ok(Self { directory, names })
    }

    /// The store in `directory` as it is, to look at: nothing is made or removed.
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.into(), names: Names::at(directory.join("names")) }
    }

    /// The image a name points to, if there is one.
    ///
    /// # Errors
    /// When the record or the image cannot be read or was changed.
    pub fn current(&self, name: &ImageName) -> Result<Option<Image>, StoreError> {
        match self.names.read(name)?.current() {
            Some(generation) => self.get(generation.image),
            None => Ok(None),
        }
    }

    /// The image a name points to, if it was built from this recipe.
    ///
    /// # Errors
    /// As for [`Store::current`].
    pub fn current_for(
        &self,
        name: &ImageName,
        recipe: &Recipe,
    ) -> Result<Option<Image>, StoreError> {
        match self.names.read(name)?.current() {
            Some(current) if current.recipe == recipe.digest() => self.get(current.image),
            _ => Ok(None),
        }
    }

    /// All generations of a name, oldest first.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn generations(&self, name: &ImageName) -> Result<Vec<Generation>, StoreError> {
        Ok(self.names.read(name)?.generations)
    }

    /// The image with this digest, if the store has it.
    ///
    /// # Errors
    /// When its manifest cannot be read or was changed.
    pub fn get(&self, digest: Digest) -> Result<Option<Image>, StoreError> {
        match Image::open(self.image_path(digest), digest) {
            Ok(image) => Ok(Some(image)),
            Err(ImageError::File(error)) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The digests of all images in the store, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, StoreError> {
        let folder = self.directory.join("images");
        let mut digests = Vec::new();
        for entry in fs::read_dir(&folder).attempt("list", &folder)? {
            let name = entry.attempt("list", &folder)?.file_name();
            digests.extend(name.to_str().and_then(|name| name.parse::<Digest>().ok()));
        }
        digests.sort_unstable();
        Ok(digests)
    }

    /// Builds an image and makes it the current generation of `name`. When another build of
    /// the same name and recipe ran meanwhile, its image is taken instead.
    ///
    /// # Errors
    /// Says what kept it from being built; the store is then as it was before.
    pub fn build(
        &self,
        name: &ImageName,
        recipe: &Recipe,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Image, BuildError> {
        recipe.check()?;
        self.build_with(name, recipe, progress, |scratch, progress| {
            build::build(scratch, recipe, progress)
        })
    }

    /// [`Store::build`] with what fills the image's folder and describes it given.
    pub(crate) fn build_with(
        &self,
        name: &ImageName,
        recipe: &Recipe,
        progress: &mut dyn FnMut(Progress),
        fill: impl FnOnce(&Scratch, &mut dyn FnMut(Progress)) -> Result<Manifest, BuildError>,
    ) -> Result<Image, BuildError> {
        let mut waited = false;
        let _lock = self
            .names
            .lock(name, || {
                waited = true;
                progress(Progress::begin(Phase::Wait));
            })
            .map_err(StoreError::from)?;
        if waited && let Some(image) = self.current_for(name, recipe)? {
            return Ok(image);
        }
        let scratch = Scratch::new(&self.directory.join("tmp")).map_err(StoreError::from)?;
        let manifest = fill(&scratch, progress)?;
        progress(Progress::begin(Phase::Store));
        let image = self.adopt(&scratch, &manifest)?;
        let mut record = self.names.read(name)?;
        record.add(image.digest, recipe.digest());
        self.names.write(name, &record).map_err(StoreError::from)?;
        Ok(image)
    }

    /// The initrd for a boot of `image`, as a file in the store: see [`crate::initrd()`].
    ///
    /// The file is named by its contents and compared with them, so a stale or changed one is
    /// never used.
    ///
    /// # Errors
    /// As for [`crate::initrd()`], and when the file cannot be written.
    pub fn initrd(
        &self,
        image: &Image,
        agent: &Path,
        groups: &[&str],
    ) -> Result<PathBuf, InitrdError> {
        let bytes = initrd::initrd(image, agent, groups)?;
        let path = self.derived(&bytes);
        if !fs::read(&path).is_ok_and(|stored| stored == bytes) {
            replace(&path, &bytes)?;
        }
        Ok(path)
    }

    /// Where [`Store::initrd`] puts its file.
    ///
    /// # Errors
    /// As for [`crate::initrd()`].
    pub fn initrd_path(
        &self,
        image: &Image,
        agent: &Path,
        groups: &[&str],
    ) -> Result<PathBuf, InitrdError> {
        Ok(self.derived(&initrd::initrd(image, agent, groups)?))
    }

    fn derived(&self, initrd: &[u8]) -> PathBuf {
        self.directory.join("derived").join(format!("initrd-{}", Digest::of(initrd)))
    }

    /// Moves a finished image into the store. One that is there already is kept when it is
    /// intact, and replaced when it is not.
    fn adopt(&self, scratch: &Scratch, manifest: &Manifest) -> Result<Image, StoreError> {
        let folder = scratch.image();
        let bytes = manifest.to_bytes();
        let digest = Digest::of(&bytes);
        let path = folder.join(MANIFEST);
        fs::write(&path, &bytes).attempt("write", &path)?;
        settle(&folder)?;
        let destination = self.image_path(digest);
        if destination.exists() {
            let intact = Image::open(destination.clone(), digest)
                .and_then(|image| image.check_all_parts().map(|()| image));
            if let Ok(image) = intact {
                return Ok(image);
            }
            let damaged = scratch.aside();
            fs::rename(&destination, &damaged).attempt("replace", &destination)?;
        }
        fs::rename(&folder, &destination).attempt("create", &destination)?;
        sync_folder(&self.directory.join("images"))?;
        Ok(Image::open(destination, digest)?)
    }

    fn image_path(&self, digest: Digest) -> PathBuf {
        self.directory.join("images").join(digest.to_string())
    }
}

/// Sets the modes of an image's files, so that a subordinate user can read what is handed to
/// him, and makes them last.
fn settle(folder: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).attempt("list", folder)? {
        let path = entry.attempt("list", folder)?.path();
        if path.is_dir() {
            settle(&path)?;
            continue;
        }
        let file = File::open(&path).attempt("open", &path)?;
        file.set_permissions(Permissions::from_mode(0o644))
            .and_then(|()| file.sync_all())
            .attempt("finish", &path)?;
    }
    fs::set_permissions(folder, Permissions::from_mode(0o755)).attempt("finish", folder)?;
    sync_folder(folder)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
