//! The store: images by digest, names by generation.
//!
//! ```text
//! images/DIGEST/{manifest.json, manifest.json.minisig, root.erofs, kernel, bzImage, modules/NAME.ko}
//! names/NAME.json     generations and which is current; NAME.lock while one is built
//! derived/            made from images and other files, may be removed at any time
//! tmp/                builds under way
//! lock                held by who builds (shared) or collects (alone)
//! ```
//! An image is put together in `tmp` and renamed into `images`, so what is there is complete.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::build::{self, BuildError};
use crate::error::{Attempt, FileError};
use crate::image::{Image, ImageError, MANIFEST};
use crate::initrd::{self, InitrdError};
use crate::manifest::Manifest;
use crate::names::{Generation, ImageName, Names, Record, replace, sync_folder};
use crate::rootfs;
use crate::scratch::{self, Scratch};
use crate::signature::SIGNATURE;
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
    /// It is older than what the name has had.
    #[error(
        "could not take image {image} as {name}: it is older than the last (serial {serial}, not \
         {last} or more)"
    )]
    Older {
        /// The image.
        image: Digest,
        /// The name.
        name: ImageName,
        /// The image's serial.
        serial: u64,
        /// The least that is taken.
        last: u64,
    },
    /// There is no such generation to go back to.
    #[error("could not go back: {name} has no {}", generation.map_or("older generation".into(), |number| format!("generation {number}")))]
    NoGeneration {
        /// The name.
        name: ImageName,
        /// The one asked for; the one before the current when none was.
        generation: Option<u32>,
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

/// How an image came about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Provenance {
    /// Built here, from the recipe with this digest.
    Recipe(Digest),
    /// Brought here.
    Elsewhere {
        /// The user wants it though it is older.
        going_back: bool,
    },
}

impl Store {
    /// Name of the image that is to be built before one whose root file system has no kernel:
    /// without it, [`Store::build`] reports [`crate::RootfsError::NoKernel`].
    pub const KERNEL_LENDER: &'static str = rootfs::LENDER;

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
        match self.names.read(name)?.image_for(recipe.digest()) {
            Some(image) => self.get(image),
            None => Ok(None),
        }
    }

    /// Makes another generation of a name current: this one, or the one before the current. It
    /// stays so until the next build, update or import.
    ///
    /// # Errors
    /// There is none, or its image is not there any more.
    pub fn go_back(&self, name: &ImageName, to: Option<u32>) -> Result<Generation, StoreError> {
        let none = || StoreError::NoGeneration { name: name.clone(), generation: to };
        let _lock = self.names.lock(name, || ())?;
        let mut record = self.names.read(name)?;
        if !record.go_back(to) {
            return Err(none());
        }
        let current = record.current().cloned().ok_or_else(none)?;
        let image = self.get(current.image)?.ok_or_else(none)?;
        record.serial = image.manifest.serial;
        self.names.write(name, &record)?;
        Ok(current)
    }

    /// Names that have generations, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn all_names(&self) -> Result<Vec<ImageName>, StoreError> {
        Ok(self.names.all()?)
    }

    /// Number of the generation in use, if there is one.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn current_generation(&self, name: &ImageName) -> Result<Option<u32>, StoreError> {
        Ok(self.names.read(name)?.current().map(|generation| generation.number))
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

    /// The image whose kernel is used by root file systems without one, if it is built: the
    /// current one of the name [`Store::KERNEL_LENDER`].
    fn kernel_lender(&self) -> Result<Option<Image>, StoreError> {
        match ImageName::new(Self::KERNEL_LENDER) {
            Ok(name) => self.current(&name),
            Err(_) => Ok(None),
        }
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
            build::build(scratch, recipe, &|| self.kernel_lender(), progress)
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
        let scratch = Scratch::new(&self.scratch_folder()).map_err(StoreError::from)?;
        let manifest = fill(&scratch, progress)?;
        progress(Progress::begin(Phase::Store));
        Ok(self.accept(name, &scratch, &manifest, Provenance::Recipe(recipe.digest()))?)
    }

    /// Makes a finished image the current generation of `name`, whose lock the caller has.
    pub(crate) fn accept(
        &self,
        name: &ImageName,
        scratch: &Scratch,
        manifest: &Manifest,
        from: Provenance,
    ) -> Result<Image, StoreError> {
        let _store = self.hold_for_build()?;
        let mut record = self.names.read(name)?;
        let going_back = matches!(from, Provenance::Elsewhere { going_back: true });
        if manifest.serial < record.serial && !going_back {
            return Err(StoreError::Older {
                image: Digest::of(&manifest.to_bytes()),
                name: name.clone(),
                serial: manifest.serial,
                last: record.serial,
            });
        }
        record.serial = manifest.serial;
        let recipe = match from {
            Provenance::Recipe(recipe) => recipe,
            Provenance::Elsewhere { .. } => manifest.recipe.digest(),
        };
        let image = match self.unchanged(&record, manifest, from) {
            Some(image) => image,
            None => self.adopt(scratch, manifest)?,
        };
        record.add(image.digest, recipe);
        if matches!(from, Provenance::Elsewhere { .. }) {
            record.hold();
        }
        self.names.write(name, &record)?;
        Ok(image)
    }

    /// The current image, when a build gave the same again from newer lists of packages.
    fn unchanged(&self, record: &Record, manifest: &Manifest, from: Provenance) -> Option<Image> {
        let Provenance::Recipe(_) = from else { return None };
        let image = self.get(record.current()?.image).ok()??;
        let same = image.manifest.differs_only_in_serial(manifest);
        (same && image.check_all_parts().is_ok()).then_some(image)
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
        if fs::read(&path).is_ok_and(|stored| stored == bytes) {
            // Says that it is used; see `collect`.
            let now = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            now.attempt("touch", &path)?;
        } else {
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
        self.derived_folder().join(format!("initrd-{}", Digest::of(initrd)))
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
                // The same image may be signed anew.
                let signature = folder.join(SIGNATURE);
                if let Ok(bytes) = fs::read(&signature) {
                    replace(&image.signature(), &bytes)?;
                }
                return Ok(image);
            }
            let damaged = scratch.aside();
            fs::rename(&destination, &damaged).attempt("replace", &destination)?;
        }
        fs::rename(&folder, &destination).attempt("create", &destination)?;
        sync_folder(&self.directory.join("images"))?;
        Ok(Image::open(destination, digest)?)
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn scratch_folder(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    pub(crate) fn derived_folder(&self) -> PathBuf {
        self.directory.join("derived")
    }

    pub(crate) fn image_path(&self, digest: Digest) -> PathBuf {
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
#[path = "store_samples.rs"]
pub(crate) mod samples;

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
