//! Where things are: system mode for root, the XDG base directories for everybody else
//! (XDG Base Directory Specification 0.8).
//!
//! Finding them makes and needs nothing; a place that cannot be had is an error only when somebody
//! asks for it, and a directory that cannot be made only when it must be.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::getuid;

/// What the places depend on, taken once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// User id; 0 is system mode.
    pub uid: u32,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub xdg_data_home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub xdg_cache_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// Where the private directory is made when there is no runtime directory: `/tmp`, whatever
    /// `TMPDIR` says, so that every process of the user looks in the same place.
    pub temporary: PathBuf,
}

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    uid: u32,
    configuration: Option<PathBuf>,
    data: Option<PathBuf>,
    state: Option<PathBuf>,
    cache: Option<PathBuf>,
    runtime: PathBuf,
}

/// Why a place cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// Neither `HOME` nor the variable is set.
    #[error("could not tell where the {what} is: neither HOME nor {variable} is an absolute path")]
    NoHome {
        /// Which directory.
        what: &'static str,
        /// What could be set instead of `HOME`.
        variable: &'static str,
    },
    /// A directory cannot be made.
    #[error("could not make the directory {path}")]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why not: read-only, not allowed, full.
        #[source]
        source: io::Error,
    },
    /// Somebody else could read or replace what is put there.
    #[error("could not use {path}: it is {fault}")]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl Environment {
    /// That of this process. Relative paths count as unset, as the specification demands.
    pub fn current() -> Self {
        let path =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            uid: getuid().as_raw(),
            home: path("HOME"),
            xdg_config_home: path("XDG_CONFIG_HOME"),
            xdg_data_home: path("XDG_DATA_HOME"),
            xdg_state_home: path("XDG_STATE_HOME"),
            xdg_cache_home: path("XDG_CACHE_HOME"),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
            temporary: "/tmp".into(),
        }
    }
}

impl Places {
    /// The places of the user who is in `environment`.
    pub fn find(environment: &Environment) -> Self {
        if environment.uid == 0 {
            return Self {
                uid: 0,
                configuration: Some("/etc/casemate".into()),
                data: Some("/var/lib/casemate".into()),
                state: Some("/var/lib/casemate".into()),
                cache: Some("/var/cache/casemate".into()),
                runtime: "/run/casemate".into(),
            };
        }
        let own = |set: &Option<PathBuf>, default: &str| {
            let base = set.clone().or_else(|| Some(environment.home.as_ref()?.join(default)));
            base.map(|base| base.join("casemate"))
        };
        Self {
            uid: environment.uid,
            configuration: own(&environment.xdg_config_home, ".config"),
            data: own(&environment.xdg_data_home, ".local/share"),
            state: own(&environment.xdg_state_home, ".local/state"),
            cache: own(&environment.xdg_cache_home, ".cache"),
            runtime: runtime(environment),
        }
    }

    /// System mode: root's own places.
    pub fn is_system(&self) -> bool {
        self.uid == 0
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`PlacesError::NoHome`].
    pub fn configuration(&self) -> Result<&Path, PlacesError> {
        known(&self.configuration, "configuration", "XDG_CONFIG_HOME")
    }

    /// Images and volumes.
    ///
    /// # Errors
    /// [`PlacesError::NoHome`].
    pub fn data(&self) -> Result<&Path, PlacesError> {
        known(&self.data, "data directory", "XDG_DATA_HOME")
    }

    /// Assigned ids, audit log, logs, and what is remembered about this boot.
    ///
    /// # Errors
    /// [`PlacesError::NoHome`].
    pub fn state(&self) -> Result<&Path, PlacesError> {
        known(&self.state, "state directory", "XDG_STATE_HOME")
    }

    /// What can be found out again.
    ///
    /// # Errors
    /// [`PlacesError::NoHome`].
    pub fn cache(&self) -> Result<&Path, PlacesError> {
        known(&self.cache, "cache directory", "XDG_CACHE_HOME")
    }

    /// The directory that has one directory for each running compartment. It may not exist.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Makes the runtime directory if it is not there, and checks that it is nobody else's.
    ///
    /// # Errors
    /// It cannot be made, is a symbolic link or somebody else's, or others may write to it or, in
    /// user mode, even look into it.
    pub fn make_runtime(&self) -> Result<&Path, PlacesError> {
        let path = &self.runtime;
        // Everybody may see which system compartments there are; each has a private directory.
        let mode = if self.is_system() { 0o755 } else { 0o700 };
        match DirBuilder::new().mode(mode).create(path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(PlacesError::Make { path: path.clone(), source });
            }
            _ => {}
        }
        let fault = |fault| Err(PlacesError::Unsafe { path: path.clone(), fault });
        match fs::symlink_metadata(path) {
            Err(source) => Err(PlacesError::Make { path: path.clone(), source }),
            Ok(found) if found.is_symlink() => fault("a symbolic link"),
            Ok(found) if !found.is_dir() => fault("no directory"),
            Ok(found) if found.uid() != self.uid => fault("somebody else's"),
            Ok(found) if found.mode() & 0o777 & !mode != 0 => fault("open to others"),
            Ok(_) => Ok(path),
        }
    }
}

/// Makes a directory and its parents, private to the user where they are not there yet.
///
/// # Errors
/// [`PlacesError::Make`], with the path.
pub fn make_directory(path: &Path) -> Result<(), PlacesError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| PlacesError::Make { path: path.into(), source })
}

/// `$XDG_RUNTIME_DIR/casemate`, or a private directory in `/tmp`. A runtime directory that is not
/// the user's own (left over by su(1)) is none.
fn runtime(environment: &Environment) -> PathBuf {
    let is_own = |path: &&PathBuf| {
        fs::metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == environment.uid)
    };
    match environment.xdg_runtime_dir.as_ref().filter(is_own) {
        Some(directory) => directory.join("casemate"),
        None => environment.temporary.join(format!("casemate-{}", environment.uid)),
    }
}

fn known<'a>(
    place: &'a Option<PathBuf>,
    what: &'static str,
    variable: &'static str,
) -> Result<&'a Path, PlacesError> {
    place.as_deref().ok_or(PlacesError::NoHome { what, variable })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A user's places below a directory of the test; user 0 has fixed ones.
    fn places(temporary: &Path) -> Places {
        Places {
            uid: getuid().as_raw(),
            configuration: None,
            data: None,
            state: None,
            cache: None,
            runtime: temporary.join("casemate-1"),
        }
    }

    #[test]
    fn user_has_the_default_directories() {
        let environment = Environment {
            uid: 1000,
            home: Some("/home/u".into()),
            xdg_state_home: Some("/elsewhere".into()),
            temporary: "/tmp".into(),
            ..Environment::default()
        };
        let places = Places::find(&environment);
        assert_eq!(places.configuration().expect("known"), Path::new("/home/u/.config/casemate"));
        assert_eq!(places.data().expect("known"), Path::new("/home/u/.local/share/casemate"));
        assert_eq!(places.state().expect("known"), Path::new("/elsewhere/casemate"));
        assert_eq!(places.runtime(), Path::new("/tmp/casemate-1000"));
    }

    #[test]
    fn missing_home_matters_only_when_it_is_needed() {
        let environment = Environment { uid: 1000, ..Environment::default() };
        let error = Places::find(&environment).data().expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "could not tell where the data directory is: \
             neither HOME nor XDG_DATA_HOME is an absolute path"
        );
    }

    #[test]
    fn runtime_directory_of_somebody_else_is_refused() {
        let temporary = tempfile::tempdir().expect("a directory");
        let places = places(temporary.path());
        places.make_runtime().expect("made");
        places.make_runtime().expect("found");

        fs::set_permissions(&places.runtime, fs::Permissions::from_mode(0o777)).expect("mode");
        let error = places.make_runtime().expect_err("open").to_string();
        assert!(error.ends_with("it is open to others"), "{error}");

        let other = Places { uid: places.uid + 1, ..places.clone() };
        let error = other.make_runtime().expect_err("not ours").to_string();
        assert!(error.ends_with("it is somebody else's"), "{error}");

        fs::remove_dir(&places.runtime).expect("removed");
        symlink("/", &places.runtime).expect("linked");
        let error = places.make_runtime().expect_err("a link").to_string();
        assert!(error.ends_with("it is a symbolic link"), "{error}");
    }

    #[test]
    fn directory_that_cannot_be_made_is_named() {
        let error = make_directory(Path::new("/proc/none/deep")).expect_err("refused");
        assert_eq!(error.to_string(), "could not make the directory /proc/none/deep");
    }
}
