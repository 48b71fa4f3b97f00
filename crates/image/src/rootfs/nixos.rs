//! A NixOS system: a store path that is built, or a flake that Nix builds; with everything it
//! refers to, as `/nix/store` of an image.
//!
//! Its `init` becomes `/sbin/init`, which makes `/etc` and the rest at each boot, so it takes
//! `init = "systemd"`. Kernel and modules are those of the system. The programs `nix` and
//! `nix-store` do what only Nix knows; what they print is checked before it is used.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::{EntryPath, Metadata, NodeKind, Spool, Tree};
use crate::command::Tool;
use crate::error::Attempt;
use crate::recipe::Nixos;

use super::{RootfsError, folder};

const NIX: Tool = Tool { program: "nix", package: "nix-bin" };
const NIX_STORE: Tool = Tool { program: "nix-store", package: "nix-bin" };

/// Where the store is in a guest.
const STORE: &str = "nix/store";

/// Store paths a system may refer to. A desktop has some three thousand.
const MOST_PATHS: usize = 100_000;

/// A system that is built.
#[derive(Debug)]
pub(super) struct System {
    /// Its files, at `nix/store`, and `sbin/init`.
    pub(super) tree: Tree,
    /// Where it is in the tree.
    pub(super) place: String,
}

/// Reads the system, after building it if it is a flake's.
pub(super) fn read(source: &Nixos, spool: &mut Spool) -> Result<System, RootfsError> {
    let path = &source.rootfs.path;
    let top = if path.join("flake.nix").is_file() {
        build(path, source.attribute.as_deref())?
    } else {
        fs::canonicalize(path).attempt("open", path)?
    };
    for part in ["init", "kernel", "kernel-modules"] {
        if top.join(part).symlink_metadata().is_err() {
            return Err(refused(
                path,
                &format!("it has neither flake.nix nor, as a system has, {part}"),
            ));
        }
    }
    let (Some(store), Some(name)) = (top.parent(), top.file_name().and_then(|name| name.to_str()))
    else {
        return Err(refused(path, "it is in no store"));
    };
    let names = closure(path, &top, store)?;
    let mut tree = folder::read_some(store, &names, STORE, spool)?;
    let place = format!("{STORE}/{name}");
    let init = NodeKind::Symlink(format!("/{place}/init").into_bytes());
    EntryPath::parse(b"sbin/init")
        .and_then(|at| tree.put(&at, Metadata::of_root(0o777), init))
        .map_err(|fault| refused(path, &fault.to_string()))?;
    Ok(System { tree, place })
}

/// Has Nix build the system of a flake; returns its store path.
fn build(flake: &Path, attribute: Option<&str>) -> Result<PathBuf, RootfsError> {
    let attribute = attribute.unwrap_or_default();
    let installable = format!("{}#{attribute}", flake.display());
    let arguments = [
        "--extra-experimental-features",
        "nix-command flakes",
        "build",
        "--no-link",
        "--print-out-paths",
        "--",
        &installable,
    ];
    // Its progress comes on the same pipe as the path, which is the last line of it.
    let mut last = None;
    NIX.command(arguments)?.run(|line| {
        if line.starts_with('/') {
            last = Some(PathBuf::from(line));
        }
    })?;
    last.ok_or_else(|| refused(flake, "nix built it and did not say where"))
}

/// The names, in the store, of everything the system refers to, itself included.
fn closure(path: &Path, top: &Path, store: &Path) -> Result<Vec<OsString>, RootfsError> {
    let arguments = ["--query".as_ref(), "--requisites".as_ref(), "--".as_ref(), top.as_os_str()];
    let mut names = BTreeSet::new();
    let mut strange = None;
    NIX_STORE.command(arguments)?.run(|line| {
        let found = Path::new(line);
        match (found.parent(), found.file_name()) {
            (Some(parent), Some(name)) if parent == store && names.len() < MOST_PATHS => {
                names.insert(name.to_owned());
            }
            _ => strange = Some(line.to_owned()),
        }
    })?;
    if let Some(line) = strange {
        let store = store.display();
        return Err(refused(
            path,
            &format!("nix-store says `{line}`, which is no path in {store}"),
        ));
    }
    if !top.file_name().is_some_and(|name| names.contains(name)) {
        return Err(refused(path, "nix-store does not know it"));
    }
    Ok(names.into_iter().collect())
}

fn refused(path: &Path, why: &str) -> RootfsError {
    RootfsError::Nixos { path: path.to_owned(), why: why.to_owned() }
}
