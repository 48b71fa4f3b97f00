//! A place where a secret lies while somebody edits it: a private folder in memory.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use casemate_supervise::prepare::World;
use casemate_volume::{Secret, age};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use tempfile::TempDir;

use crate::failure::Problem;

/// A file that is being edited. It is overwritten and removed at the end, with what the editor left
/// beside it.
#[derive(Debug)]
pub(crate) struct Desk {
    folder: TempDir,
    file: PathBuf,
}

impl Desk {
    /// Lays these bytes there.
    ///
    /// # Errors
    /// There is no file system in memory.
    pub(crate) fn new(world: &World, name: &str, bytes: &[u8]) -> Result<Self, Problem> {
        let in_memory =
            |place: &Path| statfs(place).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
        let runtime = world.places.runtime().to_owned();
        let places = [runtime.parent().map(Path::to_owned), Some("/dev/shm".into())];
        let place =
            places.into_iter().flatten().find(|place| in_memory(place)).ok_or_else(|| {
                Problem::new("there is no place in memory for a secret that is edited").hint(
                    "set XDG_RUNTIME_DIR to a tmpfs, or pipe the new one to `casemate secret set`",
                )
            })?;
        let failed = |error: std::io::Error| {
            Problem::new(format!("could not lay the secret in {}", place.display())).because(&error)
        };
        let folder = tempfile::Builder::new()
            .prefix("casemate-secret-")
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir_in(&place)
            .map_err(failed)?;
        let file = folder.path().join(name);
        let mut options = OpenOptions::new();
        let mut opened =
            options.write(true).create_new(true).mode(0o600).open(&file).map_err(failed)?;
        opened.write_all(bytes).map_err(failed)?;
        Ok(Self { folder, file })
    }

    /// Has it edited.
    ///
    /// # Errors
    /// There is no editor, or it failed.
    pub(crate) fn edit(&self) -> Result<(), Problem> {
        let editor = ["VISUAL", "EDITOR"]
            .into_iter()
            .filter_map(std::env::var_os)
            .find(|editor| !editor.is_empty())
            .unwrap_or_else(|| "vi".into());
        // A key that interrupts is meant for the editor: nothing may end this
        // process while the secret lies there. Handlers, since a child would ignore what is ignored here.
        for signal in [SIGINT, SIGQUIT, SIGHUP, SIGTERM] {
            signal_hook::flag::register(signal, Arc::default())?;
        }
        // As git does: the variable may hold options.
        let mut line: OsString = editor.clone();
        line.push(" \"$@\"");
        let done = Command::new("/bin/sh").arg("-c").arg(line).arg("sh").arg(&self.file).status();
        match done {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Problem::new(format!(
                "the editor {} ended with {status}; the secret is as it was",
                editor.display()
            ))
            .hint("set EDITOR to another")),
            Err(error) => Err(Problem::new("could not start an editor").because(&error)),
        }
    }

    /// What it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn content(&self) -> Result<Secret, Problem> {
        let mut bytes = Vec::with_capacity(age::MOST_SECRET + 1);
        File::open(&self.file)
            .and_then(|file| file.take(age::MOST_SECRET as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| Problem::new("could not read what was edited").because(&error))?;
        Ok(Secret::new(bytes))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let left = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        for path in left.map(|entry| entry.path()) {
            // Pages of a tmpfs may be swapped out; those that are gone stay as they were.
            if let (Ok(metadata), Ok(mut file)) =
                (path.symlink_metadata(), OpenOptions::new().write(true).open(&path))
                && metadata.is_file()
            {
                let zeroes = vec![0; usize::try_from(metadata.len()).unwrap_or(0).min(1 << 20)];
                let _ = file.write_all(&zeroes);
            }
        }
    }
}
