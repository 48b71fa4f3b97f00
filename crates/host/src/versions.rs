//! Programs of others: where they may be, and which version they say they are.
//!
//! Asking starts the program, so the answer is kept in the cache directory with path, time of change
//! and size of the program.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use crate::durable;

/// Major, minor and micro version.
pub(crate) type Version = (u32, u32, u32);

/// What is kept of one program.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kept {
    modified_ns: i64,
    size: u64,
    version: Version,
}

/// A file that this process may execute.
pub(crate) fn is_program(path: &PathBuf) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// Where a program of this name may be.
pub(crate) fn search<'a>(
    search_path: &'a OsStr,
    name: &'a Path,
) -> impl Iterator<Item = PathBuf> + 'a {
    std::env::split_paths(search_path)
        .filter(|directory| directory.is_absolute())
        .map(move |directory| directory.join(name))
}

/// What `program` says with `--version`, kept in the file `kept` of the cache directory. None when
/// it does not start or `parse` cannot understand it.
pub(crate) fn of(
    program: &Path,
    cache: Option<&Path>,
    kept: &str,
    parse: fn(&str) -> Option<Version>,
) -> Option<Version> {
    let metadata = fs::metadata(program).ok()?;
    let modified_ns =
        metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
    let file = cache.map(|directory| directory.join(kept));
    let matches = |kept: &Kept| (kept.modified_ns, kept.size) == (modified_ns, metadata.size());
    let kept = file.as_ref().and_then(|file| {
        durable::load::<BTreeMap<PathBuf, Kept>>(file).ok().flatten()?.remove(program)
    });
    if let Some(kept) = kept.filter(matches) {
        return Some(kept.version);
    }
    let version = ask(program, parse)?;
    if let Some(file) = file {
        let new = Kept { modified_ns, size: metadata.size(), version };
        let kept = durable::update(&file, |all: &mut BTreeMap<PathBuf, Kept>| {
            all.insert(program.into(), new);
        });
        if let Err(error) = kept {
            tracing::debug!("the version of {} is not kept: {error}", program.display());
        }
    }
    Some(version)
}

fn ask(program: &Path, parse: fn(&str) -> Option<Version>) -> Option<Version> {
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

/// `7.2.22`, `10.0`, `8.2-rc1`.
pub(crate) fn parse_number(number: &str) -> Option<Version> {
    let mut parts = number.split(['.', '-', '(']).map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}
