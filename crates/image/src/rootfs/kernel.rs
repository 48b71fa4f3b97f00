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
