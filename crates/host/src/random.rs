//! Random bytes from the kernel (getrandom(2)).

use std::io;

use nix::errno::Errno;
use nix::libc;

/// As many bytes as a guest's agent is given to seed its own generator with.
pub const SEED_LENGTH: usize = 64;

/// Fresh random bytes. Blocks only until the kernel's generator has been seeded once after boot.
///
/// # Errors
/// The kernel has no getrandom(2) (before 3.17) or forbids it.
pub fn seed() -> io::Result<[u8; SEED_LENGTH]> {
    let mut bytes = [0; SEED_LENGTH];
    loop {
        // SAFETY: the buffer is as long as said. Up to 256 bytes come whole (getrandom(2)).
        match Errno::result(unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) }) {
            Ok(_) => return Ok(bytes),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ() {
        let (one, other) = (seed().expect("random"), seed().expect("random"));
        assert_ne!(one, other);
        assert_ne!(one, [0; SEED_LENGTH]);
    }
}
