//! Device mapper: block devices made of others, by the ioctls of `/dev/mapper/control`.
//!
//! Only what a boot needs: one target that covers the whole device. The structures are those of
//! the kernel's `linux/dm-ioctl.h`, interface version 4.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::libc;

/// The kernel's end of it.
const CONTROL: &str = "/dev/mapper/control";

/// Bytes in a sector, whatever the device's own blocks.
pub(super) const SECTOR: u64 = 512;

/// Major version of the interface.
const VERSION: u32 = 4;

/// `struct dm_ioctl`, `struct dm_target_spec`: their lengths and where the fields are.
mod layout {
    pub(super) const HEADER: usize = 312;
    pub(super) const DATA_SIZE: usize = 12;
    pub(super) const DATA_START: usize = 16;
    pub(super) const TARGET_COUNT: usize = 20;
    pub(super) const FLAGS: usize = 28;
    pub(super) const DEVICE: usize = 40;
    pub(super) const NAME: usize = 48;
    pub(super) const NAME_LEN: usize = 128;
    pub(super) const SPEC: usize = 40;
    pub(super) const SPEC_LENGTH: usize = 8;
    pub(super) const SPEC_TYPE: usize = 24;
    pub(super) const SPEC_TYPE_LEN: usize = 16;
}

const READ_ONLY: u32 = 1;
/// The kernel wipes its copy of the request: there is a key in it.
const SECURE_DATA: u32 = 1 << 15;

/// `DM_DEV_CREATE_CMD` and its companions.
#[derive(Clone, Copy)]
enum Command {
    Create = 3,
    Remove = 4,
    /// Without the suspend flag: resume.
    Suspend = 6,
    LoadTable = 9,
}

impl Command {
    /// `_IOWR(DM_IOCTL, command, struct dm_ioctl)`.
    const fn request(self) -> libc::c_ulong {
        const BOTH_WAYS: libc::c_ulong = 3;
        BOTH_WAYS << 30
            | (layout::HEADER as libc::c_ulong) << 16
            | 0xfd << 8
            | self as libc::c_ulong
    }
}

/// What a device is made of.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// `verity`, `crypt`.
    pub(super) kind: &'a str,
    /// Length of the device in sectors.
    pub(super) sectors: u64,
    /// The target's own words.
    pub(super) parameters: &'a str,
    /// No writes.
    pub(super) read_only: bool,
}

/// Makes a device; returns its file in `/dev`.
///
/// # Errors
/// When there is no device mapper, or it refuses the target. Nothing is left then.
pub(super) fn create(name: &str, target: Target<'_>) -> io::Result<PathBuf> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    let flags = if target.read_only { READ_ONLY } else { 0 };
    let created = call(&control, Command::Create, request(name, 0, &[]))?;
    let made =
        call(&control, Command::LoadTable, request(name, flags | SECURE_DATA, &table(target)))
            .and_then(|_| call(&control, Command::Suspend, request(name, flags, &[])));
    if let Err(error) = made {
        // The reason is worth more than a second failure.
        let _ = call(&control, Command::Remove, request(name, 0, &[]));
        return Err(error);
    }
    let device = read_u64(&created, layout::DEVICE);
    Ok(Path::new("/dev").join(format!("dm-{}", minor(device))))
}

/// A request about the device `name`, with `data` behind the header.
fn request(name: &str, flags: u32, data: &[u8]) -> Vec<u8> {
    assert!(name.len() < layout::NAME_LEN, "names are ours and short");
    // The kernel writes its answer over the request.
    let mut bytes = vec![0; layout::HEADER + data.len()];
    let size = bytes.len() as u32;
    put(&mut bytes, 0, &VERSION.to_le_bytes());
    put(&mut bytes, layout::DATA_SIZE, &size.to_le_bytes());
    put(&mut bytes, layout::DATA_START, &(layout::HEADER as u32).to_le_bytes());
    put(&mut bytes, layout::TARGET_COUNT, &u32::from(!data.is_empty()).to_le_bytes());
    put(&mut bytes, layout::FLAGS, &flags.to_le_bytes());
    put(&mut bytes, layout::NAME, name.as_bytes());
    put(&mut bytes, layout::HEADER, data);
    bytes
}

/// A table of one target, which begins at sector 0.
fn table(target: Target<'_>) -> Vec<u8> {
    assert!(target.kind.len() < layout::SPEC_TYPE_LEN, "kinds are the kernel's and short");
    // The parameters end with a NUL; the whole is a multiple of 8.
    let length = (layout::SPEC + target.parameters.len() + 1).next_multiple_of(8);
    let mut bytes = vec![0; length];
    put(&mut bytes, layout::SPEC_LENGTH, &target.sectors.to_le_bytes());
    put(&mut bytes, layout::SPEC_TYPE, target.kind.as_bytes());
    put(&mut bytes, layout::SPEC, target.parameters.as_bytes());
    bytes
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// Makes one call; returns what the kernel left of the request. What was in it is wiped: there may
/// be a key in it.
fn call(
    control: &File,
    command: Command,
    mut request: Vec<u8>,
) -> io::Result<[u8; layout::HEADER]> {
    // SAFETY: the request begins with a `struct dm_ioctl` that says how long it is, and the kernel
    // reads and writes no further. It lives until the call returns.
    let result =
        unsafe { libc::ioctl(control.as_raw_fd(), command.request(), request.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    let mut answer = [0; layout::HEADER];
    answer.copy_from_slice(&request[..layout::HEADER]);
    request.fill(0);
    // The compiler must not leave that out because nobody reads it.
    std::hint::black_box(&mut request);
    if result < 0 { Err(error) } else { Ok(answer) }
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

/// The minor number in the kernel's `huge_encode_dev` form (linux/kdev_t.h).
fn minor(device: u64) -> u64 {
    device & 0xff | device >> 12 & 0xf_ff00
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_the_kernel_wants_them() {
        // The value of DM_DEV_CREATE in linux/dm-ioctl.h on every architecture Linux has.
        assert_eq!(Command::Create.request(), 0xc138_fd03);
        let target = Target { kind: "verity", sectors: 8, parameters: "1 a", read_only: true };
        let table = table(target);
        assert_eq!((table.len(), table[8], &table[24..30]), (48, 8, &b"verity"[..]));
        assert_eq!(&table[40..], b"1 a\0\0\0\0\0");
        let request = request("root", READ_ONLY, &table);
        assert_eq!(request.len(), 360);
        assert_eq!((request[0], request[20], request[28]), (4, 1, 1));
        assert_eq!(&request[12..20], &[0x68, 1, 0, 0, 0x38, 1, 0, 0]);
        assert_eq!((&request[48..53], &request[312..]), (&b"root\0"[..], &table[..]));
    }

    #[test]
    fn minor_numbers_beyond_a_byte_are_whole() {
        assert_eq!(minor(0xfe03), 3);
        assert_eq!(minor(0x0010_fe01), 0x101);
    }
}
