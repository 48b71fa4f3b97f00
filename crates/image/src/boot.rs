//! The kernel and modules of an image being built: a distribution's, unpacked, or those of
//! another image of the store.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::build::{self, BuildError};
use crate::error::{Attempt, FileError};
use crate::image::Image;
use crate::manifest::{Module, Part};
use crate::{Digest, kernel, modules};

/// Folder of the modules in an image.
const MODULES: &str = "modules";
/// File of the kernel as an ELF file.
const KERNEL: &str = "kernel";

/// Where the kernel of an image comes from.
#[derive(Debug)]
pub(crate) enum Boot {
    /// From a distribution. The files belong to others and are copied.
    Shipped {
        /// The kernel as shipped.
        kernel: PathBuf,
        /// The folder of its modules.
        modules: PathBuf,
        /// Its release.
        release: String,
    },
    /// From another image.
    Lent(Box<Image>),
}

/// A kernel and modules that are in an image's folder.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) kernel: Part,
    pub(crate) bzimage: Part,
    pub(crate) release: String,
    pub(crate) modules: Vec<Module>,
    pub(crate) groups: BTreeMap<String, Vec<String>>,
}

impl Boot {
    /// The image whose kernel it is, if it is another's.
    pub(crate) fn lender(&self) -> Option<Digest> {
        match self {
            Self::Shipped { .. } => None,
            Self::Lent(image) => Some(image.digest),
        }
    }

    /// Puts it into the folder of an image.
    pub(crate) fn put(self, image: &Path) -> Result<Put, BuildError> {
        let folder = image.join(MODULES);
        fs::create_dir(&folder).attempt("create", &folder)?;
        match self {
            Self::Shipped { kernel, modules, release } => ship(image, &kernel, &modules, release),
            Self::Lent(lender) => lend(image, &lender),
        }
    }
}

/// Copies a kernel and unpacks it and its modules.
fn ship(image: &Path, kernel: &Path, folder: &Path, release: String) -> Result<Put, BuildError> {
    let bzimage = build::copy(kernel, image, "bzImage")?;
    let path = image.join(&bzimage.file);
    let vmlinux = kernel::vmlinux(&fs::read(&path).attempt("read", &path)?)?;
    let kernel = build::write(image, KERNEL, &vmlinux)?;
    let selection = modules::select(folder)?;
    let modules = selection
        .modules
        .into_iter()
        .map(|(name, contents)| {
            let part = build::write(image, &format!("{MODULES}/{name}.ko"), &contents)?;
            Ok(Module { name, part })
        })
        .collect::<Result<_, FileError>>()?;
    Ok(Put { kernel, bzimage, release, modules, groups: selection.groups })
}

/// Copies what another image has, each part checked to be what that was built with.
fn lend(image: &Path, lender: &Image) -> Result<Put, BuildError> {
    let take = |part: &Part, file: &str| -> Result<Part, BuildError> {
        Ok(build::write(image, file, &lender.read(part)?)?)
    };
    let manifest = &lender.manifest;
    let modules = manifest.modules.iter().map(|module| {
        let part = take(&module.part, &format!("{MODULES}/{}.ko", module.name))?;
        Ok(Module { name: module.name.clone(), part })
    });
    Ok(Put {
        modules: modules.collect::<Result<_, BuildError>>()?,
        kernel: take(&manifest.parts.kernel, KERNEL)?,
        bzimage: take(&manifest.parts.bzimage, "bzImage")?,
        release: manifest.kernel_release.clone(),
        groups: manifest.module_groups.clone(),
    })
}
