//! Opening what lies in a folder that is open, and nothing else: no link is followed, no path leads out.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

/// Opens `name`, which may be a path, below `folder`.
pub(crate) fn open_beneath(
    folder: impl AsFd,
    name: &(impl NixPath + ?Sized),
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .mode(mode)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    loop {
        match openat2(&folder, name, how) {
            // Something was renamed at that moment.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Opens the folder `name` below `folder`.
pub(crate) fn open_folder(
    folder: impl AsFd,
    name: &(impl NixPath + ?Sized),
) -> Result<OwnedFd, Errno> {
    open_beneath(folder, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
}

/// What a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Link,
    Special,
}

pub(crate) fn kind(stat: &FileStat) -> Kind {
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Folder,
        SFlag::S_IFLNK => Kind::Link,
        _ => Kind::Special,
    }
}

/// What `name` in `folder` is; a link is a link.
pub(crate) fn look(folder: impl AsFd, name: &(impl NixPath + ?Sized)) -> Result<FileStat, Errno> {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Names in a folder, in order; more than `most` of them are an error.
pub(crate) fn names(folder: &OwnedFd, most: usize) -> io::Result<Vec<CString>> {
    let mut dir = Dir::from_fd(folder.try_clone()?)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
        if names.len() > most {
            return Err(io::Error::other("there are too many files in it"));
        }
    }
    names.sort();
    Ok(names)
}

pub(crate) fn c_string(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}
