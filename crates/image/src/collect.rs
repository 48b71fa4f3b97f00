//! Collecting what nothing needs any more: images that no generation names and nobody runs.
//!
//! Whoever runs an image holds it: a shared lock on its manifest, which ends with its process. An
//! image is collected only under the exclusive lock, so neither can overtake the other. Builds put
//! an image into the store before a generation names it; they hold the store meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Attempt, FileError};
use crate::image::{Image, MANIFEST};
use crate::names::{ImageName, Lock, open_lock};
use crate::scratch::Scratch;
use crate::store::{Store, StoreError};
use crate::{Digest, Generation};

/// What was derived from images is kept this long after it was last used: a start needs it for
/// seconds.
const DERIVED_LIFE: Duration = Duration::from_secs(3600);

/// An image that stays while this value lives.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "closing it is what ends the lock")] Lock);

impl Image {
    /// Keeps the image from being collected.
    ///
    /// # Errors
    /// It has just been collected.
    pub fn hold(&self) -> Result<Held, FileError> {
        let path = self.directory.join(MANIFEST);
        let file = File::open(&path).attempt("open", &path)?;
        let lock = Flock::lock(file, FlockArg::LockShared).map_err(|(_, error)| error);
        let lock = lock.attempt("lock", &path)?;
        // It may have been taken away while the lock was waited for.
        fs::metadata(&path).attempt("open", &path)?;
        Ok(Held(lock))
    }
}

/// What was, or would be, removed.
#[derive(Debug, Default)]
pub struct Collected {
    /// Images.
    pub images: Vec<Digest>,
    /// Generations that were forgotten before, with their names.
    pub generations: Vec<(ImageName, Generation)>,
    /// Bytes of the images.
    pub bytes: u64,
    /// Images that would have been removed, were they not in use.
    pub in_use: Vec<Digest>,
}

impl Store {
    /// Removes the images no generation names, but for those somebody runs. With `keep`, first
    /// forgets all generations of each name but the current and so many of the newest. With
    /// `dry_run` only says what it would do.
    ///
    /// # Errors
    /// A record cannot be read, or something cannot be removed; what was removed till then is gone.
    pub fn collect(&self, keep: Option<usize>, dry_run: bool) -> Result<Collected, StoreError> {
        let _no_builds = self.hold_alone()?;
        let mut collected = Collected::default();
        let mut named = BTreeSet::new();
        for name in self.names().all()? {
            let mut record = self.names().read(&name)?;
            if let Some(keep) = keep {
                let forgotten = record.thin_out(keep);
                if !dry_run && !forgotten.is_empty() {
                    self.names().write(&name, &record)?;
                }
                let with_name = forgotten.into_iter().map(|generation| (name.clone(), generation));
                collected.generations.extend(with_name);
            }
            named.extend(record.generations.iter().map(|generation| generation.image));
        }
        for digest in self.list()? {
            if named.contains(&digest) {
                continue;
            }
            let folder = self.image_path(digest);
            let Some(_lock) = lock_alone(&folder.join(MANIFEST))? else {
                collected.in_use.push(digest);
                continue;
            };
            collected.bytes += size_of(&folder)?;
            collected.images.push(digest);
            if !dry_run {
                // Away at once; a killed removal is finished by the next who opens the store.
                let scratch = Scratch::new(&self.scratch_folder())?;
                fs::rename(&folder, scratch.aside()).attempt("remove", &folder)?;
            }
        }
        if !dry_run {
            self.collect_derived()?;
        }
        Ok(collected)
    }

    /// Held while an image is in the store that no generation names yet.
    pub(crate) fn hold_for_build(&self) -> Result<Lock, FileError> {
        self.lock_store(FlockArg::LockShared)
    }

    fn hold_alone(&self) -> Result<Lock, FileError> {
        self.lock_store(FlockArg::LockExclusive)
    }

    fn lock_store(&self, how: FlockArg) -> Result<Lock, FileError> {
        let path = self.scratch_folder().with_file_name("lock");
        let mut file = open_lock(&path)?;
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(lock),
                Err((same, Errno::EINTR)) => file = same,
                Err((_, error)) => return Err(error).attempt("lock", &path),
            }
        }
    }

    fn collect_derived(&self) -> Result<(), FileError> {
        let folder = self.derived_folder();
        let now = SystemTime::now();
        for entry in fs::read_dir(&folder).attempt("list", &folder)? {
            let entry = entry.attempt("list", &folder)?;
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            let age = used.ok().and_then(|used| now.duration_since(used).ok()).unwrap_or_default();
            if age > DERIVED_LIFE {
                let path = entry.path();
                fs::remove_file(&path).attempt("remove", &path)?;
            }
        }
        Ok(())
    }
}

/// The exclusive lock on a manifest; none when somebody holds it. One that is not there is not
/// held.
fn lock_alone(manifest: &Path) -> Result<Option<Option<Lock>>, FileError> {
    let file = match File::open(manifest).attempt("open", manifest) {
        Ok(file) => file,
        Err(error) if error.is_absent() => return Ok(Some(None)),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(Some(lock))),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).attempt("lock", manifest),
    }
}

fn size_of(folder: &Path) -> Result<u64, FileError> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).attempt("list", folder)? {
        let entry = entry.attempt("list", folder)?;
        let metadata = entry.metadata().attempt("inspect", &entry.path())?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
