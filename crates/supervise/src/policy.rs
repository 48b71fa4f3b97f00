//! The policy that applies: finding and reading its files, and the compartments it is about.
//!
//! What the files mean is [`casemate_policy`]'s. A file that cannot be read is handed on as such and
//! stands in the way of everything behind it; a directory that cannot be read leaves no policy.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use casemate_config::{Settings, Span};
use casemate_host::places::Places;
use casemate_policy::limits::MAX_FILE;
use casemate_policy::{Compartment, Library, Policy, PolicyFile, System, arrange};

use crate::prepare::World;

/// The directory of policy files below a configuration directory.
pub const FOLDER: &str = "policy.d";

/// The system's directories. A file in the second takes the place of one of the same name in the
/// first.
const SYSTEM: [&str; 2] = ["/etc/casemate/policy.d", "/run/casemate/policy.d"];

/// What holds where no file decides, and as what it is named. A file of this name takes its place.
const DEFAULT: &str = include_str!("default.policy");
const DEFAULT_NAME: &str = "(built in)/90-casemate-default.policy";

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
#[error("could not read the directory of policy files {}", .path.display())]
pub struct PolicyError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A policy as it was read.
#[derive(Debug)]
pub struct ReadPolicy {
    /// Its rules, and what is wrong with them.
    pub policy: Policy,
    /// The directories that were looked into, there or not, in the order of evaluation.
    pub directories: Vec<PathBuf>,
    /// Files that are not read, each with the one of the same name that is.
    pub shadowed: Vec<(PathBuf, PathBuf)>,
}

/// Where to look for policy files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where the system and, for an ordinary user, he himself keeps them.
    Usual,
    /// In this directory alone, which must be there.
    Named(PathBuf),
    /// In this directory alone: it lies beside the only configuration that is read.
    Beside(PathBuf),
}

impl Place {
    /// The directory that was named, if one was.
    pub fn named(directory: Option<&Path>) -> Self {
        directory.map_or(Self::Usual, |directory| Self::Named(directory.into()))
    }

    /// The same; else the one that lies beside the configuration which `world` was told to read, if
    /// there is one.
    pub fn of(world: &World, directory: Option<&Path>) -> Self {
        match (directory, &world.named) {
            (Some(directory), _) => Self::Named(directory.into()),
            (None, None) => Self::Usual,
            (None, Some(configuration)) => {
                let folder = match configuration.is_dir() {
                    true => configuration.clone(),
                    false => configuration.parent().unwrap_or(Path::new("")).into(),
                };
                let beside = folder.join(FOLDER);
                // One that is there and cannot be read leaves no policy, not the usual one.
                match beside.symlink_metadata() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Usual,
                    _ => Self::Beside(beside),
                }
            }
        }
    }

    /// The directories called `name` that lie beside those of policy files: the user's before the
    /// system's.
    pub fn beside(&self, places: &Places, name: &str) -> Vec<PathBuf> {
        match self {
            Self::Named(path) | Self::Beside(path) => vec![path.with_file_name(name)],
            Self::Usual => {
                let own = places.configuration().ok().filter(|_| !places.is_system());
                let own = own.map(|place| place.join(name));
                own.into_iter().chain([Path::new(SYSTEM[0]).with_file_name(name)]).collect()
            }
        }
    }
}

/// Reads the policy that applies.
///
/// # Errors
/// A directory cannot be read: then nothing is allowed. One that is not there is empty.
pub fn load(place: Place, places: &Places) -> Result<ReadPolicy, PolicyError> {
    let mut groups: Vec<Vec<PathBuf>> = Vec::new();
    let must_exist = matches!(place, Place::Named(_));
    let with_default = place == Place::Usual;
    match place {
        Place::Named(path) | Place::Beside(path) => {
            let failed = |source| PolicyError { path: path.clone(), source };
            groups.push(vec![std::path::absolute(&path).map_err(failed)?]);
        }
        Place::Usual => {
            groups.push(SYSTEM.map(PathBuf::from).to_vec());
            if !places.is_system()
                && let Ok(place) = places.configuration()
            {
                groups.push(vec![place.join(FOLDER)]);
            }
        }
    }
    let mut files: Vec<PolicyFile> = Vec::new();
    let mut shadowed = Vec::new();
    for group in &groups {
        let listed = group.iter().map(|directory| list(directory, must_exist));
        let arranged = arrange(&listed.collect::<Result<Vec<_>, _>>()?);
        files.extend(arranged.files.into_iter().map(read));
        shadowed.extend(arranged.shadowed);
    }
    let default = Path::new(DEFAULT_NAME);
    if with_default && !files.iter().any(|file| file.path.file_name() == default.file_name()) {
        files.push(PolicyFile { path: default.into(), text: Ok(DEFAULT.into()) });
    }
    let policy = Policy::load(files, &Disk);
    Ok(ReadPolicy { policy, directories: groups.into_iter().flatten().collect(), shadowed })
}

impl ReadPolicy {
    /// Whether something stands in what is built in, which nobody here has written.
    pub fn is_built_in(&self, span: Span) -> bool {
        let document = self.policy.documents.get(span.source as usize);
        document.is_some_and(|document| document.path == Path::new(DEFAULT_NAME))
    }
}

/// What lies in a directory; nothing when it is not there and need not be.
fn list(directory: &Path, must_exist: bool) -> Result<Vec<PathBuf>, PolicyError> {
    let failed = |source| PolicyError { path: directory.into(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {
            return Ok(Vec::new());
        }
        other => other.map_err(failed)?,
    };
    entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

/// Reads one file, which may be anything.
fn read(path: PathBuf) -> PolicyFile {
    let text = text(&path).map_err(|error| error.to_string());
    PolicyFile { path, text }
}

fn text(path: &Path) -> io::Result<String> {
    // A pipe or a device would be waited for when it is opened.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    // One byte more than allowed is enough for the parser to refuse it.
    File::open(path)?.take(MAX_FILE as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// The file system.
#[derive(Clone, Copy, Debug)]
struct Disk;

impl Library for Disk {
    fn file(&self, folder: &Path, name: &str) -> Result<PolicyFile, String> {
        // `absolute` takes out `.` and doubled slashes, so that a file has one path.
        let path = std::path::absolute(folder.join(name)).map_err(|error| error.to_string())?;
        let text = text(&path).map_err(|error| error.to_string())?;
        Ok(PolicyFile { path, text: Ok(text) })
    }

    fn folder(&self, folder: &Path, name: &str) -> Result<Vec<PolicyFile>, String> {
        let path = std::path::absolute(folder.join(name)).map_err(|error| error.to_string())?;
        let entries = fs::read_dir(&path).map_err(|error| error.to_string())?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if casemate_policy::naming(&path) != casemate_policy::Naming::Ignored {
                files.push(read(path));
            }
        }
        Ok(files)
    }
}

/// The compartments of a configuration as a policy sees them, and the fresh disposables among those
/// that run: each is of the type `DispVM`, and otherwise what its template is.
pub fn system(settings: &Settings, running: &BTreeSet<String>) -> System {
    let declared = settings.compartments.values().map(|compartment| Compartment {
        name: compartment.name.to_string(),
        uuid: None,
        tags: compartment.tags.iter().map(ToString::to_string).collect(),
        compartment_type: compartment.compartment_type.to_string(),
        running: running.contains(compartment.name.as_str()),
        disposable_template: compartment.disposable_template,
        default_disposable: compartment.default_disposable.as_ref().map(ToString::to_string),
        internal: compartment.internal,
        made_from: None,
    });
    let mut all: Vec<Compartment> = declared.collect();
    let fresh = running.iter().filter_map(|name| {
        let template = template_of(name)?;
        let template = all.iter().find(|c| c.name == template && c.disposable_template)?;
        Some(Compartment {
            name: name.clone(),
            compartment_type: "DispVM".into(),
            running: true,
            disposable_template: false,
            made_from: Some(template.name.clone()),
            ..template.clone()
        })
    });
    let fresh: Vec<Compartment> = fresh.collect();
    all.extend(fresh);
    System::new(all)
}

/// `untrusted`, of `untrusted-d1234`.
fn template_of(name: &str) -> Option<&str> {
    let (template, number) = name.rsplit_once("-d")?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(template)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use casemate_policy::{Engine, Request};

    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn named(folder: &Path) -> ReadPolicy {
        let places = Places::find(&casemate_host::places::Environment::default());
        load(Place::Named(folder.into()), &places).expect("read")
    }

    #[test]
    fn files_are_read_with_what_they_include() {
        let folder = tempfile::tempdir().expect("a directory");
        write(folder.path(), "20-b.policy", "!include ./include/work\n!include-dir more\n");
        write(folder.path(), "10-a.policy", "a * b c deny\n");
        write(folder.path(), "include/work", "d * e f allow\n!include-service g * include/old\n");
        write(folder.path(), "include/old", "$anyvm h allow,user=root\n");
        write(folder.path(), "more/x.policy", "i * j k deny\n");
        write(folder.path(), "README", "not a rule");
        let read = named(folder.path());
        let all: Vec<_> = read.policy.diagnostics.iter().collect();
        assert!(!read.policy.has_errors(), "{}", read.policy.render(&all, false));
        let services: Vec<_> =
            read.policy.rules.iter().map(|rule| rule.service.as_deref().unwrap_or("*")).collect();
        assert_eq!(services, ["a", "d", "g", "i"]);
    }

    #[test]
    fn what_cannot_be_read_stands_in_the_way() {
        let folder = tempfile::tempdir().expect("a directory");
        write(folder.path(), "10-a.policy", "a * * * allow\n");
        symlink("/nowhere", folder.path().join("20-gone.policy")).expect("linked");
        symlink("/dev/zero", folder.path().join("30-device.policy")).expect("linked");
        fs::write(folder.path().join("40-bytes.policy"), b"\xff\xfe").expect("written");
        fs::create_dir(folder.path().join("50-folder.policy")).expect("made");
        write(folder.path(), "60-b.policy", "b * * * allow\n");
        let read = named(folder.path());
        assert_eq!(read.policy.quarantined.len(), 4);
        let system = System::new([Compartment { name: "x".into(), ..Compartment::default() }]);
        let engine = Engine::new(read.policy, system);
        let allowed = |service| {
            let request = Request::new(service, "+", "x", "dom0").expect("a request");
            engine.decide(&request).rule() == Some(0)
        };
        assert!(allowed("a") && !allowed("b"));
    }

    #[test]
    fn a_directory_that_is_named_must_be_there() {
        let folder = tempfile::tempdir().expect("a directory");
        let places = Places::find(&casemate_host::places::Environment::default());
        let error = load(Place::Named(folder.path().join("gone")), &places).expect_err("gone");
        assert!(error.to_string().starts_with("could not read the directory of policy files /"));
    }

    #[test]
    fn what_is_built_in_asks_for_little_and_allows_nothing() {
        let default = PolicyFile { path: DEFAULT_NAME.into(), text: Ok(DEFAULT.into()) };
        let policy = Policy::load(vec![default], &Disk);
        let all: Vec<_> = policy.diagnostics.iter().collect();
        assert!(all.is_empty(), "{}", policy.render(&all, false));
        let compartment = |name: &str| Compartment { name: name.into(), ..Compartment::default() };
        let template = Compartment { disposable_template: true, ..compartment("t") };
        let source = Compartment { default_disposable: Some("t".into()), ..compartment("a") };
        let engine = Engine::new(policy, System::new([source, compartment("b"), template]));
        let decide = |service: &str, target: &str| {
            let request = Request::new(service, "+", "a", target).expect("a request");
            match engine.decide(&request) {
                casemate_policy::Decision::Ask { default, .. } => {
                    format!("ask {}", default.map_or(String::new(), |name| name.to_string()))
                }
                casemate_policy::Decision::Allow { .. } => "allow".into(),
                casemate_policy::Decision::Deny { .. } => "deny".into(),
            }
        };
        assert_eq!(decide("casemate.Filecopy", "b"), "ask ");
        assert_eq!(decide("casemate.OpenInVM", "@dispvm"), "ask @dispvm:t");
        assert_eq!(decide("casemate.OpenURL", "@default"), "ask @dispvm:t");
        for service in ["casemate.Filecopy", "casemate.Notify", "casemate.OpenURL", "x.Y"] {
            assert_eq!(decide(service, "@adminvm"), "deny", "{service}");
        }
        for service in ["casemate.StartApp", "casemate.ClipboardPaste", "casemate.Notify", "x.Y"] {
            assert_eq!(decide(service, "b"), "deny", "{service}");
        }
    }

    #[test]
    fn a_running_disposable_is_known_by_its_template() {
        assert_eq!(template_of("untrusted-d1234"), Some("untrusted"));
        assert_eq!(template_of("web-dev"), None);
        assert_eq!(template_of("web-d"), None);
    }
}
