//! The QEMU that is installed: where, which version, and where its firmware is.
//!
//! Asking QEMU for its version takes some 30 ms, so the answer is kept in the cache directory with
//! path, time of change and size of the program.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use casemate_plan::facts::QemuFacts;
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use crate::durable;

/// Where distributions keep firmware and option ROMs for QEMU.
const DATA_DIRECTORIES: [&str; 6] = [
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/share/seavgabios",
    "/usr/share/qemu-kvm",
    "/usr/share/ipxe/qemu",
    "/usr/lib/ipxe/qemu",
];

/// Where Red Hat's distributions keep the only QEMU they have.
const QEMU_KVM: &str = "/usr/libexec/qemu-kvm";

/// What is kept of one program.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kept {
    modified_ns: i64,
    size: u64,
    version: (u32, u32, u32),
}

/// The QEMU for `architecture` (as uname(2) has it): the configured one, or the first in
/// `search_path`. None when there is none or it does not tell its version.
pub fn find(
    architecture: &str,
    configured: Option<&Path>,
    search_path: &OsStr,
    cache: Option<&Path>,
) -> Option<QemuFacts> {
    let name = format!("qemu-system-{}", name_of(architecture));
    let is_program = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let path = match configured {
        Some(path) if path.is_absolute() => Some(path.to_owned()).filter(is_program),
        Some(name) => search(search_path, name).find(is_program),
        None => {
            search(search_path, Path::new(&name)).chain([PathBuf::from(QEMU_KVM)]).find(is_program)
        }
    }?;
    let version = version(&path, cache)?;
    let data_directories = data_directories(&path);
    Some(QemuFacts { path, version, data_directories })
}

/// Where a program of this name may be.
fn search<'a>(search_path: &'a OsStr, name: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    std::env::split_paths(search_path)
        .filter(|directory| directory.is_absolute())
        .map(move |directory| directory.join(name))
}

/// QEMU's name of an architecture where it differs from the kernel's.
fn name_of(architecture: &str) -> &str {
    match architecture {
        "i486" | "i586" | "i686" => "i386",
        "ppc64le" => "ppc64",
        "armv7l" => "arm",
        other => other,
    }
}

/// Those that exist, the ones of this QEMU's own prefix first.
fn data_directories(program: &Path) -> Vec<PathBuf> {
    let prefix = fs::canonicalize(program).ok().and_then(|path| {
        let prefix = path.parent()?.parent()?;
        Some(prefix.join("share/qemu"))
    });
    let mut found: Vec<PathBuf> = Vec::new();
    for directory in prefix.into_iter().chain(DATA_DIRECTORIES.map(PathBuf::from)) {
        if directory.is_dir() && !found.contains(&directory) {
            found.push(directory);
        }
    }
    found
}

fn version(program: &Path, cache: Option<&Path>) -> Option<(u32, u32, u32)> {
    let metadata = fs::metadata(program).ok()?;
    let modified_ns =
        metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
    let file = cache.map(|directory| directory.join("qemu.json"));
    let matches = |kept: &Kept| (kept.modified_ns, kept.size) == (modified_ns, metadata.size());
    let kept = file.as_ref().and_then(|file| {
        durable::load::<BTreeMap<PathBuf, Kept>>(file).ok().flatten()?.remove(program)
    });
    if let Some(kept) = kept.filter(matches) {
        return Some(kept.version);
    }
    let version = ask(program)?;
    if let Some(file) = file {
        let new = Kept { modified_ns, size: metadata.size(), version };
        let kept = durable::update(&file, |all: &mut BTreeMap<PathBuf, Kept>| {
            all.insert(program.into(), new);
        });
        if let Err(error) = kept {
            tracing::debug!("the version of QEMU is not kept: {error}");
        }
    }
    Some(version)
}

fn ask(program: &Path) -> Option<(u32, u32, u32)> {
    let output = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .inspect_err(|error| tracing::warn!("could not start {}: {error}", program.display()))
        .ok()?;
    let version = parse(&String::from_utf8_lossy(&output.stdout));
    if version.is_none() {
        tracing::warn!("could not understand the version that {} prints", program.display());
    }
    version
}

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
fn parse(text: &str) -> Option<(u32, u32, u32)> {
    let number = text.split_once("version ")?.1.split_whitespace().next()?;
    let mut parts = number.split(['.', '-', '(']).map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_of_several_distributions_are_understood() {
        for (text, version) in [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n", (7, 2, 22)),
            ("QEMU emulator version 10.0.2\nCopyright (c) 2003-2025\n", (10, 0, 2)),
            ("QEMU emulator version 9.1.50 (v9.1.0-1-gabc)\n", (9, 1, 50)),
            ("QEMU emulator version 8.2-rc1\n", (8, 2, 0)),
        ] {
            assert_eq!(parse(text), Some(version), "{text}");
        }
        assert_eq!(parse("something else"), None);
    }

    #[test]
    fn version_is_asked_for_once_until_the_program_changes() {
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("qemu-system-x86_64");
        let write = |version: &str| {
            let log = directory.path().join("log");
            let text = format!(
                "#!/bin/sh\necho x >>{}\necho QEMU emulator version {version}\n",
                log.display()
            );
            fs::write(&program, text).expect("written");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
        };
        let asked =
            || fs::read_to_string(directory.path().join("log")).map_or(0, |log| log.len() / 2);
        let find = || {
            let found = find("x86_64", None, directory.path().as_os_str(), Some(directory.path()));
            found.expect("found").version
        };
        write("7.2.1");
        assert_eq!((find(), find(), asked()), ((7, 2, 1), (7, 2, 1), 1));
        write("10.0.12");
        assert_eq!((find(), asked()), ((10, 0, 12), 2));
    }

    #[test]
    fn configured_program_that_is_none_is_not_replaced_by_another() {
        let configured = Some(Path::new("/no/such/qemu"));
        assert_eq!(find("x86_64", configured, OsStr::new("/usr/bin"), None), None);
    }
}
