//! Reads a root file system from a folder of the host, as the user who builds.
//!
//! - What belongs to that user belongs to root in the image; other owners keep their number. So
//!   a folder unpacked without privileges and one made by root come to the same.
//! - Extended attributes are not read: an archive is the way to keep them.
//! - Only what is on the folder's own file system is read; a mount point is an empty folder.
//! - Everything is opened from the folder's descriptor, and no symbolic link is followed: what
//!   is changed meanwhile can make it fail, but not read something else.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{SFlag, fstatat};
use nix::unistd::{getegid, geteuid};

use crate::archive::{ArchiveError, EntryFault, EntryPath, Metadata, NodeKind, Spool, Tree, shown};
use crate::error::Attempt;

use super::RootfsError;

/// Reads the folder.
pub(super) fn read(path: &Path, spool: &mut Spool) -> Result<Tree, RootfsError> {
    let metadata = fs::metadata(path).attempt("open", path)?;
    if !metadata.is_dir() {
        return Err(RootfsError::Kind {
            path: path.to_owned(),
            found: "no folder",
            wanted: "dir",
            needed: "one (source = \"tar\" takes an archive)",
        });
    }
    let (mut reader, metadata) = Folder::open(path, b"", spool)?;
    let owner = (metadata.uid(), metadata.gid());
    let metadata =
        described(owner, metadata.mode()).map_err(|fault| reader.refused(b".", fault))?;
    reader.put(b".", metadata, NodeKind::Folder(BTreeMap::new()))?;
    reader.open.push(Vec::new());
    reader.finish()
}

/// Reads these entries of the folder, with all they have, as a tree in which the folder is at
/// `place`.
pub(super) fn read_some(
    path: &Path,
    names: &[OsString],
    place: &str,
    spool: &mut Spool,
) -> Result<Tree, RootfsError> {
    let (mut reader, _) = Folder::open(path, format!("{place}/").as_bytes(), spool)?;
    let root = reader.root.try_clone().attempt("open", path)?;
    let listing = Dir::from_fd(root.into()).attempt("list", path)?;
    for name in names {
        reader.entry(&listing, name.as_bytes(), name.as_bytes().to_vec())?;
    }
    reader.finish()
}

/// A folder being read.
struct Folder<'a> {
    path: &'a Path,
    /// Before each name in the tree.
    place: Vec<u8>,
    root: File,
    device: u64,
    tree: Tree,
    spool: &'a mut Spool,
    /// Names of files that have several, by device and number.
    files: HashMap<(u64, u64), Vec<u8>>,
    /// Folders to be read.
    open: Vec<Vec<u8>>,
}

impl<'a> Folder<'a> {
    fn open(
        path: &'a Path,
        place: &[u8],
        spool: &'a mut Spool,
    ) -> Result<(Self, fs::Metadata), RootfsError> {
        let root = File::open(path).attempt("open", path)?;
        let metadata = root.metadata().attempt("inspect", path)?;
        let reader = Self {
            path,
            place: place.to_vec(),
            device: metadata.dev(),
            root,
            tree: Tree::new(),
            spool,
            files: HashMap::new(),
            open: Vec::new(),
        };
        Ok((reader, metadata))
    }

    fn finish(mut self) -> Result<Tree, RootfsError> {
        while let Some(folder) = self.open.pop() {
            self.folder(&folder)?;
        }
        Ok(self.tree)
    }

    fn folder(&mut self, folder: &[u8]) -> Result<(), RootfsError> {
        let path = self.host_path(folder);
        let open = self.open_below(folder, OFlag::O_DIRECTORY).attempt("open", &path)?;
        let mut listing = Dir::from_fd(open).attempt("list", &path)?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let name = entry.attempt("list", &path)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let below = match folder {
                b"" => name.clone(),
                folder => [folder, b"/", &name].concat(),
            };
            self.entry(&listing, &name, below)?;
        }
        Ok(())
    }

    fn entry(&mut self, folder: &Dir, name: &[u8], at: Vec<u8>) -> Result<(), RootfsError> {
        let path = self.host_path(&at);
        let name = OsStr::from_bytes(name);
        let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).attempt("inspect", &path)?;
        let metadata = described((stat.st_uid, stat.st_gid), stat.st_mode)
            .map_err(|fault| self.refused(&at, fault))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        match kind {
            SFlag::S_IFDIR => {
                self.put(&at, metadata, NodeKind::Folder(BTreeMap::new()))?;
                if stat.st_dev == self.device {
                    self.open.push(at);
                }
                Ok(())
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(folder, name).attempt("read", &path)?.into_vec();
                self.put(&at, metadata, NodeKind::Symlink(target))
            }
            SFlag::S_IFREG => self.file(at, &path),
            SFlag::S_IFIFO => Err(self.refused(&at, EntryFault::NoFile("FIFO"))),
            SFlag::S_IFSOCK => Err(self.refused(&at, EntryFault::NoFile("socket"))),
            _ => Err(self.refused(&at, EntryFault::Device)),
        }
    }

    fn file(&mut self, at: Vec<u8>, path: &Path) -> Result<(), RootfsError> {
        let file = self.open_below(&at, OFlag::O_NONBLOCK).attempt("open", path)?;
        let mut file = File::from(file);
        let found = file.metadata().attempt("inspect", path)?;
        if !found.is_file() {
            return Err(io::Error::other("it was replaced meanwhile")).attempt("read", path)?;
        }
        let number = (found.dev(), found.ino());
        if found.nlink() > 1
            && let Some(first) = self.files.get(&number)
        {
            let target = self.parse(first);
            let linked = self.parse(&at).and_then(|name| self.tree.link(&name, &target?));
            return linked.map_err(|fault| self.refused(&at, fault));
        }
        let metadata = described((found.uid(), found.gid()), found.mode())
            .map_err(|fault| self.refused(&at, fault))?;
        let contents = self.spool.append::<RootfsError>(|buffer| {
            loop {
                match file.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return Ok(result.attempt("read", path)?),
                }
            }
        })?;
        self.put(&at, metadata, NodeKind::File(contents))?;
        if found.nlink() > 1 {
            self.files.insert(number, at);
        }
        Ok(())
    }

    fn put(&mut self, at: &[u8], metadata: Metadata, kind: NodeKind) -> Result<(), RootfsError> {
        self.parse(at)
            .and_then(|path| self.tree.put(&path, metadata, kind))
            .map_err(|fault| self.refused(at, fault))
    }

    fn parse(&self, at: &[u8]) -> Result<EntryPath, EntryFault> {
        EntryPath::parse(&[&self.place, at].concat())
    }

    /// Opens something below the folder for reading, following no link on the way.
    fn open_below(&self, at: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
        let at = if at.is_empty() { b"." } else { at };
        let flags = flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        openat2(&self.root, OsStr::from_bytes(at), OpenHow::new().flags(flags).resolve(resolve))
    }

    fn host_path(&self, at: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(at))
    }

    fn refused(&self, at: &[u8], fault: EntryFault) -> RootfsError {
        RootfsError::Folder {
            path: self.path.to_owned(),
            source: ArchiveError::Entry { entry: shown(at), fault },
        }
    }
}

/// Owner and permissions in the image of what has these on the host.
fn described((owner, group): (u32, u32), mode: u32) -> Result<Metadata, EntryFault> {
    let number = |id: u32, own: u32| match id {
        id if id == own => Ok(0),
        id => u16::try_from(id).map_err(|_| EntryFault::Owner(id.into())),
    };
    Ok(Metadata {
        owner: number(owner, geteuid().as_raw())?,
        group: number(group, getegid().as_raw())?,
        ..Metadata::of_root(mode & 0o7777)
    })
}
