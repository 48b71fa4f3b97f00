//! Volumes: decrypting, formatting what is new, growing what the host has grown, mounting.
//!
//! The host keeps the LUKS header and sends the key; the disk holds nothing but encrypted blocks.
//! Whether it is new is the host's word too: a guest that guesses from what it reads could format
//! over data it failed to read.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use casemate_wire::VolumeMount;
use nix::libc;
use nix::mount::MsFlags;

use super::SetupError;
use super::mapper::{self, Target};
use super::mounts::mount_at;
use super::root::find_disk;
use crate::accounts;

nix::ioctl_read!(device_bytes, 0x12, 114, u64);

/// Where a file system's own programs are, with `/usr` merged or not.
const PROGRAMS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A file system that was just made, and what it was mounted on.
#[derive(Debug)]
pub(super) struct Fresh {
    mount_point: String,
    /// Owner, group and mode of the folder there was; none when it was made for this.
    before: Option<(u32, u32, u32)>,
}

/// Mounts all of them. Returns those that are new, to be given their owners when accounts exist.
pub(super) fn mount(volumes: &[VolumeMount]) -> Result<Vec<Fresh>, SetupError> {
    let mut fresh = Vec::new();
    for volume in volumes {
        let failed = |what: &str| {
            let what = format!("{what} the volume {:?}", volume.name);
            move |source: io::Error| SetupError::Step { what, source }
        };
        let disk = find_disk(&volume.serial)?;
        let device = decrypted(&disk, volume).map_err(failed("decrypt"))?;
        if volume.blank {
            format(&device, volume)?;
        } else {
            grow(&device, volume)?;
        }
        let before = fs::metadata(&volume.mount_point);
        let before = before.ok().map(|found| (found.uid(), found.gid(), found.mode() & 0o7777));
        if before.is_none() {
            fs::create_dir_all(&volume.mount_point)
                .map_err(SetupError::file("create the folder", &volume.mount_point))?;
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        let device = device.to_string_lossy();
        // What is freed is given back to the host.
        mount_at(&device, &volume.mount_point, &volume.filesystem, flags, "discard")?;
        if volume.blank {
            fresh.push(Fresh { mount_point: volume.mount_point.clone(), before });
        }
    }
    Ok(fresh)
}

/// Gives new file systems the owner and mode of the folder they are mounted on; where there was
/// none, the default user owns them.
pub(super) fn give(fresh: &[Fresh], default_user: &str) -> Result<(), SetupError> {
    for Fresh { mount_point, before } in fresh {
        let owner = || match accounts::look_up(default_user) {
            Ok(Some((account, _))) => (account.uid, account.gid, 0o755),
            _ => (0, 0, 0o755),
        };
        let (uid, gid, mode) = before.unwrap_or_else(owner);
        chown(mount_point, Some(uid), Some(gid))
            .and_then(|()| fs::set_permissions(mount_point, fs::Permissions::from_mode(mode)))
            .map_err(SetupError::file("set the owner of", mount_point))?;
    }
    Ok(())
}

/// A device above the disk that encrypts what is written to it.
fn decrypted(disk: &Path, volume: &VolumeMount) -> io::Result<std::path::PathBuf> {
    let bytes = size_of(&File::open(disk)?)?;
    let mut parameters = String::with_capacity(256);
    parameters.push_str("aes-xts-plain64 ");
    for byte in volume.key.bytes() {
        for digit in [byte >> 4, byte & 15] {
            parameters.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    parameters.push_str(&format!(
        " 0 {} 0 2 allow_discards sector_size:{}",
        disk.display(),
        volume.sector_size
    ));
    let device = mapper::create(
        &format!("volume-{}", volume.name),
        Target {
            kind: "crypt",
            sectors: bytes / mapper::SECTOR,
            parameters: &parameters,
            read_only: false,
        },
    );
    // The kernel has its copy; ours is overwritten before its memory is given back.
    let mut bytes = parameters.into_bytes();
    bytes.fill(0);
    std::hint::black_box(&mut bytes);
    device
}

fn format(device: &Path, volume: &VolumeMount) -> Result<(), SetupError> {
    let make = format!("mkfs.{}", volume.filesystem);
    let options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
    run(&make, &options, device, "format", volume)
}

/// Grows the file system when the disk has become larger.
fn grow(device: &Path, volume: &VolumeMount) -> Result<(), SetupError> {
    let failed = SetupError::file("read", device);
    let sizes = || Ok((ext4_size(device)?, size_of(&File::open(device)?)?));
    let (filesystem, disk) = sizes().map_err(failed)?;
    // Smaller differences are what no group of blocks fits in.
    if filesystem.is_none_or(|filesystem| filesystem + (1 << 20) > disk) {
        return Ok(());
    }
    // resize2fs wants a file system that was checked since it was last mounted.
    run("e2fsck", &["-f", "-p"], device, "check", volume)?;
    run("resize2fs", &[], device, "grow", volume)
}

/// Size of an ext4 file system, in bytes; none when there is none. Layout: the kernel's
/// `Documentation/filesystems/ext4/globals.rst`, "Super Block".
fn ext4_size(device: &Path) -> io::Result<Option<u64>> {
    let mut block = [0; 1024];
    let mut file = File::open(device)?;
    file.seek(SeekFrom::Start(1024))?;
    file.read_exact(&mut block)?;
    let word = |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|byte| block[at + byte])));
    let is_ext4 = block[0x38..0x3a] == [0x53, 0xef];
    let size = (word(0x150) << 32 | word(0x4)).checked_shl(10 + (word(0x18) as u32 & 15));
    Ok(size.filter(|_| is_ext4))
}

fn size_of(device: &File) -> io::Result<u64> {
    use std::os::fd::AsRawFd;
    let mut bytes = 0;
    // SAFETY: the argument is a u64 that outlives the call.
    unsafe { device_bytes(device.as_raw_fd(), &mut bytes) }?;
    Ok(bytes)
}

/// Runs one of the image's programs on a device. It is process 1's only child yet, so nobody else
/// reaps it.
fn run(
    program: &str,
    options: &[&str],
    device: &Path,
    verb: &str,
    volume: &VolumeMount,
) -> Result<(), SetupError> {
    let what = format!("{verb} the volume {:?} ({program})", volume.name);
    let places = PROGRAMS.map(|folder| Path::new(folder).join(program));
    let file = places.iter().find(|file| file.exists()).unwrap_or(&places[0]);
    let done = Command::new(file).args(options).arg(device).env_clear().current_dir("/").output();
    match done {
        // e2fsck: 1 says that it has mended something.
        Ok(done)
            if done.status.success() || program == "e2fsck" && done.status.code() == Some(1) =>
        {
            Ok(())
        }
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            let said = said.lines().last().unwrap_or_default();
            Err(SetupError::Step {
                what,
                source: io::Error::other(format!("{}: {said}", done.status)),
            })
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            let missing = format!("the image has no {program}; add the package e2fsprogs to it");
            Err(SetupError::Step { what, source: io::Error::other(missing) })
        }
        Err(source) => Err(SetupError::Step { what, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_of_an_ext4_file_system_is_read_from_its_superblock() {
        let path = std::env::temp_dir().join(format!("casemate-ext4-{}", std::process::id()));
        let mut image = vec![0; 4096];
        fs::write(&path, &image).expect("written");
        assert_eq!(ext4_size(&path).expect("read"), None);
        image[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        image[1024 + 0x4..1024 + 0x8].copy_from_slice(&300_u32.to_le_bytes());
        image[1024 + 0x18] = 2;
        fs::write(&path, &image).expect("written");
        let size = ext4_size(&path).expect("read");
        fs::remove_file(&path).expect("removed");
        assert_eq!(size, Some(300 * 4096));
    }
}
