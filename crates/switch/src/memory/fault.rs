//! Accesses to memory that is not there any more.
//!
//! Whoever has a memory file that is not sealed can truncate it while it is mapped here, and the
//! next access is answered by SIGBUS. Even sealed memory can end so: huge pages that cannot be had,
//! memory that fails. The handler puts zeroes where the region was and marks it as lost; the access
//! is repeated and finds the zeroes, and the switch closes the port when its turn is over.
//!
//! The handler knows all regions by a table of atomics, the only state a handler can look at. A
//! SIGBUS from anywhere else does what it would do without it: it ends the process.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Regions that can be watched: 256 ports with as many regions as each may have.
const SLOTS: usize = 256 * super::MAX_REGIONS;

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

static LOST: AtomicUsize = AtomicUsize::new(0);

/// How many regions were lost since the program began. When it grows, somebody's memory
/// [is lost](super::GuestMemory::is_lost).
#[inline(always)]
#[must_use]
pub fn losses() -> usize {
    LOST.load(Ordering::Relaxed)
}

/// One watched region; free when its length is zero.
struct Slot {
    start: AtomicUsize,
    length: AtomicUsize,
    lost: AtomicBool,
}

impl Slot {
    const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }
}

/// Why a region cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The handler is refused.
    #[error("could not set the handler of SIGBUS")]
    Handler(#[source] nix::Error),
    /// The table is full.
    #[error("more than {SLOTS} regions of memory")]
    Full,
}

/// A region whose loss is noticed.
#[derive(Debug)]
pub(super) struct Watch {
    slot: usize,
}

impl Watch {
    /// Watches `length` bytes from `start`, a whole mapping.
    pub(super) fn new(start: usize, length: usize) -> Result<Self, WatchError> {
        install()?;
        for (index, slot) in TABLE.iter().enumerate() {
            let free = slot.length.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
            if free.is_ok() {
                slot.lost.store(false, Ordering::SeqCst);
                slot.start.store(start, Ordering::SeqCst);
                slot.length.store(length, Ordering::SeqCst);
                return Ok(Self { slot: index });
            }
        }
        Err(WatchError::Full)
    }

    pub(super) fn is_lost(&self) -> bool {
        TABLE[self.slot].lost.load(Ordering::Relaxed)
    }

    /// Before the region is unmapped.
    pub(super) fn end(&self) {
        TABLE[self.slot].start.store(0, Ordering::SeqCst);
        TABLE[self.slot].length.store(0, Ordering::SeqCst);
    }
}

/// Sets the handler, once.
fn install() -> Result<(), WatchError> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        let handler = SigHandler::SigAction(on_bus_error);
        let action = SigAction::new(handler, SaFlags::SA_NODEFER, SigSet::empty());
        // SAFETY: the handler below uses atomics and system calls only.
        result = unsafe { sigaction(Signal::SIGBUS, &action) }.map(drop);
    });
    result.map_err(WatchError::Handler)
}

/// Replaces the region of the faulting address by zeroes, or restores the default and returns, so
/// that the repeated access ends the process.
extern "C" fn on_bus_error(
    _signal: libc::c_int,
    information: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands a valid siginfo to a handler with SA_SIGINFO, for SIGBUS with an
    // address.
    let address = unsafe { (*information).si_addr() } as usize;
    for slot in &TABLE {
        let start = slot.start.load(Ordering::SeqCst);
        let length = slot.length.load(Ordering::SeqCst);
        if start == 0 || address.wrapping_sub(start) >= length {
            continue;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: replaces exactly one mapping of ours, which stays registered until it is
        // unmapped; spans into it stay valid.
        let new = unsafe { libc::mmap(start as *mut _, length, protection, flags, -1, 0) };
        if new != libc::MAP_FAILED {
            slot.lost.store(true, Ordering::SeqCst);
            LOST.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
    // SAFETY: the default action, for an access that is not to a guest's memory.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}
