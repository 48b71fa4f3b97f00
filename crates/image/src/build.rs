//! Builds an image into a scratch folder: packages, then packing, kernel and modules, and the
//! manifest that describes them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::debian::{self, DebianError};
use crate::digest::{self, Digest};
use crate::error::{Attempt, FileError};
use crate::image::{Image, ImageError};
use crate::kernel::KernelError;
use crate::manifest::{FORMAT, Inputs, Manifest, Package, Part, Parts, Verity};
use crate::modules::ModuleError;
use crate::recipe::{RecipeError, Source};
use crate::rootfs::{self, RootfsError};
use crate::scratch::Scratch;
use crate::store::StoreError;
use crate::verity::{BLOCK, Tree};
use crate::{Phase, Progress, Recipe};

pub(crate) use crate::boot::Boot;

/// An image that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe means nothing.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// It is not made here.
    #[error("could not build what is imported: its configuration says `source = \"imported\"`")]
    Imported,
    /// The root file system could not be made from Debian packages.
    #[error(transparent)]
    Debian(#[from] DebianError),
    /// It is larger than it may be.
    #[error("could not keep to `size`: the root file system has {size} bytes, allowed are {limit}")]
    TooLarge {
        /// Bytes it has.
        size: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// The kernel cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel's modules cannot be used.
    #[error(transparent)]
    Modules(#[from] ModuleError),
    /// The root file system that is there already cannot be taken.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The image whose kernel is used cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file of the build.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store the image was for.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BuildError {
    /// Whether the image comes from elsewhere.
    pub fn is_imported(&self) -> bool {
        matches!(self, Self::Imported)
    }

    /// Whether there was no room for the image.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Debian(DebianError::DiskFull { .. }) => true,
            Self::Rootfs(error) => error.is_disk_full(),
            Self::File(error)
            | Self::Store(StoreError::File(error))
            | Self::Debian(DebianError::File(error))
            | Self::Modules(ModuleError::File(error)) => error.is_disk_full(),
            _ => false,
        }
    }
}

/// What a source makes, for the image to be put together from. The files belong to others and
/// are copied.
#[derive(Debug)]
pub(crate) struct Raw {
    /// The packed root file system.
    pub(crate) root: std::path::PathBuf,
    /// The kernel and its modules.
    pub(crate) boot: Boot,
    /// Processor architecture, as `uname -m` names it.
    pub(crate) architecture: String,
    /// What the recipe was resolved to.
    pub(crate) inputs: Inputs,
    /// [`Manifest::serial`].
    pub(crate) serial: u64,
    /// Installed packages, in order.
    pub(crate) packages: Vec<Package>,
}

/// Builds `recipe` into the scratch folder's image. `lender` gives the image whose kernel is used
/// for a root file system without one.
pub(crate) fn build(
    scratch: &Scratch,
    recipe: &Recipe,
    lender: &dyn Fn() -> Result<Option<Image>, StoreError>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, BuildError> {
    let raw = match &recipe.source {
        Source::Debian(source) => debian::build(&scratch.work()?, source, progress)?,
        Source::Imported => return Err(BuildError::Imported),
        Source::Tar(rootfs) | Source::Dir(rootfs) | Source::Oci(rootfs) => {
            rootfs::build(&scratch.work()?, &recipe.source, rootfs, lender, progress)?
        }
        Source::Nixos(nixos) => {
            rootfs::build(&scratch.work()?, &recipe.source, &nixos.rootfs, lender, progress)?
        }
    };
    assemble(&scratch.image(), recipe, raw, progress)
}

/// Copies and unpacks what a source made.
pub(crate) fn assemble(
    image: &Path,
    recipe: &Recipe,
    raw: Raw,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, BuildError> {
    progress(Progress::begin(Phase::Kernel));
    let (root, verity) = root(&raw.root, image)?;
    if let Some(limit) = recipe.size_limit
        && root.size > limit
    {
        return Err(BuildError::TooLarge { size: root.size, limit });
    }
    let boot = raw.boot.put(image)?;
    Ok(Manifest {
        format: FORMAT,
        serial: raw.serial,
        architecture: raw.architecture,
        kernel_release: boot.release,
        recipe: recipe.clone(),
        inputs: raw.inputs,
        parts: Parts { root, kernel: boot.kernel, bzimage: boot.bzimage },
        verity,
        modules: boot.modules,
        module_groups: boot.groups,
        packages: raw.packages,
    })
}

/// Copies the packed root file system, with its hash tree behind it.
fn root(from: &Path, image: &Path) -> Result<(Part, Verity), FileError> {
    const FILE: &str = "root.erofs";
    let path = image.join(FILE);
    let mut target = File::create_new(&path).attempt("create", &path)?;
    io::copy(&mut open_plain(from)?, &mut target).attempt("write", &path)?;
    let tree = File::open(&path).and_then(|data| Tree::of(BufReader::with_capacity(1 << 18, data)));
    let tree = tree.attempt("read", &path)?;
    let hash_offset = tree.data_blocks * BLOCK as u64;
    target
        .set_len(hash_offset)
        .and_then(|()| target.seek(SeekFrom::End(0)))
        .and_then(|_| tree.write(&target))
        .attempt("write", &path)?;
    let written = File::open(&path).attempt("read", &path)?;
    let (sha256, size) = Digest::of_reader(written).attempt("read", &path)?;
    debug_assert_eq!(size, hash_offset + tree.len());
    let part = Part { file: FILE.to_owned(), size, sha256 };
    Ok((part, Verity { root_hash: tree.root, hash_offset }))
}

pub(crate) fn copy(from: &Path, image: &Path, file: &str) -> Result<Part, FileError> {
    let source = open_plain(from)?;
    let path = image.join(file);
    let target = File::create(&path).attempt("create", &path)?;
    let (sha256, size) = digest::copy(source, target).attempt("write", &path)?;
    Ok(Part { file: file.to_owned(), size, sha256 })
}

pub(crate) fn write(image: &Path, file: &str, contents: &[u8]) -> Result<Part, FileError> {
    let path = image.join(file);
    fs::write(&path, contents).attempt("write", &path)?;
    Ok(Part { file: file.to_owned(), size: contents.len() as u64, sha256: Digest::of(contents) })
}

/// Opens a file that packages' scripts may have had a hand in: a link is not followed, so that
/// nothing of the user's own gets into the image.
pub(crate) fn open_plain(path: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
        .attempt("open", path)
}
