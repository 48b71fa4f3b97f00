//! Crediting the host's random bytes to the kernel's random number generator.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// Most bytes taken at once; the kernel's pool is 32 bytes, the host sends 64.
const MOST: usize = 512;

/// `struct rand_pool_info` of linux/random.h.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    len: libc::c_int,
    bytes: [u8; MOST],
}

// _IOW('R', 0x03, int[2]): the kernel numbers it by the header alone, without the bytes.
nix::ioctl_write_ptr_bad!(
    add_entropy,
    nix::request_code_write!(b'R', 0x03, 2 * size_of::<libc::c_int>()),
    PoolInfo
);

/// Adds `seed` to the pool and counts all of it as entropy.
pub(super) fn seed(seed: &[u8]) -> io::Result<()> {
    let seed = &seed[..seed.len().min(MOST)];
    let mut info =
        PoolInfo { entropy_bits: seed.len() as i32 * 8, len: seed.len() as i32, bytes: [0; MOST] };
    info.bytes[..seed.len()].copy_from_slice(seed);
    let pool = File::options().write(true).open("/dev/urandom")?;
    // SAFETY: the structure has the layout the kernel reads and `len` is within its bytes.
    unsafe { add_entropy(pool.as_raw_fd(), &info) }?;
    Ok(())
}

// _IO('R', 0x07)
nix::ioctl_none_bad!(reseed_now, nix::request_code_none!(b'R', 0x07));

/// Makes the generator take from the pool now, and not when its time has come: until then it goes on
/// from the state it has, which another guest may have had too.
pub(super) fn reseed() -> io::Result<()> {
    let pool = File::options().write(true).open("/dev/urandom")?;
    // SAFETY: the request takes no argument.
    unsafe { reseed_now(pool.as_raw_fd()) }?;
    Ok(())
}
