//! Giving up privilege: capabilities, securebits, no_new_privs, dumpability (capabilities(7)).

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;

use crate::error::{JailError, While};

/// `_LINUX_CAPABILITY_VERSION_3`, linux/capability.h: 64 capabilities in two words.
const VERSION: u32 = 0x2008_0522;
/// `CAP_KILL`, linux/capability.h.
const CAP_KILL: u32 = 5;
/// NOROOT, KEEP_CAPS (off), NO_CAP_AMBIENT_RAISE and their locks, linux/securebits.h. Being user 0
/// then means nothing at exec. NO_SETUID_FIXUP stays off: leaving user 0 must empty the sets.
const SECUREBITS: libc::c_ulong = 0b11 | 0b10_0000 | 0b1100_0000;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Leaves no capability, and no way to get one.
pub(crate) fn drop_all() -> Result<(), JailError> {
    keep(0)
}

/// Leaves CAP_KILL, which init needs to hand a signal on to a program of another user.
pub(crate) fn drop_all_but_kill() -> Result<(), JailError> {
    keep(1 << CAP_KILL)
}

/// Empties the bounding set and makes user 0 nothing special: needs CAP_SETPCAP, so it comes
/// before the user changes.
pub(crate) fn close_the_ways_back() -> Result<(), JailError> {
    // The kernel knows fewer than 64; the first it does not know is refused.
    for capability in 0..64 {
        match control(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            Err(Errno::EINVAL) => break,
            Err(error) => return Err(error).while_(|| "empty the bounding set".into()),
        }
    }
    control(libc::PR_SET_SECUREBITS, SECUREBITS).while_(|| "lock the securebits".into())
}

/// Leaves the caller's session keyring, whose keys a process inherits the possession of
/// (session-keyring(7)). Where this fails the kernel has no keyrings or lets nobody below use them.
pub(crate) fn leave_keyring() {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name an anonymous keyring is made; nothing is read.
    unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, none) };
}

fn keep(effective: u32) -> Result<(), JailError> {
    let header = Header { version: VERSION, pid: 0 };
    let low = Sets { effective, permitted: effective, inheritable: 0 };
    let high = Sets { effective: 0, permitted: 0, inheritable: 0 };
    // SAFETY: version 3 reads one header and two sets, which both outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &header, [low, high].as_ptr()) })
        .map(drop)
        .while_(|| "drop capabilities".into())?;
    prctl::set_no_new_privs().while_(|| "set no_new_privs".into())?;
    // Nobody but root of this namespace's owner reads our memory. Exec sets it again.
    prctl::set_dumpable(false).while_(|| "become undumpable".into())
}

fn control(option: libc::c_int, argument: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: both options take one number, and the rest must be zero.
    Errno::result(unsafe { libc::prctl(option, argument, 0, 0, 0) }).map(drop)
}
