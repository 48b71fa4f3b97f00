//! What the process that holds the clipboard gives up before anybody connects: files, the network, new
//! programs, and being looked into.

use std::fs::File;
use std::num::NonZeroUsize;

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mlock, mmap};
use nix::sys::resource::{Resource, setrlimit};

use crate::confine::{self, Allowed, ConfineError};

/// Calls beyond those of every such process. None opens, connects, reads a file or starts anything.
const ALLOWED: &[Allowed] = &[
    (libc::SYS_accept4, "commands connect"),
    (libc::SYS_recvmsg, "their word"),
    (libc::SYS_sendmsg, "the answer, with the content as a descriptor"),
];

/// Its memory is in no dump, and no other process of the user looks into it. Before the content can be
/// had by anybody.
pub(super) fn hide() -> Result<(), ConfineError> {
    nix::sys::prctl::set_dumpable(false)?;
    for (resource, most) in
        [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_NOFILE, 16), (Resource::RLIMIT_NPROC, 0)]
    {
        // What is lower already stays.
        let _ = setrlimit(resource, most, most);
    }
    Ok(())
}

/// Keeps the content off the disk, where the user may lock that much memory: it is mapped, and read by
/// nobody here. False where it may not.
#[expect(unsafe_code, reason = "mmap(2) and mlock(2)")]
pub(super) fn lock(content: &File, size: u64) -> bool {
    let Some(length) = usize::try_from(size).ok().and_then(NonZeroUsize::new) else { return true };
    let (kind, flags) = (ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
    // SAFETY: the mapping is new, stays until the process ends, and no reference into it is made.
    unsafe {
        mmap(None, length, kind, flags, content, 0)
            .and_then(|address| mlock(address, length.get()))
            .is_ok()
    }
}

/// From now on there is what is open already, and the calls of the table.
pub(super) fn confine() -> Result<(), ConfineError> {
    confine::confine(confine::nothing()?, ALLOWED)
}
