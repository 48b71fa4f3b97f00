//! The kernel of a root file system that has one: taken out of the tree as it was read, so that
//! no permission or link in it matters.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::archive::{ArchiveError, Contents, NodeKind, Spool, Tree};
use crate::build::Boot;
use crate::error::Attempt;

/// Where modules are, before and after the merge of `/usr`.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];
/// Folders of a kernel's modules are not nested deeper than this.
const MAX_DEPTH: usize = 32;

/// Links followed for one path, as Linux does (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Entries in the folders of a kernel's modules; a distribution has some six thousand.
const MAX_MODULES: usize = 50_000;

/// A kernel with modules of the same release.
#[derive(Debug)]
struct Found {
    release: String,
    image: Contents,
    /// Path of its modules' folder in the tree.
    modules: String,
}

/// Writes the newest kernel of the tree that has modules, and those, into `folder`; none when
/// there is none.
pub(super) fn extract(
    tree: &Tree,
    spool: &Spool,
    folder: &Path,
) -> Result<Option<Boot>, ArchiveError> {
    let Some(found) = find(tree) else { return Ok(None) };
    let modules = folder.join("modules");
    fs::create_dir_all(&modules).attempt("create", &modules)?;
    let kernel = folder.join("vmlinuz");
    copy(spool, found.image, &kernel)?;
    let list = format!("{}/modules.builtin", found.modules);
    if let Some(NodeKind::File(contents)) = tree.get(&list).map(|node| &node.kind) {
        copy(spool, *contents, &modules.join("modules.builtin"))?;
    }
    copy_modules(tree, spool, &format!("{}/kernel", found.modules), &modules.join("kernel"), 0)?;
    Ok(Some(Boot::Shipped { kernel, modules, release: found.release }))
}

/// The same for a NixOS system, which names its kernel and modules, all of them links.
pub(super) fn extract_nixos(
    tree: &Tree,
    spool: &Spool,
    system: &str,
    folder: &Path,
) -> Result<Option<Boot>, ArchiveError> {
    let follow = |path: &str| follow(tree, path);
    let Some(NodeKind::File(image)) = follow(&format!("{system}/kernel")).map(|(_, kind)| kind)
    else {
        return Ok(None);
    };
    let Some((releases, _)) = follow(&format!("{system}/kernel-modules/lib/modules")) else {
        return Ok(None);
    };
    let names = tree.list(&releases).into_iter();
    let newest = names
        .filter_map(|(name, _)| std::str::from_utf8(name).ok())
        .filter(|name| is_release(name))
        .max_by_key(|name| version(name));
    let Some(release) = newest.map(str::to_owned) else { return Ok(None) };
    let modules = folder.join("modules");
    fs::create_dir_all(&modules).attempt("create", &modules)?;
    let kernel = folder.join("vmlinuz");
    copy(spool, *image, &kernel)?;
    let of_release = format!("{releases}/{release}");
    let list = follow(&format!("{of_release}/modules.builtin"));
    if let Some((_, NodeKind::File(contents))) = list {
        copy(spool, *contents, &modules.join("modules.builtin"))?;
    }
    let mut budget = MAX_MODULES;
    let to = modules.join("kernel");
    copy_linked(tree, spool, &format!("{of_release}/kernel"), &to, 0, &mut budget)?;
    Ok(Some(Boot::Shipped { kernel, modules, release }))
}

/// Where a path of the tree leads, links followed, and what is there. Links go where they would in
/// a guest.
fn follow<'t>(tree: &'t Tree, path: &str) -> Option<(String, &'t NodeKind)> {
    let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut behind: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                behind.pop();
                continue;
            }
            _ => behind.push(name),
        }
        if let NodeKind::Symlink(target) = &tree.get(&behind.join("/"))?.kind {
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            let target = std::str::from_utf8(target).ok()?;
            if target.starts_with('/') {
                behind.clear();
            } else {
                behind.pop();
            }
            ahead.extend(target.split('/').rev().map(str::to_owned));
        }
    }
    let place = behind.join("/");
    let node = tree.get(&place)?;
    Some((place, &node.kind))
}

/// As [`copy_modules`], with links followed; no more than `budget` entries.
fn copy_linked(
    tree: &Tree,
    spool: &Spool,
    from: &str,
    to: &Path,
    depth: usize,
    budget: &mut usize,
) -> Result<(), ArchiveError> {
    let Some((from, NodeKind::Folder(_))) = follow(tree, from) else { return Ok(()) };
    fs::create_dir_all(to).attempt("create", to)?;
    for (name, _) in tree.list(&from) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        *budget = match budget.checked_sub(1) {
            Some(left) => left,
            None => return Ok(()),
        };
        match follow(tree, &format!("{from}/{name}")) {
            Some((_, NodeKind::File(contents))) if name.contains(".ko") => {
                copy(spool, *contents, &to.join(name))?;
            }
            Some((below, NodeKind::Folder(_))) if depth < MAX_DEPTH => {
                copy_linked(tree, spool, &below, &to.join(name), depth + 1, budget)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The kernel with the highest release of those that are whole.
fn find(tree: &Tree) -> Option<Found> {
    let boot = tree.list("boot").into_iter().filter_map(|(name, node)| {
        let release = std::str::from_utf8(name).ok()?.strip_prefix("vmlinuz-")?;
        Some((release.to_owned(), node))
    });
    let beside = MODULES.iter().flat_map(|parent| {
        tree.list(parent).into_iter().filter_map(move |(name, _)| {
            let release = std::str::from_utf8(name).ok()?;
            let node = tree.get(&format!("{parent}/{release}/vmlinuz"))?;
            Some((release.to_owned(), node))
        })
    });
    let whole = boot.chain(beside).filter_map(|(release, node)| {
        let NodeKind::File(image) = node.kind else { return None };
        let modules = MODULES.iter().map(|parent| format!("{parent}/{release}"));
        let modules = modules.into_iter().find(|modules| {
            let list = tree.get(&format!("{modules}/modules.builtin"));
            is_release(&release) && matches!(list.map(|node| &node.kind), Some(NodeKind::File(_)))
        })?;
        Some(Found { release, image, modules })
    });
    whole.max_by_key(|found| version(&found.release))
}

/// A release as `uname -r` gives it.
fn is_release(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+~".contains(&byte);
    text.bytes().all(plain) && text.starts_with(|first: char| first.is_ascii_digit())
}

/// The numbers of a release, which order it; then its text.
fn version(release: &str) -> (Vec<u64>, String) {
    let numbers = release.split(|other: char| !other.is_ascii_digit());
    let numbers = numbers.filter(|digits| !digits.is_empty());
    (numbers.map(|digits| digits.parse().unwrap_or(u64::MAX)).collect(), release.to_owned())
}

/// Copies the modules in a folder of the tree, folders and all; links are left out.
fn copy_modules(
    tree: &Tree,
    spool: &Spool,
    from: &str,
    to: &Path,
    depth: usize,
) -> Result<(), ArchiveError> {
    fs::create_dir_all(to).attempt("create", to)?;
    for (name, node) in tree.list(from) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        match &node.kind {
            NodeKind::File(contents) if name.contains(".ko") => {
                copy(spool, *contents, &to.join(name))?;
            }
            NodeKind::Folder(_) if depth < MAX_DEPTH => {
                copy_modules(tree, spool, &format!("{from}/{name}"), &to.join(name), depth + 1)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn copy(spool: &Spool, contents: Contents, path: &Path) -> Result<(), ArchiveError> {
    let mut file = File::create_new(path).attempt("create", path)?;
    io::copy(&mut spool.open(contents), &mut file).attempt("write", path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_their_numbers() {
        assert!(version("6.12.9-1-amd64") < version("6.12.10-1-amd64"));
        assert!(version("6.9.0") < version("6.12.0"));
        assert!(version("6.12.0-a") < version("6.12.0-b"));
    }

    #[test]
    fn what_is_no_release_is_no_kernel() {
        for text in ["", "linux", "6.1 x", "..", "6/1", "6.1\n"] {
            assert!(!is_release(text), "{text:?}");
        }
        assert!(is_release("6.12.57+deb12-cloud-amd64"));
    }
}
