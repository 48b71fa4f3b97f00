//! The manifest: what an image consists of, byte for byte. Its own digest names the image.
//!
//! It holds no time and no path of the host, so that the same inputs give the same digest.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::verity::BLOCK;
use crate::{Digest, Recipe};

/// The only manifest format this crate writes and reads.
pub(crate) const FORMAT: u32 = 2;

/// What an image consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format, 2.
    pub format: u32,
    /// Larger for what was made from newer inputs: seconds since 1970 of the newest list of
    /// packages for a Debian image, 0 where the inputs have no time. An image with a smaller one
    /// than the last does not take its place unnoticed.
    pub serial: u64,
    /// Processor architecture, as `uname -m` names it.
    pub architecture: String,
    /// Release of the kernel, as `uname -r` gives it.
    pub kernel_release: String,
    /// What was asked for.
    pub recipe: Recipe,
    /// What that was resolved to.
    pub inputs: Inputs,
    /// The large files.
    pub parts: Parts,
    /// How the blocks of the root file system are checked when they are read.
    pub verity: Verity,
    /// Kernel modules, each after those it depends on.
    pub modules: Vec<Module>,
    /// Names of the modules each group needs, dependencies included.
    pub module_groups: BTreeMap<String, Vec<String>>,
    /// Installed packages, by name.
    pub packages: Vec<Package>,
}

/// What a recipe was resolved to when the image was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Codename of the release; empty when it is not made of packages.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suite: String,
    /// Packages asked for, the base set included.
    pub packages: Vec<String>,
    /// The kernel's packages, which are unpacked beside the root file system.
    pub kernel_packages: Vec<Package>,
    /// The time every file carries, in seconds since 1970.
    pub source_date_epoch: u64,
    /// Digest of what the root file system was read from, when it is not made of packages: of
    /// the archive as it is, of the OCI image's manifest, or, for a folder, of the normalized
    /// archive it comes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// The image whose kernel it has, when its root file system has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_image: Option<Digest>,
    /// Versions of the programs that built it.
    pub tools: BTreeMap<String, String>,
}

/// The large files of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The root file system, erofs, and behind it its dm-verity hash tree.
    pub root: Part,
    /// The kernel as an uncompressed ELF file, for a PVH boot.
    pub kernel: Part,
    /// The kernel as the distribution ships it, for engines that want that.
    pub bzimage: Part,
}

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its path within the image's directory.
    pub file: String,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub sha256: Digest,
}

/// dm-verity parameters of the root file system: SHA-256 over blocks of 4096 bytes, no salt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verity {
    /// Root hash.
    pub root_hash: Digest,
    /// Where in the root part the superblock of the hash tree is, in bytes; the file system ends
    /// there.
    pub hash_offset: u64,
}

impl Verity {
    /// Number of blocks of the file system.
    pub fn data_blocks(&self) -> u64 {
        self.hash_offset / BLOCK as u64
    }

    /// The block of the root part in which the tree begins, behind its superblock.
    pub fn hash_start(&self) -> u64 {
        self.data_blocks() + 1
    }
}

/// One kernel module, stored uncompressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name, as `/proc/modules` shows it.
    pub name: String,
    /// Its file.
    #[serde(flatten)]
    pub part: Part,
}

/// One installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The architecture it is for, or `all`.
    pub architecture: String,
}

impl Manifest {
    /// The bytes that are stored and whose digest names the image.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest has string keys only");
        bytes.push(b'\n');
        bytes
    }

    /// All files but the manifest itself.
    pub fn all_parts(&self) -> impl Iterator<Item = &Part> {
        let Parts { root, kernel, bzimage } = &self.parts;
        let modules = self.modules.iter().map(|module| &module.part);
        [root, kernel, bzimage].into_iter().chain(modules)
    }

    /// The same image but for the time of its inputs.
    pub(crate) fn differs_only_in_serial(&self, other: &Self) -> bool {
        Self { serial: 0, ..self.clone() } == Self { serial: 0, ..other.clone() }
    }

    /// The first file that is not within the image's directory, if there is one: a manifest
    /// may come from elsewhere.
    pub(crate) fn stray_file(&self) -> Option<&str> {
        let mut files = self.all_parts().map(|part| part.file.as_str());
        let stray = |file: &&str| {
            let mut components = Path::new(file).components();
            let inside = components.all(|component| matches!(component, Component::Normal(_)));
            file.is_empty() || !inside
        };
        let mut names = self.modules.iter().map(|module| module.name.as_str());
        files.find(stray).or_else(|| names.find(|name| name.contains('/') || name.contains('\n')))
    }
}
