//! Which Landlock the kernel has (landlock_create_ruleset(2)).

use nix::errno::Errno;
use nix::libc;

/// `LANDLOCK_CREATE_RULESET_VERSION`, linux/landlock.h.
const VERSION: u32 = 1;

/// The version of the interface; 0 when there is none or it is switched off.
pub fn abi() -> u32 {
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: asking for the version takes no attributes.
    let result = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) };
    Errno::result(result).map_or(0, |version| u32::try_from(version).unwrap_or(0))
}
