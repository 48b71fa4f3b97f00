//! The QEMU that is installed: where, which version, and where its firmware is.
//!
//! Asking QEMU for its version takes some 30 ms, so the answer is kept (`versions`).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use casemate_plan::facts::QemuFacts;

use crate::versions::{self, is_program, search};

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

/// Where versions are kept, in the cache directory.
const KEPT: &str = "qemu.json";

/// The QEMU for `architecture` (as uname(2) has it): the configured one, or the first in
/// `search_path`. None when there is none or it does not tell its version.
pub fn find(
    architecture: &str,
    configured: Option<&Path>,
    search_path: &OsStr,
    cache: Option<&Path>,
) -> Option<QemuFacts> {
    let name = format!("qemu-system-{}", name_of(architecture));
    let path = match configured {
        Some(path) if path.is_absolute() => Some(path.to_owned()).filter(is_program),
        Some(name) => search(search_path, name).find(is_program),
        None => {
            search(search_path, Path::new(&name)).chain([PathBuf::from(QEMU_KVM)]).find(is_program)
        }
    }?;
    let version = versions::of(&path, cache, KEPT, parse)?;
    let data_directories = data_directories(&path);
    Some(QemuFacts { path, version, data_directories })
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

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
fn parse(text: &str) -> Option<(u32, u32, u32)> {
    let number = text.split_once("version ")?.1.split_whitespace().next()?;
    versions::parse_number(number)
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
