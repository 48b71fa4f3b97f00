//! The regions of one guest's memory, mapped from the descriptors its front-end sent.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use nix::unistd::{SysconfVar, sysconf};

use super::fault::{Watch, WatchError};
use super::{Memory, Span};

/// Regions of one guest. QEMU has two to eight, and one more for each piece of memory plugged in.
pub const MAX_REGIONS: usize = 32;

/// Bytes of one guest, so that no port can use up the addresses of the process: 256 of them fit
/// into half of 47 bits.
pub const MAX_MEMORY: u64 = 256 << 30;

/// What a front-end says about one region.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Region {
    /// Its first guest address.
    pub guest: u64,
    /// Length in bytes.
    pub length: u64,
    /// Its first address in the front-end.
    pub front_end: u64,
    /// Where it begins in the file of its descriptor.
    pub offset: u64,
}

/// Why a region cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Its length is zero, or an end does not fit into 64 bits.
    #[error("region of {length} bytes at {guest:#x} is empty or wraps")]
    Bounds {
        /// Its guest address.
        guest: u64,
        /// Its length.
        length: u64,
    },
    /// Two regions share an address.
    #[error("region at {guest:#x} overlaps another")]
    Overlap {
        /// The guest address of the second.
        guest: u64,
    },
    /// Too many regions.
    #[error("more than {MAX_REGIONS} regions")]
    Regions,
    /// Too much memory.
    #[error("more than {MAX_MEMORY} bytes")]
    Size,
    /// It goes on beyond the end of its file, where an access would end the process.
    #[error("region of {length} bytes at {guest:#x} is beyond the end of its file of {file} bytes")]
    BeyondFile {
        /// Its guest address.
        guest: u64,
        /// Its length.
        length: u64,
        /// The file's length.
        file: u64,
    },
    /// The descriptor is no memory file. Pages of others may never come.
    #[error("the descriptor of a region is no memory file")]
    NoMemoryFile,
    /// The file could shrink while it is mapped.
    #[error("memory is not sealed against shrinking (F_SEAL_SHRINK)")]
    Unsealed,
    /// The kernel refuses.
    #[error("could not map a region of {length} bytes")]
    Map {
        /// Its length.
        length: u64,
        /// Why.
        source: nix::Error,
    },
    /// Its faults cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// A region that is to be removed is not there.
    #[error("there is no region at {guest:#x}")]
    Unknown {
        /// Its guest address.
        guest: u64,
    },
}

/// The memory of one guest. Cheap to look into: the region of the last address is tried first.
///
/// A clone shares the mappings, and may get or lose some: rings keep the memory they were set up
/// with.
#[derive(Clone, Debug, Default)]
pub struct GuestMemory {
    mapped: Vec<Rc<Mapped>>,
    last: Cell<usize>,
}

impl GuestMemory {
    /// Maps regions, each from a descriptor of its own. The descriptors are not needed afterwards.
    ///
    /// # Errors
    /// The first region that cannot be used.
    pub fn new(regions: Vec<(Region, OwnedFd)>, allow_unsealed: bool) -> Result<Self, MemoryError> {
        let mut memory = Self::default();
        for (region, descriptor) in regions {
            memory.add(region, &descriptor, allow_unsealed)?;
        }
        Ok(memory)
    }

    /// Maps one more region.
    ///
    /// # Errors
    /// It cannot be used; the others stay.
    pub fn add(
        &mut self,
        region: Region,
        descriptor: &OwnedFd,
        allow_unsealed: bool,
    ) -> Result<(), MemoryError> {
        let Region { guest, length, front_end, offset } = region;
        let bounds = MemoryError::Bounds { guest, length };
        let ends = [guest, front_end, offset].map(|start| start.checked_add(length));
        if length == 0 || ends.iter().any(Option::is_none) {
            return Err(bounds);
        }
        if self.mapped.len() >= MAX_REGIONS {
            return Err(MemoryError::Regions);
        }
        let total: u64 = self.mapped.iter().map(|mapped| mapped.region.length).sum();
        if length > MAX_MEMORY || total + length > MAX_MEMORY {
            return Err(MemoryError::Size);
        }
        let overlap = |a: u64, b: u64, other: u64| a < b + other && b < a + length;
        if self.mapped.iter().any(|mapped| {
            let other = mapped.region;
            overlap(guest, other.guest, other.length)
                || overlap(front_end, other.front_end, other.length)
        }) {
            return Err(MemoryError::Overlap { guest });
        }
        let file = check_file(descriptor, region, allow_unsealed)?;
        self.mapped.push(Rc::new(Mapped::new(region, descriptor, file)?));
        Ok(())
    }

    /// Unmaps the region that is described so.
    ///
    /// # Errors
    /// [`MemoryError::Unknown`]
    pub fn remove(&mut self, region: Region) -> Result<(), MemoryError> {
        let Region { guest, length, front_end, .. } = region;
        let same = |mapped: &Rc<Mapped>| {
            let other = mapped.region;
            (other.guest, other.length, other.front_end) == (guest, length, front_end)
        };
        let index = self.mapped.iter().position(same).ok_or(MemoryError::Unknown { guest })?;
        self.mapped.remove(index);
        Ok(())
    }

    /// Whether an access has found a page gone. What was there reads as zeroes since; whoever uses
    /// this memory must stop.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.mapped.iter().any(|mapped| mapped.watch.is_lost())
    }

    #[inline(always)]
    fn find(&self, address: u64, length: u64, key: impl Fn(&Region) -> u64) -> Option<Span<'_>> {
        let within = |index: usize| {
            let mapped = self.mapped.get(index)?;
            let offset = address.wrapping_sub(key(&mapped.region));
            let all = mapped.region.length;
            (offset < all && length <= all - offset).then(|| mapped.span(offset, length))
        };
        if let Some(span) = within(self.last.get()) {
            return Some(span);
        }
        (0..self.mapped.len()).find_map(|index| {
            let span = within(index)?;
            self.last.set(index);
            Some(span)
        })
    }
}

impl Memory for GuestMemory {
    #[inline(always)]
    fn guest(&self, address: u64, length: u64) -> Option<Span<'_>> {
        self.find(address, length, |region| region.guest)
    }

    fn front_end(&self, address: u64, length: u64) -> Option<Span<'_>> {
        self.find(address, length, |region| region.front_end)
    }
}

/// What is known about the file of a region.
struct Backing {
    /// The size of its pages: mappings of huge pages begin at one.
    page: u64,
}

fn check_file(
    descriptor: &OwnedFd,
    region: Region,
    allow_unsealed: bool,
) -> Result<Backing, MemoryError> {
    // Only files of shmem and hugetlbfs know about seals at all.
    let seals = fcntl(descriptor.as_fd(), FcntlArg::F_GET_SEALS)
        .map(SealFlag::from_bits_retain)
        .map_err(|_| MemoryError::NoMemoryFile)?;
    if !seals.contains(SealFlag::F_SEAL_SHRINK) && !allow_unsealed {
        return Err(MemoryError::Unsealed);
    }
    let Region { guest, length, offset, .. } = region;
    let status = fstat(descriptor.as_fd()).map_err(|source| MemoryError::Map { length, source })?;
    let file = u64::try_from(status.st_size).unwrap_or(0);
    if offset + length > file {
        return Err(MemoryError::BeyondFile { guest, length, file });
    }
    let kind = fstatfs(descriptor).map_err(|source| MemoryError::Map { length, source })?;
    let page = match kind.filesystem_type() == HUGETLBFS_MAGIC {
        true => status.st_blksize,
        false => sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096),
    };
    Ok(Backing { page: page.max(4096) as u64 })
}

/// One mapped region. Unmapped when dropped.
#[derive(Debug)]
struct Mapped {
    region: Region,
    /// Of the whole mapping, which begins at a page.
    base: NonNull<std::ffi::c_void>,
    /// Of the whole mapping, in bytes.
    mapped: usize,
    /// From there to the region, in bytes.
    skip: usize,
    watch: Watch,
}

impl Mapped {
    fn new(region: Region, descriptor: &OwnedFd, file: Backing) -> Result<Self, MemoryError> {
        let Region { length, offset, .. } = region;
        let skip = offset % file.page;
        let map = |source| MemoryError::Map { length, source };
        let size = usize::try_from(skip + length).ok().and_then(NonZeroUsize::new);
        let size = size.ok_or(map(nix::Error::EINVAL))?;
        let start = i64::try_from(offset - skip).map_err(|_| map(nix::Error::EINVAL))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let base =
            unsafe { mmap(None, size, protection, flags, descriptor, start) }.map_err(map)?;
        // As the kernel has rounded it, too.
        let size = size.get().next_multiple_of(file.page as usize);
        match Watch::new(base.as_ptr() as usize, size) {
            Ok(watch) => Ok(Self { region, base, mapped: size, skip: skip as usize, watch }),
            Err(error) => {
                // SAFETY: the mapping made above, which nobody has seen.
                let _ = unsafe { munmap(base, size) };
                Err(error.into())
            }
        }
    }

    /// `offset + length` must be within the region.
    #[inline(always)]
    fn span(&self, offset: u64, length: u64) -> Span<'_> {
        debug_assert!(offset + length <= self.region.length);
        // SAFETY: the caller has compared offset and length with the region's; it is mapped until
        // `self` is dropped, readable and writable, and nobody makes a reference to it.
        unsafe {
            let start = self.base.cast::<u8>().add(self.skip + offset as usize);
            Span::new(start, length as usize)
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.watch.end();
        // SAFETY: mapped by `new`; spans borrow from `self` and are gone.
        let _ = unsafe { munmap(self.base, self.mapped) };
    }
}
