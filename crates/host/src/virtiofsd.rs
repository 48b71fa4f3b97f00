//! The virtiofsd that is installed: the file server of shares.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use casemate_plan::facts::VirtiofsdFacts;

use crate::versions::{self, Version, is_program, search};

/// Where distributions keep it: Debian 13 and Fedora, Arch, and where QEMU had its own.
const DIRECTORIES: [&str; 3] = ["/usr/libexec", "/usr/lib", "/usr/lib/qemu"];

const NAME: &str = "virtiofsd";

/// Where versions are kept, in the cache directory.
const KEPT: &str = "virtiofsd.json";

/// Stands for the program in C that came with QEMU until 8.0, whose numbers are QEMU's.
const OF_QEMU: Version = (0, 0, 0);

/// The first that is new enough, in the directory of casemate's own programs, `search_path` and
/// where distributions keep it; else the first of any version.
pub fn find(own: &Path, search_path: &OsStr, cache: Option<&Path>) -> Option<VirtiofsdFacts> {
    let places = std::iter::once(own.join(NAME))
        .chain(search(search_path, Path::new(NAME)))
        .chain(DIRECTORIES.map(|directory| Path::new(directory).join(NAME)));
    let look = |path: PathBuf| {
        let version = versions::of(&path, cache, KEPT, parse)?;
        Some(VirtiofsdFacts { path, version: Some(version).filter(|&version| version != OF_QEMU) })
    };
    let mut first = None;
    for found in places.filter(is_program).filter_map(look) {
        if found.is_usable() {
            return Some(found);
        }
        first = first.or(Some(found));
    }
    first
}

/// `virtiofsd 1.14.0`, or `virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)` in C.
fn parse(text: &str) -> Option<Version> {
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "version", ..] => Some(OF_QEMU),
        [_, number, ..] => versions::parse_number(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn first_that_is_new_enough_is_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |place: &str, says: &str| {
            let path = directory.path().join(place).join(NAME);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
            path
        };
        let search_path =
            std::env::join_paths(["one", "two"].map(|name| directory.path().join(name)))
                .expect("a search path");
        let find = || find(&directory.path().join("own"), &search_path, None).expect("found");
        let old = write("one", "virtiofsd version 7.2.22 (Debian 1:7.2)");
        let new = write("two", "virtiofsd 1.13.2");
        assert_eq!(find(), VirtiofsdFacts { path: new, version: Some((1, 13, 2)) });
        write("two", "virtiofsd 1.10.1");
        let found = find();
        // The machine may have one that is new enough elsewhere.
        if !found.is_usable() {
            assert_eq!(found, VirtiofsdFacts { path: old, version: None });
        }
        let own = write("own", "virtiofsd 2.0.0");
        assert_eq!(find().path, own);
    }
}
