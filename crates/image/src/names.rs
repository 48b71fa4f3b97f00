//! Names of images: each points to its generations, one of them current.
//!
//! A record is a small JSON file, replaced as a whole; a lock file beside it lets one build of
//! a name run at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::error::{Attempt, FileError};
use crate::store::StoreError;

/// The only format of a name's record.
const FORMAT: u32 = 1;
/// Longest name, so that every file named after it fits a directory entry.
const MAX_NAME: usize = 64;

/// A name an image can have: letters, digits, `-`, `_` and `.`, beginning with a letter or
/// digit, at most 64 of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ImageName(String);

/// The text is no image name.
#[derive(Debug, thiserror::Error)]
#[error("could not use `{0}` as the name of an image")]
pub struct BadImageName(String);

impl ImageName {
    /// Takes a name.
    ///
    /// # Errors
    /// [`BadImageName`] when it is none.
    pub fn new(name: &str) -> Result<Self, BadImageName> {
        let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !starts_well || !name.bytes().all(allowed) || name.len() > MAX_NAME {
            return Err(BadImageName(name.chars().take(MAX_NAME).collect()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for ImageName {
    type Error = BadImageName;

    fn try_from(name: String) -> Result<Self, BadImageName> {
        Self::new(&name)
    }
}

/// One image a name has pointed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Counts up from 1 and is never used twice for a name.
    pub number: u32,
    /// The image.
    pub image: Digest,
    /// Digest of the recipe it was built from.
    pub recipe: Digest,
    /// When it was built, in seconds since 1970.
    pub created: u64,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    /// Number of the generation in use.
    current: u32,
    /// The user went back to it: it stays in use whatever the recipe says now.
    #[serde(default)]
    held: bool,
    /// Serial of the newest image that was ever accepted, or of the one the user went back to.
    #[serde(default)]
    pub(crate) serial: u64,
    /// All generations, oldest first.
    pub(crate) generations: Vec<Generation>,
}

impl Default for Record {
    fn default() -> Self {
        Self { format: FORMAT, current: 0, held: false, serial: 0, generations: Vec::new() }
    }
}

impl Record {
    /// The generation in use.
    pub(crate) fn current(&self) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.number == self.current)
    }

    /// The image in use, for this recipe.
    pub(crate) fn image_for(&self, recipe: Digest) -> Option<Digest> {
        let current = self.current()?;
        (self.held || current.recipe == recipe).then_some(current.image)
    }

    /// Keeps the current generation in use whatever the recipe says.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// Uses another generation: this one, or the one before the current. False when there is none.
    pub(crate) fn go_back(&mut self, to: Option<u32>) -> bool {
        let mut numbers = self.generations.iter().map(|generation| generation.number);
        let found = match to {
            Some(number) => numbers.find(|&other| other == number),
            None => numbers.filter(|&number| number < self.current).max(),
        };
        let Some(number) = found else { return false };
        self.current = number;
        self.held = true;
        true
    }

    /// Forgets all but the current generation and the `keep` newest; returns those forgotten.
    pub(crate) fn thin_out(&mut self, keep: usize) -> Vec<Generation> {
        let first_kept = self.generations.len().saturating_sub(keep);
        let current = self.current;
        let mut index = 0;
        let forgotten = self.generations.extract_if(.., |generation| {
            index += 1;
            index <= first_kept && generation.number != current
        });
        forgotten.collect()
    }

    /// Makes the image current: in a new generation, unless the current one is the same.
    pub(crate) fn add(&mut self, image: Digest, recipe: Digest) {
        self.held = false;
        if let Some(current) = self.current()
            && (current.image, current.recipe) == (image, recipe)
        {
            return;
        }
        let last = self.generations.last();
        self.current = last.map_or(0, |generation| generation.number) + 1;
        self.generations.push(Generation {
            number: self.current,
            image,
            recipe,
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        });
    }
}

/// The folder of records and locks.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    folder: PathBuf,
}

impl Names {
    pub(crate) fn open(folder: PathBuf) -> Result<Self, FileError> {
        fs::create_dir_all(&folder).attempt("create", &folder)?;
        Ok(Self { folder })
    }

    /// The folder as it is, which may not be there.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The record of a name; an empty one when it has none.
    pub(crate) fn read(&self, name: &ImageName) -> Result<Record, StoreError> {
        let path = self.record_path(name);
        let bytes = match fs::read(&path).attempt("read", &path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => return Ok(Record::default()),
            Err(error) => return Err(error.into()),
        };
        match serde_json::from_slice::<Record>(&bytes) {
            Ok(record) if record.format == FORMAT => Ok(record),
            Ok(record) => Err(StoreError::RecordFormat { path, format: record.format }),
            Err(source) => Err(StoreError::Record { path, source }),
        }
    }

    /// All names there are records of, in order.
    pub(crate) fn all(&self) -> Result<Vec<ImageName>, FileError> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(&self.folder).attempt("list", &self.folder) {
            Ok(entries) => entries,
            Err(error) if error.is_absent() => return Ok(names),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let file = entry.attempt("list", &self.folder)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
            names.extend(name.and_then(|name| ImageName::new(name).ok()));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Replaces the record of a name. The caller holds the name's lock.
    pub(crate) fn write(&self, name: &ImageName, record: &Record) -> Result<(), FileError> {
        let path = self.record_path(name);
        let mut bytes = serde_json::to_vec_pretty(record).expect("a record has string keys only");
        bytes.push(b'\n');
        replace(&path, &bytes)
    }

    /// Takes the lock of a name; calls `wait` once when somebody else has it.
    pub(crate) fn lock(&self, name: &ImageName, wait: impl FnOnce()) -> Result<Lock, FileError> {
        let path = self.folder.join(format!("{name}.lock"));
        let file = open_lock(&path)?;
        match try_lock(file) {
            Ok(lock) => Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) => {
                wait();
                lock_blocking(file).attempt("lock", &path)
            }
            Err((_, error)) => Err(error).attempt("lock", &path),
        }
    }

    fn record_path(&self, name: &ImageName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

/// A lock that ends with this value, or with the process.
pub(crate) type Lock = Flock<File>;

/// Opens a lock file, made when it is not there.
pub(crate) fn open_lock(path: &Path) -> Result<File, FileError> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path).attempt("open", path)
}

/// Takes a lock if nobody has it.
pub(crate) fn try_lock(file: File) -> Result<Lock, (File, Errno)> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
}

fn lock_blocking(mut file: File) -> io::Result<Lock> {
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((same, Errno::EINTR)) => file = same,
            Err((_, error)) => return Err(error.into()),
        }
    }
}

/// Replaces a file as a whole, readable by everybody: either the old or the new bytes are
/// there, whatever happens.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;

    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .attempt("create a file in", folder)?;
    file.write_all(bytes).attempt("write", path)?;
    file.as_file().sync_all().attempt("write", path)?;
    file.persist(path).attempt("replace", path)?;
    sync_folder(folder)
}

/// Makes renames in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|folder| folder.sync_all()).attempt("sync", folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "-a", "é", "a b", &"a".repeat(65)] {
            assert!(ImageName::new(name).is_err(), "{name}");
        }
        for name in ["debian", "a.b_c-1", "0"] {
            assert_eq!(ImageName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn generations_count_up_and_equal_ones_are_not_repeated() {
        let (first, second) = (Digest::of(b"1"), Digest::of(b"2"));
        let mut record = Record::default();
        assert_eq!(record.current(), None);
        for image in [first, first, second, first] {
            record.add(image, Digest::of(b"recipe"));
        }
        let numbers: Vec<_> = record.generations.iter().map(|g| (g.number, g.image)).collect();
        assert_eq!(numbers, [(1, first), (2, second), (3, first)]);
        assert_eq!(record.current().unwrap().number, 3);
    }

    #[test]
    fn going_back_holds_until_the_next_is_added() {
        let (first, second) = (Digest::of(b"1"), Digest::of(b"2"));
        let (old, new) = (Digest::of(b"old recipe"), Digest::of(b"new recipe"));
        let mut record = Record::default();
        assert!(!record.go_back(None));
        record.add(first, old);
        record.add(second, new);
        assert_eq!((record.image_for(new), record.image_for(old)), (Some(second), None));
        assert!(record.go_back(None));
        assert_eq!(record.image_for(new), Some(first));
        assert!(!record.go_back(None), "nothing is older");
        assert!(!record.go_back(Some(9)));
        assert!(record.go_back(Some(2)));
        assert_eq!(record.image_for(old), Some(second));
        record.add(second, new);
        assert_eq!(record.image_for(old), None);
    }

    #[test]
    fn thinning_out_spares_the_current_and_the_newest() {
        let mut record = Record::default();
        for number in 0..5_u8 {
            record.add(Digest::of(&[number]), Digest::of(b"recipe"));
        }
        assert!(record.go_back(Some(2)));
        let numbers = |generations: &[Generation]| -> Vec<u32> {
            generations.iter().map(|generation| generation.number).collect()
        };
        assert_eq!(numbers(&record.thin_out(2)), [1, 3]);
        assert_eq!(numbers(&record.generations), [2, 4, 5]);
        assert!(record.thin_out(2).is_empty());
    }

    #[test]
    fn a_record_of_a_later_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::open(folder.path().to_owned()).unwrap();
        let name = ImageName::new("debian").unwrap();
        let text = r#"{"format": 2, "current": 1, "generations": []}"#;
        fs::write(names.record_path(&name), text).unwrap();
        let error = names.read(&name).unwrap_err();
        assert!(matches!(error, StoreError::RecordFormat { format: 2, .. }));
    }
}
