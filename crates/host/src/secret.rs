//! Bytes that go to no swap, no core dump and no process that is forked, and are overwritten at their
//! end: pages of their own, locked (mlock(2)) as far as `RLIMIT_MEMLOCK` goes.

use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use zeroize::Zeroize;

/// Whether some could not be locked.
static UNLOCKED: AtomicBool = AtomicBool::new(false);

/// Whether some pages of this process could not be locked, and may have been swapped out.
pub fn some_are_unlocked() -> bool {
    UNLOCKED.load(Ordering::Relaxed)
}

/// So many bytes.
pub struct Locked {
    /// Where they are; none of an empty one, which has no pages.
    pages: Option<NonNull<c_void>>,
    length: usize,
}

// SAFETY: it is the only owner of its pages, which no thread has a claim to.
unsafe impl Send for Locked {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Locked {}

impl Locked {
    /// So many zeroes. What cannot be locked is noted ([`some_are_unlocked`]), and used all the same.
    ///
    /// # Panics
    /// The machine has no memory left.
    pub fn zeroed(length: usize) -> Self {
        let Some(size) = NonZeroUsize::new(length) else {
            return Self { pages: None, length };
        };
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: new, private pages; the kernel chooses where.
        let pages = unsafe { mmap_anonymous(None, size, rights, MapFlags::MAP_PRIVATE) };
        let pages = pages.expect("memory for a secret");
        for advice in [MmapAdvise::MADV_DONTDUMP, MmapAdvise::MADV_DONTFORK] {
            // SAFETY: these pages are ours, and keep what is in them.
            if unsafe { madvise(pages, length, advice) }.is_err() {
                UNLOCKED.store(true, Ordering::Relaxed);
            }
        }
        // SAFETY: likewise.
        if unsafe { mlock(pages, length) }.is_err() {
            UNLOCKED.store(true, Ordering::Relaxed);
        }
        Self { pages: Some(pages), length }
    }

    /// A copy of these bytes.
    pub fn copied(bytes: &[u8]) -> Self {
        let mut locked = Self::zeroed(bytes.len());
        locked.copy_from_slice(bytes);
        locked
    }
}

impl Deref for Locked {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self.pages {
            None => &[],
            // SAFETY: so many bytes are mapped there, are initialized (the kernel gives zeroes), and are
            // borrowed with `self`.
            Some(pages) => unsafe {
                std::slice::from_raw_parts(pages.as_ptr().cast(), self.length)
            },
        }
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self.pages {
            None => &mut [],
            // SAFETY: as above, and `self` is borrowed alone.
            Some(pages) => unsafe {
                std::slice::from_raw_parts_mut(pages.as_ptr().cast(), self.length)
            },
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.zeroize();
        if let Some(pages) = self.pages {
            // SAFETY: nobody borrows it any more. Unmapping unlocks.
            let _ = unsafe { munmap(pages, self.length) };
        }
    }
}

impl std::fmt::Debug for Locked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Locked({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping that has this address, proc_pid_smaps(5).
    fn flags(address: usize) -> (String, String) {
        let text = std::fs::read_to_string("/proc/self/smaps").expect("read");
        let mut within = false;
        let mut locked = String::new();
        for line in text.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let ends = range.and_then(|(from, to)| {
                Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
            });
            if let Some((from, to)) = ends {
                within = (from..to).contains(&address);
            } else if within && line.starts_with("Locked:") {
                locked = line.to_owned();
            } else if within && line.starts_with("VmFlags:") {
                return (locked, line.to_owned());
            }
        }
        panic!("no mapping at {address:x}")
    }

    #[test]
    fn its_pages_are_locked_and_in_no_dump_and_no_child() {
        let secret = Locked::copied(b"sesame");
        assert_eq!(&*secret, b"sesame");
        let (locked, flags) = flags(secret.as_ptr() as usize);
        assert!(flags.contains(" dd") && flags.contains(" dc"), "{flags}");
        match some_are_unlocked() {
            false => {
                assert!(flags.contains(" lo") && !locked.contains(" 0 kB"), "{locked} {flags}")
            }
            true => {
                println!("skipped: secret::its_pages_are_locked: RLIMIT_MEMLOCK leaves no page")
            }
        }
        assert_eq!(format!("{secret:?}"), "Locked(6 bytes)");
    }

    #[test]
    fn none_and_many_bytes_are_kept() {
        assert_eq!(&*Locked::copied(b""), b"");
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        assert_eq!(&*Locked::copied(&bytes), &bytes);
        let mut zeroes = Locked::zeroed(8192);
        assert!(zeroes.iter().all(|byte| *byte == 0));
        zeroes[8191] = 1;
        assert_eq!(zeroes[8191], 1);
    }
}
