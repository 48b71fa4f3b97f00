//! Images made up on the spot, and stores for them: nothing is installed, everything else is real.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Store;
use crate::build::{Boot, Raw, assemble};
use crate::decompress::samples as compressed;
use crate::manifest::Inputs;
use crate::recipe::{Debian, Source};
use crate::{Image, ImageName, Recipe, kernel, modinfo};

const MODULES: [(&str, &str); 5] = [
    ("virtio_blk", ""),
    ("erofs", "libcrc32c"),
    ("overlay", ""),
    ("libcrc32c", ""),
    ("vmw_vsock_virtio_transport", ""),
];

pub(crate) fn recipe(packages: &[&str]) -> Recipe {
    Recipe {
        source: Source::Debian(Debian {
            packages: packages.iter().map(|name| (*name).to_owned()).collect(),
            ..Debian::default()
        }),
        size_limit: None,
    }
}

pub(crate) fn name() -> ImageName {
    ImageName::new("debian").unwrap()
}

/// Makes what a source would, with the recipe's digest as the root file system.
pub(crate) fn raw(work: &Path, recipe: &Recipe) -> Raw {
    let vmlinux = b"\x7fELF made-up".repeat(20);
    let bzimage = kernel::samples::bzimage(&compressed::zstd(&vmlinux), vmlinux.len() as u32);
    fs::write(work.join("vmlinuz"), bzimage).unwrap();
    fs::write(work.join("root"), recipe.digest().to_string()).unwrap();
    let modules = work.join("modules");
    fs::create_dir_all(modules.join("kernel")).unwrap();
    fs::write(modules.join("modules.builtin"), "kernel/virtio_pci.ko\n").unwrap();
    for (name, depends) in MODULES {
        let info = [format!("depends={depends}"), format!("name={name}")];
        let module = modinfo::samples::module(&[&info[0], &info[1]]);
        let path = modules.join(format!("kernel/{name}.ko.xz"));
        fs::write(path, compressed::xz(&module)).unwrap();
    }
    Raw {
        root: work.join("root"),
        boot: Boot::Shipped { kernel: work.join("vmlinuz"), modules, release: "6.12.1".into() },
        architecture: "x86_64".into(),
        inputs: Inputs {
            suite: "bookworm".into(),
            packages: Vec::new(),
            kernel_packages: Vec::new(),
            source_date_epoch: 1,
            content: None,
            kernel_image: None,
            tools: BTreeMap::new(),
        },
        serial: 7,
        packages: Vec::new(),
    }
}

pub(crate) fn build(store: &Store, recipe: &Recipe) -> Image {
    let build = store.build_with(&name(), recipe, &mut |_| (), |scratch, progress| {
        let raw = raw(&scratch.work()?, recipe);
        assemble(&scratch.image(), recipe, raw, progress)
    });
    build.unwrap()
}

pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
}

pub(crate) fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    Fixture { directory, store }
}

pub(crate) fn files(folder: PathBuf) -> usize {
    fs::read_dir(folder).unwrap().count()
}
