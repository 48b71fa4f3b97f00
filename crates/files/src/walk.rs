//! What is to be sent: looked at as a whole before the first byte goes, so that what cannot go is told at
//! once and the receiver knows how much will come.
//!
//! A link that was named is followed, as `cp` does; one inside a folder is left out and told, and so is
//! what is neither file nor folder. To be moved, everything must go: then both are refused.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::entry::{self, Kind};
use crate::limits::{MAX_DEPTH, MAX_ENTRIES, MAX_PATH};
use crate::name::{self, NameError};

/// Most left-out files that are told one by one.
const MAX_LEFT_OUT: usize = 1000;

/// Why something cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// It cannot be read.
    #[error("could not read {}", .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its name cannot be sent.
    #[error("could not send {path:?}")]
    Name {
        /// What.
        path: PathBuf,
        /// Why.
        source: NameError,
    },
    /// A link, a socket, a device.
    #[error("could not send {}: {why}", .path.display())]
    Kind {
        /// What.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// Beyond the limits.
    #[error("could not send {}: it has more than {MAX_ENTRIES} files, or folders deeper than {MAX_DEPTH}", .path.display())]
    Large {
        /// What.
        path: PathBuf,
    },
}

impl WalkError {
    pub(crate) fn io<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> Self {
        move |error| Self::Io { path: path.into(), source: error.into() }
    }
}

/// Something that is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What.
    pub path: PathBuf,
    /// Why not.
    pub why: &'static str,
}

/// What a walk comes by.
pub(crate) struct Found<'a> {
    pub(crate) folder: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) real: &'a CStr,
    /// Its name in the copy.
    pub(crate) name: &'a str,
    /// Where a person finds it.
    pub(crate) path: &'a Path,
    pub(crate) stat: &'a FileStat,
}

/// What is done on the way.
pub(crate) trait Visitor {
    type Error: From<WalkError>;
    fn file(&mut self, found: &Found<'_>) -> Result<(), Self::Error>;
    fn folder(&mut self, found: &Found<'_>) -> Result<(), Self::Error>;
    fn leave(&mut self) -> Result<(), Self::Error>;
    fn left_out(&mut self, path: &Path, why: &'static str) -> Result<(), Self::Error>;
    /// Something that was named begins.
    fn item(&mut self, item: &Item) -> Result<(), Self::Error>;
    /// And ends.
    fn item_end(&mut self) -> Result<(), Self::Error>;
}

/// Something that was named.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) folder: Rc<OwnedFd>,
    real: std::ffi::CString,
    name: String,
    path: PathBuf,
}

/// Finds what was named.
pub(crate) fn items(paths: &[PathBuf], moving: bool) -> Result<Vec<Item>, WalkError> {
    // Whoever names a thousand files names them in few folders, and may have open a thousand.
    let mut folders = BTreeMap::new();
    paths.iter().map(|path| item(path, moving, &mut folders)).collect()
}

fn item(
    path: &Path,
    moving: bool,
    folders: &mut BTreeMap<PathBuf, Rc<OwnedFd>>,
) -> Result<Item, WalkError> {
    let failed = || WalkError::io::<io::Error>(path);
    let real = path.canonicalize().map_err(failed())?;
    if moving && path.symlink_metadata().map_err(failed())?.is_symlink() {
        return Err(WalkError::Kind { path: path.into(), why: "it is a symbolic link" });
    }
    let (Some(parent), Some(last)) = (real.parent(), real.file_name()) else {
        return Err(WalkError::Kind { path: path.into(), why: "it is the root of everything" });
    };
    let name = path.file_name().unwrap_or(last);
    let name = name::check(name.as_bytes())
        .map_err(|source| WalkError::Name { path: path.into(), source })?;
    let folder = match folders.get(parent) {
        Some(folder) => Rc::clone(folder),
        None => {
            let opened = std::fs::File::open(parent).map_err(failed())?;
            let folder = Rc::new(OwnedFd::from(opened));
            folders.insert(parent.into(), Rc::clone(&folder));
            folder
        }
    };
    Ok(Item {
        folder,
        real: entry::c_string(Path::new(last)).map_err(WalkError::io(path))?,
        name: name.to_owned(),
        path: path.into(),
    })
}

/// Goes through everything.
pub(crate) fn walk<V: Visitor>(items: &[Item], visitor: &mut V) -> Result<(), V::Error> {
    for item in items {
        let stat =
            entry::look(&item.folder, item.real.as_c_str()).map_err(WalkError::io(&item.path))?;
        visitor.item(item)?;
        let found = Found {
            folder: item.folder.as_fd(),
            real: &item.real,
            name: &item.name,
            path: &item.path,
            stat: &stat,
        };
        match entry::kind(&stat) {
            Kind::File => visitor.file(&found)?,
            Kind::Folder => folder(&found, 1, item.name.len(), visitor)?,
            Kind::Link | Kind::Special => {
                let why = "it is neither a file nor a folder";
                return Err(WalkError::Kind { path: item.path.clone(), why }.into());
            }
        }
        visitor.item_end()?;
    }
    Ok(())
}

fn folder<V: Visitor>(
    found: &Found<'_>,
    depth: usize,
    length: usize,
    visitor: &mut V,
) -> Result<(), V::Error> {
    if depth > MAX_DEPTH {
        return Err(WalkError::Large { path: found.path.into() }.into());
    }
    visitor.folder(found)?;
    let opened = entry::open_folder(found.folder, found.real).map_err(WalkError::io(found.path))?;
    let names = entry::names(&opened, MAX_ENTRIES as usize).map_err(WalkError::io(found.path))?;
    for real in &names {
        let path = found.path.join(OsStr::from_bytes(real.to_bytes()));
        let stat = match entry::look(&opened, real.as_c_str()) {
            // Gone meanwhile.
            Err(Errno::ENOENT) => continue,
            other => other.map_err(WalkError::io(&path))?,
        };
        let what = entry::kind(&stat);
        match what {
            Kind::Link => visitor.left_out(&path, "it is a symbolic link")?,
            Kind::Special => visitor.left_out(&path, "it is neither a file nor a folder")?,
            Kind::File | Kind::Folder => {
                let name = name::check(real.to_bytes())
                    .map_err(|source| WalkError::Name { path: path.clone(), source })?;
                let length = length + name.len();
                if length > MAX_PATH {
                    return Err(WalkError::Large { path }.into());
                }
                let inner = Found { folder: opened.as_fd(), real, name, path: &path, stat: &stat };
                match what {
                    Kind::File => visitor.file(&inner)?,
                    _ => self::folder(&inner, depth + 1, length, visitor)?,
                }
            }
        }
    }
    visitor.leave()
}

/// How much there is to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Files and folders.
    pub entries: u32,
    /// Bytes in files.
    pub bytes: u64,
    /// What is not sent.
    pub left_out: Vec<LeftOut>,
    moving: bool,
}

/// Looks at what is to be sent.
///
/// # Errors
/// Something cannot go at all.
pub fn survey(paths: &[PathBuf], moving: bool) -> Result<Survey, WalkError> {
    survey_items(&items(paths, moving)?, moving)
}

pub(crate) fn survey_items(items: &[Item], moving: bool) -> Result<Survey, WalkError> {
    let mut survey = Survey { moving, ..Survey::default() };
    walk(items, &mut survey)?;
    Ok(survey)
}

impl Survey {
    fn count(&mut self, path: &Path) -> Result<(), WalkError> {
        self.entries += 1;
        match self.entries > MAX_ENTRIES {
            true => Err(WalkError::Large { path: path.into() }),
            false => Ok(()),
        }
    }
}

impl Visitor for Survey {
    type Error = WalkError;

    fn file(&mut self, found: &Found<'_>) -> Result<(), WalkError> {
        self.bytes = self.bytes.saturating_add(found.stat.st_size.unsigned_abs());
        self.count(found.path)
    }

    fn folder(&mut self, found: &Found<'_>) -> Result<(), WalkError> {
        self.count(found.path)
    }

    fn leave(&mut self) -> Result<(), WalkError> {
        Ok(())
    }

    fn left_out(&mut self, path: &Path, why: &'static str) -> Result<(), WalkError> {
        if self.moving {
            return Err(WalkError::Kind { path: path.into(), why });
        }
        if self.left_out.len() < MAX_LEFT_OUT {
            self.left_out.push(LeftOut { path: path.into(), why });
        }
        Ok(())
    }

    fn item(&mut self, _: &Item) -> Result<(), WalkError> {
        Ok(())
    }

    fn item_end(&mut self) -> Result<(), WalkError> {
        Ok(())
    }
}
