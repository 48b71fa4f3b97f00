//! Mount trees as descriptors: open_tree(2), mount_setattr(2) (Linux 5.12) and move_mount(2).
//!
//! A tree is cloned while the host's files are in reach, made read-only as a whole, and put in its
//! place when the new root is the root, so that no path is ever looked up across the two.

use std::ffi::CString;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use casemate_plan::jail::Inode;
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::fstat;

/// A cloned mount tree that is in no place yet.
pub(crate) struct Tree(OwnedFd);

impl Tree {
    /// Clones what is mounted at and below `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        let path = c_string(path)?;
        let flags =
            libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
        // SAFETY: the path is a C string that outlives the call; the rest are numbers.
        let fd = Errno::result(unsafe {
            libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)
        })?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// It must be of this file, if one is named: `ESTALE` when another has taken its place.
    pub(crate) fn check(&self, inode: Option<Inode>) -> Result<(), Errno> {
        let found = fstat(&self.0)?;
        let found = Inode { device: found.st_dev, number: found.st_ino };
        match inode {
            Some(inode) if inode != found => Err(Errno::ESTALE),
            _ => Ok(()),
        }
    }

    /// Adds mount attributes (`MOUNT_ATTR_*`) to the whole tree.
    pub(crate) fn restrict(&self, attributes: u64) -> Result<(), Errno> {
        set_attributes(self.0.as_fd(), c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, attributes)
    }

    /// Mounts it at `target`, which must exist.
    pub(crate) fn mount(self, target: &Path) -> Result<(), Errno> {
        let target = c_string(target)?;
        // SAFETY: both paths are C strings that outlive the call; the rest are numbers.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            )
        })
        .map(drop)
    }
}

/// Adds mount attributes to the mount at `/` alone.
pub(crate) fn restrict_root(attributes: u64) -> Result<(), Errno> {
    // SAFETY: AT_FDCWD is not a descriptor; with an absolute path the kernel does not look at it.
    let nowhere = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };
    set_attributes(nowhere, c"/", 0, attributes)
}

fn set_attributes(
    directory: BorrowedFd<'_>,
    path: &std::ffi::CStr,
    flags: libc::c_int,
    attributes: u64,
) -> Result<(), Errno> {
    let change =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path and the structure, whose size is passed, outlive the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            &change,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

fn c_string(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}
