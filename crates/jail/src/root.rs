//! The file system of a jail: a small tmpfs in which the listed files are mounted, and `/proc`.

use std::fs::{self, File, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

use casemate_plan::jail::{Access, VisibleFile};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use crate::error::{JailError, While};
use crate::trees::{self, Tree};

/// Where the new root is mounted for a moment: the one directory that is always there.
const STAGE: &str = "/proc";
/// Where the host's root is until it is detached.
const OLD: &str = "/.old";
/// The new root holds directories and empty files only.
const ROOT_OPTIONS: &str = "mode=0755,size=1m";
/// `hidepid=2`: processes of other users (init) are not there. `subset=pid`: nor is the rest of
/// the kernel's state. See proc(5).
const PROC_OPTIONS: &str = "hidepid=2,subset=pid";
/// Where the processes are when `/proc` is a folder of its own, because something below it is
/// listed that they hide.
pub(crate) const PROCESSES: &str = "/processes";
/// The process's own folders then, as links.
const OWN: [&str; 2] = ["self", "thread-self"];

/// One thing to put into the new root.
struct Entry {
    target: PathBuf,
    what: What,
}

enum What {
    Link(PathBuf),
    Directory(Tree),
    Empty,
    File(Tree),
}

/// Replaces the whole file system of this process by the listed files, for good.
pub(crate) fn build(files: &[VisibleFile]) -> Result<(), JailError> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .while_(|| "make the mounts private".into())?;
    let mut entries = Vec::new();
    for file in files {
        entries.extend(collect(file)?);
    }
    // Parents first.
    entries.sort_by_key(|entry| entry.target.components().count());

    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("jail"), STAGE, Some("tmpfs"), flags, Some(ROOT_OPTIONS))
        .while_(|| "mount the new root".into())?;
    chdir(STAGE).while_(|| "enter the new root".into())?;
    make_directory(Path::new(&OLD[1..]))?;
    pivot_root(".", &OLD[1..]).while_(|| "make the new root the root".into())?;
    chdir("/").while_(|| "change to /".into())?;
    mount_proc(entries.iter().any(|entry| entry.target.starts_with("/proc")))?;
    umount2(OLD, MntFlags::MNT_DETACH).while_(|| "detach the old root".into())?;
    fs::remove_dir(OLD).while_(|| "remove the place of the old root".into())?;

    for entry in entries {
        put(entry)?;
    }
    trees::restrict_root(
        libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC,
    )
    .while_(|| "make the root read-only".into())
}

/// Clones one listed file from the host, with the attributes it will have.
fn collect(file: &VisibleFile) -> Result<Option<Entry>, JailError> {
    if file.access == Access::Empty {
        return Ok(Some(Entry { target: file.target.clone(), what: What::Empty }));
    }
    let source = &file.source;
    let metadata = match fs::symlink_metadata(source) {
        Ok(metadata) => metadata,
        Err(error) if file.optional && is_absent(&error) => return Ok(None),
        Err(error) => return Err(error).while_(|| format!("find {}", source.display())),
    };
    let what = if metadata.is_symlink() && file.inode.is_none() {
        What::Link(fs::read_link(source).while_(|| format!("read {}", source.display()))?)
    } else {
        let tree = Tree::open(source)
            .and_then(|tree| tree.check(file.inode).map(|()| tree))
            .and_then(|tree| tree.restrict(attributes(file.access, &metadata)).map(|()| tree))
            .while_(|| format!("mount {}", source.display()))?;
        if metadata.is_dir() { What::Directory(tree) } else { What::File(tree) }
    };
    Ok(Some(Entry { target: file.target.clone(), what }))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn attributes(access: Access, metadata: &Metadata) -> u64 {
    let mut attributes = libc::MOUNT_ATTR_NOSUID;
    if !is_device(metadata.file_type()) {
        attributes |= libc::MOUNT_ATTR_NODEV;
    }
    if !matches!(access, Access::Write | Access::Change | Access::Sockets) {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    if access != Access::Execute {
        attributes |= libc::MOUNT_ATTR_NOEXEC;
    }
    attributes
}

fn is_device(kind: FileType) -> bool {
    kind.is_char_device() || kind.is_block_device()
}

/// A fresh `/proc` of the new PID namespace. The kernel refuses it where parts of the host's own
/// are masked, as they are in most containers: the jail then has an empty one.
fn mount_proc(apart: bool) -> Result<(), JailError> {
    let place = if apart { PROCESSES } else { "/proc" };
    make_directory(Path::new("/proc"))?;
    make_directory(Path::new(place))?;
    if apart {
        for name in OWN {
            let (to, link) = (format!("{PROCESSES}/{name}"), format!("/proc/{name}"));
            symlink(to, link).while_(|| format!("link /proc/{name}"))?;
        }
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = mount(Some("proc"), place, Some("proc"), flags, Some(PROC_OPTIONS));
    if let Err(error) = mounted {
        crate::error::say(&format!("casemate-jail: the jail has no /proc: {error}"));
    }
    Ok(())
}

/// Puts an entry into its place; the new root is the root now.
fn put(entry: Entry) -> Result<(), JailError> {
    let target = &entry.target;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).while_(|| format!("make {}", parent.display()))?;
    }
    let step = || format!("mount {}", target.display());
    match entry.what {
        What::Link(to) => match symlink(&to, target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).while_(|| format!("link {}", target.display()))
            }
            _ => Ok(()),
        },
        What::Empty => make_directory(target),
        What::Directory(tree) => {
            make_directory(target)?;
            tree.mount(target).while_(step)
        }
        What::File(tree) => {
            if fs::symlink_metadata(target).is_err() {
                File::create_new(target).while_(|| format!("make {}", target.display()))?;
            }
            tree.mount(target).while_(step)
        }
    }
}

fn make_directory(path: &Path) -> Result<(), JailError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).while_(|| format!("make {}", path.display()))
        }
        _ => Ok(()),
    }
}
