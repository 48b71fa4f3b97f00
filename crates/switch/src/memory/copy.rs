//! Copies between memory that may change meanwhile, and hints for the cache.
//!
//! That a guest writes at the same time is a race which the language does not describe. As in other
//! back-ends it is taken for granted that the machine's copies then yield some mixture of old and
//! new bytes, and nothing is decided by what was copied from one guest to another.

/// Longer copies are the C library's, which picks the machine's best instructions.
const SHORT: usize = 256;

/// Copies bytes between places that do not overlap; short ones without a call.
///
/// # Safety
/// `from` has `length` readable bytes, `to` as many writable ones, and they do not overlap.
#[inline(always)]
pub(super) unsafe fn apart(from: *const u8, to: *mut u8, length: usize) {
    if length > SHORT {
        // SAFETY: the caller's promise.
        return unsafe { std::ptr::copy_nonoverlapping(from, to, length) };
    }
    if length >= 16 {
        let last = length - 16;
        let mut at = 0;
        while at < last {
            // SAFETY: `at + 16` is less than `length`.
            unsafe { piece::<16>(from, to, at) };
            at += 16;
        }
        // SAFETY: `last + 16` is `length`. It may write bytes for the second time, with what is
        // there now; that is no worse than a guest's write in between.
        unsafe { piece::<16>(from, to, last) };
    } else if length >= 4 {
        let last = length - 4;
        let mut at = 0;
        while at < last {
            // SAFETY: `at + 4` is less than `length`.
            unsafe { piece::<4>(from, to, at) };
            at += 4;
        }
        // SAFETY: `last + 4` is `length`.
        unsafe { piece::<4>(from, to, last) };
    } else {
        for at in 0..length {
            // SAFETY: `at` is less than `length`.
            unsafe { piece::<1>(from, to, at) };
        }
    }
}

/// Copies bytes between places that may overlap.
///
/// # Safety
/// `from` has `length` readable bytes and `to` as many writable ones.
#[inline(always)]
pub(super) unsafe fn any(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy(from, to, length) }
}

/// # Safety
/// As for [`apart`], for the `N` bytes at `at`.
#[inline(always)]
unsafe fn piece<const N: usize>(from: *const u8, to: *mut u8, at: usize) {
    // SAFETY: the caller's promise; arrays of bytes have no alignment.
    unsafe { to.add(at).cast::<[u8; N]>().write(from.add(at).cast::<[u8; N]>().read()) }
}

/// Asks for a cache line to read. Any address will do: a hint does not fault.
#[inline(always)]
pub(super) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, part of every x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
