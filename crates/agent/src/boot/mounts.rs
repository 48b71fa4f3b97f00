//! Mounting: one call that names what failed, and the file systems that programs expect.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::SetupError;

/// For file systems that hold no programs and no devices of their own.
const NOTHING_SPECIAL: MsFlags =
    MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// mount(2). Something mounted there already by the kernel is as good.
pub(super) fn mount_at(
    what: &str,
    target: &str,
    filesystem: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), SetupError> {
    let options = (!options.is_empty()).then_some(options);
    match mount(Some(what), target, Some(filesystem), flags, options) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(SetupError::Mount {
            what: what.to_owned(),
            target: target.to_owned(),
            source: error.into(),
        }),
    }
}

/// mkdir; one that is there already is as good, and so is one that cannot be made on a read-only
/// root: the mount that follows says what is missing.
pub(super) fn folder(path: &str) -> Result<(), SetupError> {
    match fs::create_dir(path) {
        Err(error)
            if error.kind() != io::ErrorKind::AlreadyExists
                && error.kind() != io::ErrorKind::ReadOnlyFilesystem =>
        {
            Err(SetupError::file("create the folder", path)(error))
        }
        _ => Ok(()),
    }
}

/// What is needed to find the port and the disks: devices and what sysfs says of them.
///
/// # Errors
/// When the kernel cannot mount them: it is built without.
pub(crate) fn early() -> Result<(), SetupError> {
    folder("/dev")?;
    folder("/sys")?;
    mount_at("dev", "/dev", "devtmpfs", MsFlags::MS_NOSUID, "mode=0755")?;
    mount_at("sysfs", "/sys", "sysfs", NOTHING_SPECIAL, "")
}

/// Everything else that a program expects of a Linux system, in the new root.
///
/// # Errors
/// When one cannot be mounted. cgroup2 is the exception: without it sessions have no cgroup.
pub(super) fn for_programs() -> Result<(), SetupError> {
    let memory = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let terminal_options = "newinstance,ptmxmode=0666,mode=620,gid=5";
    mount_at("proc", "/proc", "proc", NOTHING_SPECIAL, "")?;
    folder("/dev/pts")?;
    folder("/dev/shm")?;
    mount_at("devpts", "/dev/pts", "devpts", terminals, terminal_options)?;
    mount_at("tmpfs", "/dev/shm", "tmpfs", memory, "mode=1777")?;
    mount_at("tmpfs", "/run", "tmpfs", memory, "mode=0755")?;
    mount_at("tmpfs", "/tmp", "tmpfs", memory, "mode=1777")?;
    let _ = mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", NOTHING_SPECIAL, "nsdelegate");
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        // There already when the kernel or an image made them.
        let _ = symlink(target, link);
    }
    folder("/run/lock")
}
