//! The root file system: finding its disk, mounting it read-only with a tmpfs overlay above, and
//! making it `/`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_wire::{RootDisk, Verity};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

use super::SetupError;
use super::mapper::{self, Target};
use super::mounts::{folder, mount_at};
use crate::log::Log;

/// How long a disk may take to appear. A kernel finds its disks in milliseconds; a busy host
/// without hardware virtualization has been seen to need hundreds of them.
const DISK_WAIT: Duration = Duration::from_secs(10);

/// File systems tried on a disk of the user's own.
const FILESYSTEMS: [&str; 5] = ["ext4", "erofs", "xfs", "btrfs", "squashfs"];

/// The new root before it is `/`.
const NEW: &str = "/newroot";

/// Mounts the root disk, and the overlay above it when that is asked for, at [`NEW`].
pub(super) fn mount_root(
    disk: &RootDisk,
    overlay_size: u64,
    nosuid: bool,
) -> Result<(), SetupError> {
    let flags = if nosuid { MsFlags::MS_NOSUID } else { MsFlags::empty() };
    let mut device = find_disk(&disk.serial)?;
    if let Some(verity) = &disk.verity {
        device = verified(&device, verity)
            .map_err(|source| SetupError::Verity { serial: disk.serial.clone(), source })?;
    }
    let device = device.to_string_lossy();
    folder(NEW)?;
    if !disk.overlay {
        return each_filesystem(disk, |filesystem| mount_disk(&device, NEW, filesystem, flags));
    }
    folder("/lower")?;
    folder("/over")?;
    let mounted = each_filesystem(disk, |filesystem| {
        mount_at(&device, "/lower", filesystem, MsFlags::MS_RDONLY, "")
    });
    mounted.map_err(|error| match disk.verity {
        // The superblock is the first block read, and with it every level of the tree.
        Some(_) => SetupError::Damaged { serial: disk.serial.clone(), source: error.into() },
        None => error,
    })?;
    let size = match overlay_size {
        0 => "mode=0755".to_owned(),
        size => format!("mode=0755,size={size}"),
    };
    mount_at("tmpfs", "/over", "tmpfs", MsFlags::MS_NODEV, &size)?;
    folder("/over/upper")?;
    folder("/over/work")?;
    let layers = "lowerdir=/lower,upperdir=/over/upper,workdir=/over/work";
    // The layers stay mounted below the new root, where nobody can reach them.
    mount_at("overlay", NEW, "overlay", flags, layers)
}

/// Mounts with the disk's file system; when that is not known, with the first that works.
fn each_filesystem(
    disk: &RootDisk,
    mount: impl Fn(&str) -> Result<(), SetupError>,
) -> Result<(), SetupError> {
    if disk.filesystem != RootDisk::ANY {
        return mount(&disk.filesystem);
    }
    let mut result = Ok(());
    for filesystem in FILESYSTEMS {
        result = mount(filesystem);
        if result.is_ok() {
            break;
        }
    }
    result.map_err(|_| SetupError::NoFilesystem {
        serial: disk.serial.clone(),
        known: FILESYSTEMS.join(", "),
    })
}

/// A device above `disk` that gives a block only when it verifies.
fn verified(disk: &Path, verity: &Verity) -> std::io::Result<PathBuf> {
    const BLOCK: u64 = 4096;
    let root_hash: String = verity.root_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let disk = disk.display();
    let parameters = format!(
        "1 {disk} {disk} {BLOCK} {BLOCK} {} {} sha256 {root_hash} -",
        verity.data_blocks, verity.hash_start
    );
    let sectors = verity.data_blocks.saturating_mul(BLOCK / mapper::SECTOR);
    mapper::create(
        "root",
        Target { kind: "verity", sectors, parameters: &parameters, read_only: true },
    )
}

/// Mounts a disk as it is: writable, or read-only when it cannot be written.
fn mount_disk(
    device: &str,
    target: &str,
    filesystem: &str,
    flags: MsFlags,
) -> Result<(), SetupError> {
    match mount(Some(device), target, Some(filesystem), flags, None::<&str>) {
        Err(Errno::EROFS | Errno::EACCES) => {
            mount_at(device, target, filesystem, flags | MsFlags::MS_RDONLY, "")
        }
        Ok(()) => Ok(()),
        Err(error) => Err(SetupError::Mount {
            what: device.to_owned(),
            target: target.to_owned(),
            source: error.into(),
        }),
    }
}

/// The device file of the virtio disk with this serial number.
pub(super) fn find_disk(serial: &str) -> Result<PathBuf, SetupError> {
    let begin = Instant::now();
    loop {
        let disks = disks(Path::new("/sys/block"));
        if let Some((name, _)) = disks.iter().find(|(_, found)| found == serial) {
            return Ok(Path::new("/dev").join(name));
        }
        if begin.elapsed() > DISK_WAIT {
            let present: Vec<_> =
                disks.iter().map(|(name, found)| format!("{name} ({found})")).collect();
            let present = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
            return Err(SetupError::NoDisk { serial: serial.to_owned(), present });
        }
        sleep(Duration::from_millis(2));
    }
}

/// Names and serial numbers of the virtio disks.
fn disks(block: &Path) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(block) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with("vd"))
        .map(|name| {
            let serial = fs::read_to_string(block.join(&name).join("serial")).unwrap_or_default();
            (name, serial.trim_end().to_owned())
        })
        .collect()
}

/// Makes [`NEW`] the root. The initrd's files are removed, for their memory.
pub(super) fn switch(log: &mut Log) -> Result<(), SetupError> {
    for name in ["dev", "sys"] {
        let (from, to) = (format!("/{name}"), format!("{NEW}/{name}"));
        folder(&to)?;
        mount(Some(from.as_str()), to.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .map_err(|error| SetupError::Mount { what: from, target: to, source: error.into() })?;
    }
    for name in ["proc", "run", "tmp"] {
        folder(&format!("{NEW}/{name}"))?;
    }
    if let Err(error) = remove_initrd() {
        log.warn(format!("could not free the initrd's memory: {error}"));
    }
    let into = |error: Errno| SetupError::Step {
        what: "switch to the root file system".to_owned(),
        source: error.into(),
    };
    chdir(NEW).map_err(into)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(into)?;
    chroot(".").map_err(into)?;
    chdir("/").map_err(into)
}

/// The agent's own program. Its memory is in use in any case, and the guest's programs run it too.
const SELF: &str = "/init";

/// Removes the files of the initrd's own file system, which is the root still, and no others.
fn remove_initrd() -> std::io::Result<()> {
    let device = fs::symlink_metadata("/")?.dev();
    remove_below(Path::new("/"), device)
}

fn remove_below(folder: &Path, device: u64) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            remove_below(&path, device)?;
            // Not empty when something is mounted below it.
            let _ = fs::remove_dir(&path);
        } else if path != Path::new(SELF) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_told_by_their_serial_number() {
        let block = std::env::temp_dir().join(format!("casemate-disks-{}", std::process::id()));
        for (name, serial) in [("vda", "root\n"), ("vdb", "data"), ("loop0", "root")] {
            fs::create_dir_all(block.join(name)).expect("a folder");
            fs::write(block.join(name).join("serial"), serial).expect("a file");
        }
        let mut found = disks(&block);
        found.sort();
        fs::remove_dir_all(&block).expect("removed");
        assert_eq!(found, [("vda".into(), "root".into()), ("vdb".into(), "data".into())]);
    }

    #[test]
    fn removing_stays_on_its_device() {
        let folder = std::env::temp_dir().join(format!("casemate-initrd-{}", std::process::id()));
        fs::create_dir_all(folder.join("modules")).expect("a folder");
        fs::write(folder.join("modules/a.ko"), "x").expect("a file");
        let device = fs::symlink_metadata(&folder).expect("is there").dev();
        remove_below(&folder, device + 1).expect("nothing to do");
        assert!(folder.join("modules/a.ko").exists());
        remove_below(&folder, device).expect("removed");
        assert!(!folder.join("modules").exists());
        fs::remove_dir(&folder).expect("empty");
    }
}
