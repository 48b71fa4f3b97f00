//! Where entries and their pictures lie, and what is kept about them.
//!
//! ```text
//! XDG_DATA_HOME/applications/casemate.NAME.ID.desktop     entries, each with a mark
//! XDG_DATA_HOME/casemate/menus/NAME/ID.png                their pictures
//! XDG_DATA_HOME/casemate/menus/NAME/menu.json             what was synced; it is there only if something was
//! XDG_DATA_HOME/casemate/menus/.NAME.lock                 held by who syncs or removes
//! ```
//! `menu.json` is written before the first entry and after the last, and every file is replaced as a
//! whole. So whatever is killed, the next sync finds what is to be mended by the marks.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use casemate_config::CompartmentName;
use casemate_host::durable::{self, DurableError};
use casemate_menu::{compartment_of, file_name};
use casemate_supervise::prepare::World;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::failure::Problem;

/// Most of a file that is looked at for a mark, in bytes: an entry of ours is smaller.
const MAX_ENTRY: u64 = 256 * 1024;

/// What is kept of a compartment's menu.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Digest of the image it is of; empty while entries are written.
    pub(super) image: String,
    /// The image for which it was tried by itself, in a fresh disposable.
    pub(super) tried: String,
    /// The configuration that was named.
    pub(super) config: Option<PathBuf>,
    /// The applications.
    pub(super) applications: Vec<Shown>,
}

/// An application with an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    /// Its id.
    pub(super) id: String,
    /// Its name in the guest.
    pub(super) name: String,
}

/// An entry that shall be there.
#[derive(Debug)]
pub(super) struct New {
    pub(super) id: String,
    /// Its file's content.
    pub(super) text: String,
    /// A PNG file.
    pub(super) icon: Vec<u8>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) new: u32,
    pub(super) changed: u32,
    pub(super) removed: u32,
    /// Files of others in the place of an entry.
    pub(super) strangers: Vec<PathBuf>,
}

/// The user's folders.
#[derive(Debug)]
pub(super) struct Place {
    applications: PathBuf,
    menus: PathBuf,
}

/// Held while entries of a compartment are made or removed.
pub(super) type Lock = Flock<File>;

impl Place {
    /// That of the user whose environment it is.
    ///
    /// # Errors
    /// He has none.
    pub(super) fn of(world: &World) -> Result<Self, Problem> {
        let environment = &world.environment;
        let home = environment.home.as_ref().map(|home| home.join(".local/share"));
        let data = environment.xdg_data_home.clone().or(home).ok_or_else(|| {
            Problem::new("could not tell where the menu is").hint("set HOME or XDG_DATA_HOME")
        })?;
        Ok(Self { applications: data.join("applications"), menus: data.join("casemate/menus") })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.menus.join(name)
    }

    fn state_file(&self, name: &str) -> PathBuf {
        self.folder(name).join("menu.json")
    }

    /// The file of an entry.
    pub(super) fn entry(&self, name: &str, id: &str) -> PathBuf {
        self.applications.join(file_name(name, id))
    }

    /// The file of an entry's picture.
    pub(super) fn icon(&self, name: &str, id: &str) -> PathBuf {
        self.folder(name).join(format!("{id}.png"))
    }

    /// What was synced of a compartment; none when nothing ever was.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn state(&self, name: &str) -> Result<Option<State>, Problem> {
        let path = self.state_file(name);
        durable::load(&path).map_err(|error| {
            let hint = format!("remove {}, then run: casemate menu sync {name}", path.display());
            unkept(&error).hint(hint)
        })
    }

    /// Keeps what was synced.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn keep(&self, name: &str, state: &State) -> Result<(), Problem> {
        make(&self.folder(name))?;
        durable::store(&self.state_file(name), state).map_err(|error| unkept(&error))
    }

    /// Compartments that something was synced of.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.menus).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names
            .filter(|name| name.parse::<CompartmentName>().is_ok())
            .filter(|name| self.state_file(name).exists())
            .collect();
        names.sort();
        names
    }

    /// Nobody else changes entries of this compartment until it is dropped. None when somebody does,
    /// unless it shall be waited for.
    ///
    /// # Errors
    /// It cannot be had.
    pub(super) fn lock(&self, name: &str, wait: bool) -> Result<Option<Lock>, Problem> {
        make(&self.menus)?;
        let path = self.menus.join(format!(".{name}.lock"));
        let failed = |error: io::Error| {
            Problem::new(format!("could not lock {}", path.display())).because(&error)
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let how = if wait { FlockArg::LockExclusive } else { FlockArg::LockExclusiveNonblock };
        match Flock::lock(file.map_err(failed)?, how) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::Error::EAGAIN)) => Ok(None),
            Err((_, error)) => Err(failed(error.into())),
        }
    }

    /// Makes the entries of a compartment be these. Files without its mark are left alone.
    ///
    /// # Errors
    /// One cannot be written; what is there then is mended by the next time.
    pub(super) fn write(&self, name: &str, entries: &[New]) -> Result<Changes, Problem> {
        let mut changes = Changes::default();
        for folder in [&self.applications, &self.folder(name)] {
            make(folder)?;
        }
        for New { id, text, icon } in entries {
            let path = self.entry(name, id);
            match self.owned(&path, name) {
                Owned::Other => {
                    changes.strangers.push(path);
                    continue;
                }
                Owned::Nobody => changes.new += 1,
                Owned::Ours(before) if before != *text => changes.changed += 1,
                Owned::Ours(_) => {}
            }
            replace(&self.icon(name, id), icon)?;
            replace(&path, text.as_bytes())?;
        }
        let ids: BTreeSet<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        changes.removed = self.clear(name, &ids)?;
        Ok(changes)
    }

    /// Removes everything of a compartment; how many entries there were.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub(super) fn remove(&self, name: &str) -> Result<u32, Problem> {
        let removed = self.clear(name, &BTreeSet::new())?;
        let _ = fs::remove_file(self.state_file(name));
        // Something of others may be in it.
        let _ = fs::remove_dir(self.folder(name));
        Ok(removed)
    }

    /// Removes entries and pictures of others than these.
    fn clear(&self, name: &str, ids: &BTreeSet<&str>) -> Result<u32, Problem> {
        let mut removed = 0;
        let (before, after) = (format!("casemate.{name}."), ".desktop");
        for path in files(&self.applications) {
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or("");
            // Of a sync that was killed: written, and not in its place.
            if file.starts_with(".new-") && matches!(self.owned(&path, name), Owned::Ours(_)) {
                let _ = fs::remove_file(&path);
            }
            let id = file.strip_prefix(&before).and_then(|rest| rest.strip_suffix(after));
            if id.is_some_and(|id| !ids.contains(id))
                && matches!(self.owned(&path, name), Owned::Ours(_))
            {
                fs::remove_file(&path).map_err(|error| {
                    Problem::new(format!("could not remove {}", path.display())).because(&error)
                })?;
                removed += 1;
            }
        }
        for path in files(&self.folder(name)) {
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or("");
            let left = file.starts_with(".new-");
            if left || file.strip_suffix(".png").is_some_and(|id| !ids.contains(id)) {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(removed)
    }

    /// Whose a file is.
    fn owned(&self, path: &Path, name: &str) -> Owned {
        let found = match path.symlink_metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Owned::Nobody,
            Err(_) => return Owned::Other,
        };
        if !found.is_file() {
            return Owned::Other;
        }
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_ENTRY).read_to_string(&mut text));
        match read.is_ok() && compartment_of(&text) == Some(name) {
            true => Owned::Ours(text),
            false => Owned::Other,
        }
    }
}

/// Whose a file in the place of an entry is.
enum Owned {
    Nobody,
    /// It has the mark; its content.
    Ours(String),
    Other,
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn make(folder: &Path) -> Result<(), Problem> {
    fs::create_dir_all(folder).map_err(|error| {
        Problem::new(format!("could not make the folder {}", folder.display())).because(&error)
    })
}

/// Replaces a file that differs. Desktops look again at whatever changes.
fn replace(path: &Path, content: &[u8]) -> Result<(), Problem> {
    let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
    if is_file && fs::read(path).is_ok_and(|before| before == content) {
        return Ok(());
    }
    durable::replace(path, content, 0o644).map_err(|error| unkept(&error))
}

fn unkept(error: &DurableError) -> Problem {
    let problem = Problem::new(error.to_string());
    match std::error::Error::source(error) {
        Some(source) => problem.because(source),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let place =
            Place { applications: data.join("applications"), menus: data.join("casemate/menus") };
        (folder, place)
    }

    fn new(name: &str, id: &str, more: &str) -> New {
        let text = format!("[Desktop Entry]\nName={more}\nX-Casemate-Compartment={name}\n");
        New { id: id.into(), text, icon: b"png".into() }
    }

    fn counts(changes: &Changes) -> (u32, u32, u32) {
        (changes.new, changes.changed, changes.removed)
    }

    #[test]
    fn entries_are_made_changed_and_removed_and_only_ours() {
        let (_folder, place) = place();
        let first = place.write("work", &[new("work", "a", ""), new("work", "b", "")]);
        assert_eq!(counts(&first.expect("written")), (2, 0, 0));
        let other = place.write("work-2", &[new("work-2", "a", "")]);
        assert_eq!(counts(&other.expect("written")), (1, 0, 0));
        // Files of others that are called like ours.
        fs::write(place.entry("work", "mine"), "[Desktop Entry]\nName=mine\n").expect("written");
        fs::write(place.entry("work", "c"), "[Desktop Entry]\nName=mine\n").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", place.entry("work", "d")).expect("made");
        let entries = ["a", "c", "d"].map(|id| new("work", id, "changed"));
        let changes = place.write("work", &entries).expect("written");
        assert_eq!(counts(&changes), (0, 1, 1));
        assert_eq!(changes.strangers, ["c", "d"].map(|id| place.entry("work", id)));
        let content = |id: &str| fs::read_to_string(place.entry("work", id)).ok();
        assert!(content("a").expect("there").contains("changed"));
        assert_eq!(content("b"), None);
        assert!(!place.icon("work", "b").exists() && place.icon("work", "a").exists());
        assert_eq!(content("c").as_deref(), Some("[Desktop Entry]\nName=mine\n"));
        assert!(place.entry("work", "d").is_symlink() && place.entry("work-2", "a").exists());
        assert_eq!(place.remove("work").expect("removed"), 1);
        assert!(content("mine").is_some() && !place.icon("work", "a").exists());
        assert!(place.entry("work-2", "a").exists() && place.icon("work-2", "a").exists());
    }

    #[test]
    fn what_a_killed_sync_left_is_mended_by_the_next() {
        let (_folder, place) = place();
        place.write("work", &[new("work", "a", "")]).expect("written");
        // Half of it: a picture without an entry, a file aside, an entry that nobody remembers.
        fs::write(place.icon("work", "half"), "png").expect("written");
        fs::write(place.folder("work").join(".new-x"), "p").expect("written");
        let aside = place.applications.join(".new-y");
        fs::write(&aside, new("work", "lost", "").text).expect("written");
        fs::write(place.applications.join(".new-z"), "another's").expect("written");
        fs::write(place.entry("work", "lost"), new("work", "lost", "").text).expect("written");
        assert_eq!(place.state("work").expect("readable"), None);
        let changes = place.write("work", &[new("work", "a", "")]).expect("written");
        assert_eq!(counts(&changes), (0, 0, 1));
        assert_eq!(files(&place.folder("work")), [place.icon("work", "a")]);
        assert!(!place.entry("work", "lost").exists() && !aside.exists());
        assert!(place.applications.join(".new-z").exists());
    }

    #[test]
    fn one_syncs_at_a_time_and_what_was_synced_is_remembered() {
        let (_folder, place) = place();
        let lock = place.lock("work", false).expect("asked");
        assert!(lock.is_some());
        assert!(place.lock("work", false).expect("asked").is_none());
        assert!(place.lock("web", false).expect("asked").is_some());
        drop(lock);
        assert!(place.lock("work", true).expect("asked").is_some());
        assert_eq!(place.names(), [""; 0]);
        let state = State { image: "abc".into(), ..State::default() };
        place.keep("work", &state).expect("kept");
        assert_eq!(
            (place.names(), place.state("work").expect("read")),
            (vec!["work".into()], Some(state))
        );
        place.remove("work").expect("removed");
        assert_eq!(place.state("work").expect("read"), None);
    }
}
