//! The user and the network namespace, and what this process may still do in them.

use std::fs;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

use crate::error::{KeeperError, While};

/// `CAP_NET_ADMIN`, linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
/// `_LINUX_CAPABILITY_VERSION_3`, linux/capability.h: 64 capabilities in two words.
const VERSION: u32 = 0x2008_0522;

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

/// Leaves the host's network for one with nothing in it, as its administrator.
pub fn enter() -> Result<(), KeeperError> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .while_("make a user and network namespace")?;
    // Whoever maps himself alone needs no privilege for it, and may not set groups then
    // (user_namespaces(7)).
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {user} 1\n")),
        ("gid_map", format!("0 {group} 1\n")),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .while_(format!("write {file} of the user namespace"))?;
    }
    Ok(())
}

/// Lets IPv6 packets pass from one interface to another, those that come later too. Only a file says
/// so (ip-sysctl.rst), and the jail shows it where IPv6 is asked for.
pub fn forward_ipv6() -> Result<(), KeeperError> {
    const FORWARDING: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
    fs::write(FORWARDING, "1").while_(format!("write {FORWARDING}, which `ipv6` needs"))
}

/// Keeps what the firewall needs, for this process and for nft: nothing but CAP_NET_ADMIN, in the
/// namespace.
pub fn drop_privileges() -> Result<(), KeeperError> {
    keep(1 << CAP_NET_ADMIN)
}

/// Keeps nothing.
pub fn drop_all() -> Result<(), KeeperError> {
    keep(0)
}

/// Whether programs that this process executes can get no privilege that it has not.
fn no_new_privileges() -> bool {
    // SAFETY: the option takes no pointer, and the rest must be zero.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 }
}

/// Becomes this user, and keeps CAP_NET_ADMIN alone, for the programs it executes too: in the
/// ambient set (capabilities(7)).
///
/// # Errors
/// This process is not privileged enough.
pub fn become_administrator(ids: Option<(Uid, Gid)>) -> Result<(), KeeperError> {
    if let Some((user, group)) = ids {
        // SAFETY: the option takes one number, and the rest must be zero.
        Errno::result(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })
            .while_("keep capabilities")?;
        for capability in (0..64).filter(|&capability: &u32| capability != CAP_NET_ADMIN) {
            // SAFETY: as above.
            let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            match Errno::result(dropped) {
                Ok(_) => {}
                Err(Errno::EINVAL) => break,
                Err(error) => return Err(error).while_("empty the bounding set"),
            }
        }
        setgroups(&[]).while_("leave the groups of root")?;
        setresgid(group, group, group).while_("become another group")?;
        setresuid(user, user, user).while_("become another user")?;
    }
    let kept = 1 << CAP_NET_ADMIN;
    set(Sets { effective: kept, permitted: kept, inheritable: kept })
        .while_("keep CAP_NET_ADMIN, which the helper needs")?;
    // SAFETY: the option takes two numbers, and the rest must be zero.
    let raised = unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0)
    };
    Errno::result(raised).while_("hand CAP_NET_ADMIN to nft")?;
    // SAFETY: the option takes one number, and the rest must be zero.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
        .map(drop)
        .while_("give up new privileges")
}

/// Ends this process when the one that started it ends.
///
/// # Errors
/// It has ended already.
pub fn end_with_parent(parent: i32) -> Result<(), KeeperError> {
    // SAFETY: the option takes one number, and the rest must be zero.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })
        .while_("end with the helper")?;
    if nix::unistd::getppid().as_raw() == parent {
        return Ok(());
    }
    Err(Errno::ESRCH).while_("find the helper")
}

fn keep(kept: u32) -> Result<(), KeeperError> {
    // The kernel knows fewer than 64; the first it does not know is refused.
    for capability in (0..64).filter(|&capability: &u64| kept >> capability.min(31) & 1 == 0) {
        // SAFETY: the option takes one number, and the rest must be zero.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(dropped) {
            Ok(_) => {}
            Err(Errno::EINVAL) => break,
            // Without CAP_SETPCAP it stays; and nothing executed can get any of it.
            Err(Errno::EPERM) if no_new_privileges() => break,
            Err(error) => return Err(error).while_("empty the bounding set"),
        }
    }
    set(Sets { effective: kept, permitted: kept, inheritable: 0 }).while_("drop capabilities")
}

fn set(low: Sets) -> Result<(), Errno> {
    let header = Header { version: VERSION, pid: 0 };
    let high = Sets { effective: 0, permitted: 0, inheritable: 0 };
    // SAFETY: version 3 reads one header and two sets, which both outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &header, [low, high].as_ptr()) })
        .map(drop)
}
