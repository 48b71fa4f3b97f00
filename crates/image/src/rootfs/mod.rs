//! An image from somebody else's root file system: an archive, a folder, or an OCI image.
//!
//! ```text
//! archive, folder, OCI image, NixOS system ─▶ Tree ─▶ kernel ─▶ normalized archive ─▶ tar ─▶ mkfs.erofs
//! ```
//! What is in them is decided by [`crate::archive`]; the programs `tar` and `mkfs.erofs` get only
//! what that has written. For an ordinary user they run in a namespace of his subordinate ids, so
//! that owners are kept, as they do for an image from packages.
//!
//! Not here: reading an OCI image (`oci`).

mod extract;
mod folder;
mod kernel;
mod nixos;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::archive::{
    ArchiveError, EntryPath, Layering, Metadata, NodeKind, Spool, Tree, Unpacked, merge, shown,
};
use crate::build::{Boot, BuildError, Raw};
use crate::command::CommandError;
use crate::debian::{self, EPOCH};
use crate::digest::Hashing;
use crate::error::Attempt;
use crate::manifest::Inputs;
use crate::oci::{self, OciError};
use crate::recipe::{Rootfs, Source};
use crate::{Digest, FileError, Image, Phase, Progress, StoreError, arch};

/// Folders every guest needs, made where a root file system lacks them, with their permissions.
const FOLDERS: [(&str, u32); 9] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
];
/// File that only the layout of an OCI image has.
const OCI_MARK: &str = "oci-layout";

/// A root file system that could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The archive.
    #[error("could not use {}", path.display())]
    Archive {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// The folder has what no image keeps.
    #[error("could not use {}", path.display())]
    Folder {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// The OCI image.
    #[error("could not use the OCI image {}", path.display())]
    Oci {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: OciError,
    },
    /// It is no NixOS system.
    #[error("could not use {} as a NixOS system: {why}", path.display())]
    Nixos {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nix.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// There is something else at the path.
    #[error("could not use {}: it is {found}, where `{wanted}` wants {needed}", path.display())]
    Kind {
        /// What is there.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// The source that was asked for.
        wanted: &'static str,
        /// What that needs.
        needed: &'static str,
    },
    /// It has nothing.
    #[error("could not use {}: it has no files", path.display())]
    Empty {
        /// Where it is.
        path: PathBuf,
    },
    /// It has no kernel, and there is no image to take one from.
    #[error(
        "could not find a kernel: {} has none, and the image `{image}` it could be taken from is not built",
        path.display()
    )]
    NoKernel {
        /// Where the root file system comes from.
        path: PathBuf,
        /// The image whose kernel would be used.
        image: &'static str,
    },
}

impl RootfsError {
    /// Whether there was no room for it.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::File(error) => error.is_disk_full(),
            Self::Archive { source, .. } | Self::Folder { source, .. } => source.is_disk_full(),
            Self::Oci { source, .. } => source.is_disk_full(),
            _ => false,
        }
    }
}

/// Builds in the folder `work`. `lender` gives the image whose kernel is used when the root file
/// system has none.
pub(crate) fn build(
    work: &Path,
    source: &Source,
    rootfs: &Rootfs,
    lender: &dyn Fn() -> Result<Option<Image>, StoreError>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Raw, BuildError> {
    let tools = debian::check_tools()?;
    let mut spool = Spool::new(work).map_err(RootfsError::from)?;
    progress(Progress::begin(Phase::Read));
    let path = &rootfs.path;
    let mut place = None;
    let (mut tree, input) = match source {
        Source::Oci(_) => oci::read(path, work, &mut spool)
            .map_err(|source| RootfsError::Oci { path: path.clone(), source })?,
        Source::Dir(_) => (folder::read(path, &mut spool)?, None),
        Source::Nixos(nixos) => {
            let system = nixos::read(nixos, &mut spool)?;
            place = Some(system.place);
            (system.tree, None)
        }
        Source::Tar(_) | Source::Debian(_) | Source::Imported => {
            let (tree, digest) = read_archive(path, &mut spool)?;
            (tree, Some(digest))
        }
    };
    let broken = |source| RootfsError::Archive { path: path.clone(), source };
    complete(&mut tree, path)?;
    let folder = work.join("kernel");
    let boot = match &place {
        None => kernel::extract(&tree, &spool, &folder),
        Some(system) => kernel::extract_nixos(&tree, &spool, system, &folder),
    };
    let boot = match boot.map_err(broken)? {
        Some(boot) => boot,
        None => Boot::Lent(Box::new(
            lender()?.ok_or_else(|| RootfsError::NoKernel { path: path.clone(), image: LENDER })?,
        )),
    };
    progress(Progress::begin(Phase::Extract));
    let stage = extract::Stage::new(work)?;
    let content = stage.extract(&tree, spool, path)?;
    progress(Progress::begin(Phase::Pack));
    let root = stage.pack()?;
    let host = arch::host().map_or(std::env::consts::ARCH, |architecture| architecture.name);
    Ok(Raw {
        root,
        architecture: host.to_owned(),
        // Times in an archive are whatever somebody wrote there.
        serial: 0,
        packages: Vec::new(),
        inputs: Inputs {
            suite: String::new(),
            packages: Vec::new(),
            kernel_packages: Vec::new(),
            source_date_epoch: EPOCH,
            // A folder has no bytes of its own but those it is normalized to.
            content: Some(input.unwrap_or(content)),
            kernel_image: boot.lender(),
            tools,
        },
        boot,
    })
}

/// The image that lends its kernel to those without one.
pub(crate) const LENDER: &str = "debian";

/// Reads an archive; returns its digest, as the file it is.
fn read_archive(path: &Path, spool: &mut Spool) -> Result<(Tree, Digest), RootfsError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .attempt("open", path)?;
    let metadata = file.metadata().attempt("inspect", path)?;
    let kind = |found| RootfsError::Kind {
        path: path.to_owned(),
        found,
        wanted: "tar",
        needed: "an archive",
    };
    if metadata.is_dir() {
        return Err(kind("a folder"));
    }
    if !metadata.is_file() {
        return Err(kind("no file"));
    }
    let broken = |source| RootfsError::Archive { path: path.to_owned(), source };
    let mut tree = Tree::new();
    let mut hashing = Hashing::new(file);
    let source = Unpacked::detect(&mut hashing);
    let source = source.map_err(|source| broken(ArchiveError::Read { offset: 0, source }))?;
    merge(source, Layering::Plain, &mut tree, spool).map_err(broken)?;
    // Bytes behind the end of the packed form belong to the file, too.
    io::copy(&mut hashing.by_ref(), &mut io::sink()).attempt("read", path)?;
    if tree.get(OCI_MARK).is_some() && tree.get("index.json").is_some() {
        return Err(kind("an OCI image (source = \"oci\")"));
    }
    Ok((tree, hashing.finish().0))
}

/// Adds the folders a guest needs. What is there under these names stays what it is. The root
/// folder is everybody's to enter, whatever private folder it was collected in.
fn complete(tree: &mut Tree, path: &Path) -> Result<(), RootfsError> {
    if tree.list(".").is_empty() {
        return Err(RootfsError::Empty { path: path.to_owned() });
    }
    tree.open_root();
    for (name, mode) in FOLDERS {
        if tree.get(name).is_none() {
            EntryPath::parse(name.as_bytes())
                .and_then(|at| {
                    let kind = NodeKind::Folder(std::collections::BTreeMap::new());
                    tree.put(&at, Metadata::of_root(mode), kind)
                })
                .map_err(|fault| RootfsError::Archive {
                    path: path.to_owned(),
                    source: ArchiveError::Entry { entry: shown(name.as_bytes()), fault },
                })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
