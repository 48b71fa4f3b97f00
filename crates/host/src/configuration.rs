//! Finding and reading the configuration.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::places::{Environment, Places};
use casemate_config::{Format, Loaded, Origin, Source};

/// Largest configuration file that is read, in bytes.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

/// Where the system's configuration is.
const SYSTEM: &str = "/etc/casemate";

/// Why the configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file the user named is not there.
    #[error("there is no configuration file {}", .0.display())]
    Missing(PathBuf),
    /// A file or folder cannot be read.
    #[error("could not read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads the configuration that applies: `named` alone when given, else the system's and, for an
/// ordinary user, his own.
///
/// # Errors
/// A file cannot be read. What is wrong *in* a file is in [`Loaded::diagnostics`].
pub fn load(
    named: Option<&Path>,
    places: &Places,
    environment: &Environment,
    user: &str,
) -> Result<Loaded, ConfigurationError> {
    let own = if places.is_system() { Origin::System } else { Origin::User };
    let mut sources = Vec::new();
    match named {
        Some(path) => {
            let path = std::path::absolute(path)
                .map_err(|source| ConfigurationError::Read { path: path.into(), source })?;
            if path.is_dir() {
                read_folder(&path, own, &mut sources)?;
            } else if !read_file(&path, own, &mut sources)? {
                return Err(ConfigurationError::Missing(path));
            }
        }
        None => {
            let system = read_place(Path::new(SYSTEM), Origin::System, &mut sources);
            match system {
                // What root keeps to himself is not for other users.
                Err(ConfigurationError::Read { source, .. })
                    if source.kind() == io::ErrorKind::PermissionDenied && !places.is_system() => {}
                other => other?,
            }
            if !places.is_system()
                && let Ok(place) = places.configuration()
            {
                read_place(place, Origin::User, &mut sources)?;
            }
        }
    }
    let environment =
        casemate_config::Environment { home: environment.home.clone(), user: user.to_owned() };
    Ok(casemate_config::load(&sources, &environment))
}

/// Reads the system's configuration, without that of any user: what a program of the system goes by.
/// `named` is a file or folder in its place.
///
/// # Errors
/// As for [`load`].
pub fn system(named: Option<&Path>) -> Result<Loaded, ConfigurationError> {
    let mut sources = Vec::new();
    match named {
        Some(path) if path.is_dir() => read_folder(path, Origin::System, &mut sources)?,
        Some(path) => {
            if !read_file(path, Origin::System, &mut sources)? {
                return Err(ConfigurationError::Missing(path.into()));
            }
        }
        None => read_place(Path::new(SYSTEM), Origin::System, &mut sources)?,
    }
    let environment = casemate_config::Environment { home: None, user: "root".into() };
    Ok(casemate_config::load(&sources, &environment))
}

/// `casemate.toml` (or `.json`) and the drop-ins beside it, in the order of their names.
fn read_place(
    place: &Path,
    origin: Origin,
    sources: &mut Vec<Source>,
) -> Result<(), ConfigurationError> {
    for name in ["casemate.toml", "casemate.json"] {
        read_file(&place.join(name), origin, sources)?;
    }
    let folder = place.join("casemate.d");
    if folder.is_dir() { read_folder(&folder, origin, sources) } else { Ok(()) }
}

fn read_folder(
    folder: &Path,
    origin: Origin,
    sources: &mut Vec<Source>,
) -> Result<(), ConfigurationError> {
    let failed = |source| ConfigurationError::Read { path: folder.into(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let known = path.extension().is_some_and(|kind| kind == "toml" || kind == "json");
        if known && !hidden {
            names.push(path);
        }
    }
    names.sort();
    for path in names {
        read_file(&path, origin, sources)?;
    }
    Ok(())
}

/// Reads one file; false when it is not there.
fn read_file(
    path: &Path,
    origin: Origin,
    sources: &mut Vec<Source>,
) -> Result<bool, ConfigurationError> {
    let failed = |source| ConfigurationError::Read { path: path.into(), source };
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    if size > FILE_LIMIT {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    sources.push(Source { path: path.into(), text, format: Format::of_path(path), origin });
    Ok(true)
}
