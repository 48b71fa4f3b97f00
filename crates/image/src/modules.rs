//! Chooses the kernel modules an image keeps, and the order they load in.
//!
//! Modules come in named groups, so that an initrd holds only what one boot needs. What the
//! kernel has built in is left out; what depends on another module comes after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::decompress::{DecompressError, decompress};
use crate::error::{Attempt, FileError};
use crate::modinfo::{self, normal_name};

/// The group every boot loads: the root disk, its file system and the overlay on it.
pub const BOOT_GROUP: &str = "boot";

/// A group: the modules without which it is useless, and those it uses where they exist.
struct Group {
    name: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const GROUPS: [Group; 13] = [
    Group {
        name: BOOT_GROUP,
        required: &["virtio_pci", "virtio_blk", "erofs", "overlay"],
        optional: &["crc32c_generic"],
    },
    Group { name: "console", required: &["virtio_console"], optional: &[] },
    Group { name: "mmio", required: &["virtio_mmio"], optional: &[] },
    Group { name: "verity", required: &["dm_mod", "dm_verity"], optional: &["sha256_generic"] },
    Group { name: "vsock", required: &["vmw_vsock_virtio_transport"], optional: &[] },
    Group { name: "network", required: &["virtio_net"], optional: &[] },
    Group { name: "shares", required: &["virtiofs"], optional: &[] },
    Group {
        name: "volumes",
        required: &["dm_mod", "dm_crypt", "ext4"],
        optional: &["xts", "aes_generic", "aesni_intel", "sha256_generic"],
    },
    Group { name: "ext4", required: &["ext4"], optional: &[] },
    Group { name: "balloon", required: &["virtio_balloon"], optional: &[] },
    Group {
        name: "routing",
        required: &["nf_tables", "nf_conntrack", "nf_nat"],
        optional: &[
            "nft_ct",
            "nft_chain_nat",
            "nft_masq",
            "nft_redir",
            "nft_reject",
            "nft_reject_inet",
            "nft_limit",
            "nft_log",
            "nft_fib_inet",
            "tun",
            "wireguard",
        ],
    },
    Group {
        name: "disks",
        required: &["virtio_scsi"],
        optional: &["sd_mod", "sr_mod", "isofs", "vfat", "nls_ascii", "squashfs", "loop"],
    },
    Group { name: "graphics", required: &["virtio_gpu"], optional: &["virtio_input"] },
];

/// Kernel modules that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// A file or folder of the kernel package.
    #[error(transparent)]
    File(#[from] FileError),
    /// A module cannot be unpacked.
    #[error("could not unpack the kernel module {}", path.display())]
    Unpack {
        /// The module's file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecompressError,
    },
    /// A module has no readable description.
    #[error("could not read the description of the kernel module {}", path.display())]
    Description {
        /// The module's file.
        path: PathBuf,
    },
    /// The kernel lacks what every boot needs.
    #[error("could not find the kernel module {0}, which every boot needs")]
    Missing(String),
    /// Modules depend on each other in a circle.
    #[error("could not order the kernel modules: {0} depends on itself")]
    Circle(String),
}

/// The modules an image keeps.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Name and uncompressed contents, each after those it depends on.
    pub(crate) modules: Vec<(String, Vec<u8>)>,
    /// Names by group, in load order. A group whose required modules this kernel lacks is
    /// absent; one that is built in altogether is empty.
    pub(crate) groups: BTreeMap<String, Vec<String>>,
}

/// Chooses from the `lib/modules/RELEASE` folder of a kernel package.
pub(crate) fn select(folder: &Path) -> Result<Selection, ModuleError> {
    let mut kernel = KernelModules::open(folder)?;
    let mut selection = Selection::default();
    for group in &GROUPS {
        if let Some(name) = group.required.iter().find(|name| !kernel.knows(name)) {
            if group.name == BOOT_GROUP {
                return Err(ModuleError::Missing((*name).to_owned()));
            }
            continue;
        }
        let mut chosen = Vec::new();
        for name in group.required.iter().chain(group.optional) {
            kernel.add(name, &mut chosen, &mut Vec::new())?;
        }
        selection.groups.insert(group.name.to_owned(), chosen);
    }
    selection.modules = kernel.loaded;
    Ok(selection)
}

/// The modules of one kernel, and those of them already chosen.
struct KernelModules {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    loaded: Vec<(String, Vec<u8>)>,
    depends: BTreeMap<String, Vec<String>>,
}

impl KernelModules {
    fn open(folder: &Path) -> Result<Self, ModuleError> {
        let list = folder.join("modules.builtin");
        let built_in = fs::read_to_string(&list)
            .attempt("read", &list)?
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        let mut files = BTreeMap::new();
        collect(&folder.join("kernel"), &mut files)?;
        Ok(Self { files, built_in, loaded: Vec::new(), depends: BTreeMap::new() })
    }

    fn knows(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.built_in.contains(name)
    }

    /// Appends `name` to `chosen`, after what it depends on. `path` is how we came here.
    fn add(
        &mut self,
        name: &str,
        chosen: &mut Vec<String>,
        path: &mut Vec<String>,
    ) -> Result<(), ModuleError> {
        if chosen.iter().any(|other| other == name) || !self.files.contains_key(name) {
            return Ok(());
        }
        if path.iter().any(|other| other == name) {
            return Err(ModuleError::Circle(name.to_owned()));
        }
        let contents = match self.depends.contains_key(name) {
            true => None,
            false => Some(self.load(name)?),
        };
        path.push(name.to_owned());
        for needed in self.depends[name].clone() {
            self.add(&needed, chosen, path)?;
        }
        path.pop();
        chosen.push(name.to_owned());
        self.loaded.extend(contents.map(|contents| (name.to_owned(), contents)));
        Ok(())
    }

    /// Unpacks a module and notes what it needs, hard dependencies checked to be there.
    fn load(&mut self, name: &str) -> Result<Vec<u8>, ModuleError> {
        let path = self.files[name].clone();
        let packed = fs::read(&path).attempt("read", &path)?;
        let contents = match decompress(&packed) {
            Ok(contents) => contents,
            Err(source) => return Err(ModuleError::Unpack { path, source }),
        };
        let Some(info) = modinfo::read(&contents).filter(|info| info.name == name) else {
            return Err(ModuleError::Description { path });
        };
        if let Some(missing) = info.depends.iter().find(|needed| !self.knows(needed)) {
            return Err(ModuleError::Missing(missing.clone()));
        }
        let mut needed = info.wants;
        needed.extend(info.depends);
        self.depends.insert(name.to_owned(), needed);
        Ok(contents)
    }
}

/// Adds all modules below `folder`, by name.
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).attempt("list", folder)? {
        let entry = entry.attempt("list", folder)?;
        let path = entry.path();
        if entry.file_type().attempt("inspect", &path)?.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `kernel/drivers/md/dm-mod.ko.xz` is `dm_mod`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, suffix) = file.split_once(".ko")?;
    let known = ["", ".xz", ".zst"].contains(&suffix);
    known.then(|| normal_name(stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decompress::samples::xz;
    use crate::modinfo::samples::module;

    /// Writes a kernel's module folder: built-in names, then modules with their dependencies.
    fn kernel(built_in: &[&str], modules: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let list: String =
            built_in.iter().map(|name| format!("kernel/some/where/{name}.ko\n")).collect();
        fs::write(folder.path().join("modules.builtin"), list).unwrap();
        let deep = folder.path().join("kernel/drivers/deep");
        fs::create_dir_all(&deep).unwrap();
        for (name, depends) in modules {
            let info = [format!("depends={depends}"), format!("name={}", normal_name(name))];
            let contents = xz(&module(&[&info[0], &info[1]]));
            fs::write(deep.join(format!("{name}.ko.xz")), contents).unwrap();
        }
        folder
    }

    const BASE: [(&str, &str); 4] =
        [("virtio_blk", ""), ("erofs", "libcrc32c"), ("overlay", ""), ("libcrc32c", "")];

    #[test]
    fn dependencies_come_first_and_built_in_modules_not_at_all() {
        let mut modules = BASE.to_vec();
        modules.extend([
            ("dm-verity", "dm-mod,dm-bufio"),
            ("dm-bufio", "dm-mod"),
            ("dm-mod", ""),
            ("unrelated", ""),
        ]);
        let folder = kernel(&["virtio_pci", "virtiofs"], &modules);
        let selection = select(folder.path()).unwrap();
        let names: Vec<&str> = selection.modules.iter().map(|(name, _)| &**name).collect();
        let expected = "virtio_blk libcrc32c erofs overlay dm_mod dm_bufio dm_verity";
        assert_eq!(names.join(" "), expected);
        assert_eq!(selection.groups["verity"], ["dm_mod", "dm_bufio", "dm_verity"]);
        assert!(selection.groups["shares"].is_empty(), "built in");
        assert!(!selection.groups.contains_key("vsock"), "not there");
    }

    #[test]
    fn a_group_names_modules_another_group_brought() {
        let mut modules = BASE.to_vec();
        modules.extend([("nf_tables", "nfnetlink,libcrc32c"), ("nfnetlink", "")]);
        let folder = kernel(&["virtio_pci", "nf_conntrack", "nf_nat"], &modules);
        let selection = select(folder.path()).unwrap();
        assert_eq!(selection.groups["routing"], ["nfnetlink", "libcrc32c", "nf_tables"]);
    }

    #[test]
    fn a_kernel_that_cannot_boot_is_refused() {
        let folder = kernel(&["virtio_pci"], &BASE[1..]);
        let error = select(folder.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not find the kernel module virtio_blk, which every boot needs"
        );
    }

    #[test]
    fn a_missing_dependency_is_named() {
        let folder = kernel(&["virtio_pci"], &BASE[..3]);
        let error = select(folder.path()).unwrap_err();
        assert!(matches!(error, ModuleError::Missing(name) if name == "libcrc32c"));
    }

    #[test]
    fn circles_are_refused() {
        let mut modules = BASE.to_vec();
        modules[3] = ("libcrc32c", "erofs");
        let folder = kernel(&["virtio_pci"], &modules);
        assert!(matches!(
            select(folder.path()),
            Err(ModuleError::Circle(name)) if name == "erofs"
        ));
    }
}
