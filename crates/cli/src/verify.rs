//! `verify`: whether casemate's own files are those of a baseline: configuration, policy, programs and
//! images.
//!
//! The baseline is a file in the state directory. Whoever may write there may write another; so its
//! digest is a record of the audit log, which can be sent elsewhere as it is written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use casemate_audit::{Event, Reader};
use casemate_host::durable;
use casemate_host::facts::{self, Sources};
use casemate_image::Digest;
use casemate_supervise::policy::{self, Place};
use casemate_supervise::prepare::World;
use casemate_wire::text::harmless_line;
use serde::{Deserialize, Serialize};

use crate::arguments::Verify;
use crate::failure::Problem;
use crate::{audit, print_json};

/// The record of a baseline.
const RECORDED: &str = "baseline-recorded";

/// Longest name that is shown, in bytes.
const SHOWN: usize = 512;

/// What was found, by what it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Baseline {
    /// casemate's version.
    version: String,
    /// Files, by path.
    files: BTreeMap<PathBuf, Entry>,
    /// Names of images, and the digest each stands for.
    images: BTreeMap<String, String>,
}

/// A file as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    /// What it is to casemate.
    of: Kind,
    /// SHA-256 of its content, 64 hexadecimal digits.
    sha256: String,
    /// Permission bits.
    mode: u32,
    /// Owner's user id.
    owner: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Configuration,
    Policy,
    Program,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Policy => "policy",
            Self::Program => "program",
        }
    }
}

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Drift {
    /// `configuration`, `policy`, `program`, `image` or `baseline`.
    of: &'static str,
    /// Its path or name.
    what: String,
    /// What happened to it.
    how: String,
}

/// `casemate verify`.
pub(crate) fn verify(world: &World, arguments: &Verify) -> Result<u8, Problem> {
    let state = world
        .places
        .state()
        .map_err(|error| Problem::new("there is no place for a baseline").because(&error))?;
    let path = state.join("baseline.json");
    let found = collect(world)?;
    if arguments.record {
        return record(world, &path, &found);
    }
    let failed = |error: &dyn std::error::Error| {
        Problem::new(format!("could not read the baseline {}", path.display())).because(error)
    };
    let known: Option<Baseline> = durable::load(&path).map_err(|error| {
        failed(&error).hint("if the files are as they should be: casemate verify --record")
    })?;
    let Some(known) = known else {
        return Err(Problem::new("there is no baseline to compare with")
            .hint("when all is as it should be, record one: casemate verify --record"));
    };
    let witnessed = witnessed(world, &path).map_err(|error| failed(&error))?;
    let mut drift: Vec<Drift> = witnessed.into_iter().collect();
    drift.extend(compare(&known, &found));
    drift.extend(damaged(world, &found)?);
    let code = u8::from(!drift.is_empty());
    if arguments.json {
        print_json(&serde_json::json!({
            "files": found.files.len(), "images": found.images.len(), "drift": drift,
        }))?;
        return Ok(code);
    }
    for one in &drift {
        outln!("{}: {}: {}", one.of, harmless_line(&one.what, SHOWN), one.how);
    }
    if drift.is_empty() {
        let (files, images) = (found.files.len(), found.images.len());
        outln!("{files} files and {images} images are as they were recorded");
        return Ok(0);
    }
    Err(Problem::new(match drift.len() {
        1 => "something is not as it was recorded".to_owned(),
        count => format!("{count} things are not as they were recorded"),
    })
    .hint("if you changed them yourself, record them anew: casemate verify --record"))
}

fn record(world: &World, path: &Path, found: &Baseline) -> Result<u8, Problem> {
    if let Some(folder) = path.parent() {
        casemate_host::places::make_directory(folder)
            .map_err(|error| Problem::new("could not record the baseline").because(&error))?;
    }
    durable::store(path, found)
        .map_err(|error| Problem::new("could not record the baseline").because(&error))?;
    let digest = digest_of(path).map_err(|error| {
        Problem::new(format!("could not read the baseline {}", path.display())).because(&error)
    })?;
    audit::note(world, Event::general(RECORDED).with("digest", digest.as_str()));
    let (files, images) = (found.files.len(), found.images.len());
    outln!("recorded {files} files and {images} images in {}", path.display());
    for one in damaged(world, found)? {
        eprintln!("note: {} {}: {}", one.of, harmless_line(&one.what, SHOWN), one.how);
    }
    outln!("digest {digest}");
    Ok(0)
}

/// Whether the baseline is the one that the audit log tells of.
fn witnessed(world: &World, path: &Path) -> io::Result<Option<Drift>> {
    let Some(folder) = world.audit_folder().filter(|_| world.settings().audit.enable) else {
        return Ok(None);
    };
    let mut reader = Reader::open(&folder)?;
    let mut last = None;
    while let Some(record) = reader.next_record()? {
        if record.event == RECORDED {
            last = Some(record);
        }
    }
    let own = digest_of(path)?;
    let how = match &last {
        None => "the audit log does not know of it".to_owned(),
        Some(record) if record.fields.get("digest").is_some_and(|digest| *digest == *own) => {
            return Ok(None);
        }
        Some(record) => {
            format!("not the one that record {} of the audit log tells of", record.number)
        }
    };
    Ok(Some(Drift { of: "baseline", what: path.display().to_string(), how }))
}

/// Everything as it is now.
fn collect(world: &World) -> Result<Baseline, Problem> {
    let mut files = BTreeMap::new();
    let mut add = |of: Kind, path: PathBuf| -> Result<(), Problem> {
        let failed = |error: io::Error| {
            Problem::new(format!("could not look at {}", path.display())).because(&error)
        };
        match entry(of, &path) {
            Ok(Some(entry)) => {
                files.insert(path, entry);
                Ok(())
            }
            // Not a file, or one that went away.
            Ok(None) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(error)),
        }
    };
    for path in world.loaded.files() {
        add(Kind::Configuration, path.to_owned())?;
    }
    let place = Place::of(world, None);
    let services = place.beside(&world.places, "rpc");
    let read = policy::load(place, &world.places)
        .map_err(|error| Problem::new("could not read the policy").because(&error))?;
    for directory in read.directories.into_iter().chain(services) {
        for path in listed(&directory)? {
            add(Kind::Policy, path)?;
        }
    }
    let own = facts::own_programs(&Sources::current(&world.places));
    let companions = own.supervisor.parent().map(Path::to_owned).unwrap_or_default();
    for path in listed(&companions)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("casemate") && !name.ends_with(".d") {
            add(Kind::Program, path)?;
        }
    }
    if let Ok(this) = std::env::current_exe() {
        add(Kind::Program, this)?;
    }
    let store = world.store()?;
    let failed = |error| Problem::new("could not list the images").because(&error);
    let mut images = BTreeMap::new();
    for name in store.all_names().map_err(failed)? {
        let current = store.current_generation(&name).map_err(failed)?;
        let generations = store.generations(&name).map_err(failed)?;
        if let Some(one) = generations.into_iter().find(|one| Some(one.number) == current) {
            images.insert(name.to_string(), one.image.to_string());
        }
    }
    Ok(Baseline { version: env!("CARGO_PKG_VERSION").into(), files, images })
}

/// What lies in a directory; nothing when it is not there.
fn listed(directory: &Path) -> Result<Vec<PathBuf>, Problem> {
    let failed = |error: io::Error| {
        Problem::new(format!("could not read {}", directory.display())).because(&error)
    };
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
    }
}

fn entry(of: Kind, path: &Path) -> io::Result<Option<Entry>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    Ok(Some(Entry { of, sha256: digest_of(path)?, mode, owner }))
}

fn digest_of(path: &Path) -> io::Result<String> {
    Ok(Digest::of_reader(File::open(path)?)?.0.to_string())
}

/// What is not as it was, in the order of names.
fn compare(known: &Baseline, found: &Baseline) -> Vec<Drift> {
    let mut drift = Vec::new();
    let mut add = |of, what: &str, how: String| {
        drift.push(Drift { of, what: what.to_owned(), how });
    };
    let paths: std::collections::BTreeSet<&PathBuf> =
        known.files.keys().chain(found.files.keys()).collect();
    for path in paths {
        let text = path.display().to_string();
        match (known.files.get(path), found.files.get(path)) {
            (Some(was), None) => add(was.of.as_str(), &text, "missing".into()),
            (None, Some(is)) => add(is.of.as_str(), &text, "new".into()),
            (Some(was), Some(is)) => {
                let mut how = Vec::new();
                if was.sha256 != is.sha256 {
                    how.push("changed".to_owned());
                }
                if was.mode != is.mode {
                    how.push(format!("mode {:04o} was {:04o}", is.mode, was.mode));
                }
                if was.owner != is.owner {
                    how.push(format!("owner {} was {}", is.owner, was.owner));
                }
                if !how.is_empty() {
                    add(is.of.as_str(), &text, how.join(", "));
                }
            }
            (None, None) => {}
        }
    }
    let names: std::collections::BTreeSet<&String> =
        known.images.keys().chain(found.images.keys()).collect();
    for name in names {
        match (known.images.get(name), found.images.get(name)) {
            (Some(_), None) => add("image", name, "missing".into()),
            (None, Some(_)) => add("image", name, "new".into()),
            (Some(was), Some(is)) if was != is => {
                add("image", name, format!("another: {is} was {was}"));
            }
            _ => {}
        }
    }
    drift
}

/// Images whose files are not what their digest says.
fn damaged(world: &World, found: &Baseline) -> Result<Vec<Drift>, Problem> {
    let store = world.store()?;
    let mut drift = Vec::new();
    for (name, digest) in &found.images {
        let mut add = |how: String| {
            drift.push(Drift { of: "image", what: name.clone(), how });
        };
        let Ok(digest) = digest.parse() else {
            add(format!("`{digest}` is no digest"));
            continue;
        };
        match store.get(digest) {
            Ok(None) => add("missing".into()),
            Ok(Some(image)) => {
                if let Err(error) = image.check_all_parts() {
                    add(format!("not usable: {error}"));
                }
            }
            Err(error) => add(format!("not usable: {error}")),
        }
    }
    Ok(drift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_difference_is_told() {
        let entry =
            |text: &str, mode| Entry { of: Kind::Program, sha256: text.into(), mode, owner: 0 };
        let mut known = Baseline::default();
        for (path, text) in [("/same", "a"), ("/changed", "a"), ("/mode", "a"), ("/gone", "a")] {
            known.files.insert(path.into(), entry(text, 0o755));
        }
        known.images = [("debian".into(), "1".into()), ("old".into(), "2".into())].into();
        let mut found = known.clone();
        assert_eq!(compare(&known, &found), []);
        found.files.insert("/changed".into(), entry("b", 0o755));
        found.files.insert("/mode".into(), Entry { owner: 7, ..entry("a", 0o4755) });
        found.files.insert("/new".into(), Entry { of: Kind::Policy, ..entry("a", 0o644) });
        found.files.remove(Path::new("/gone"));
        found.images = [("debian".into(), "3".into()), ("more".into(), "2".into())].into();
        let told: Vec<String> = compare(&known, &found)
            .into_iter()
            .map(|one| format!("{} {} {}", one.of, one.what, one.how))
            .collect();
        assert_eq!(
            told,
            [
                "program /changed changed",
                "program /gone missing",
                "program /mode mode 4755 was 0755, owner 7 was 0",
                "policy /new new",
                "image debian another: 3 was 1",
                "image more new",
                "image old missing",
            ]
        );
    }
}
