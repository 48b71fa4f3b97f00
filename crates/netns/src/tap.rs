//! The guest's interface: a TAP device whose packets the VMM reads and writes by its descriptor.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;

use crate::error::{KeeperError, While};

/// The node behind which TAP devices are made.
const NODE: &str = "/dev/net/tun";

mod request {
    //! TUNSETIFF, linux/if_tun.h.
    #![allow(missing_docs)]
    nix::ioctl_write_int!(set_interface, b'T', 202);
}

/// Makes a TAP device of this name in this network namespace: frames with a virtio header, so that
/// the guest's offloads need no work on the way (Documentation/networking/tuntap.rst).
pub fn make(name: &str) -> Result<OwnedFd, KeeperError> {
    let node = OpenOptions::new().read(true).write(true).open(NODE);
    let node = OwnedFd::from(node.while_(format!("open {NODE}"))?);
    // SAFETY: ifreq is numbers and a union of such, valid when zero.
    let mut asked: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let places = asked.ifr_name.len() - 1;
    for (to, from) in asked.ifr_name[..places].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    asked.ifr_ifru.ifru_flags = flags as libc::c_short;
    let address = &raw const asked;
    // SAFETY: TUNSETIFF, declared as taking an int, takes the address of an ifreq, which outlives
    // the call.
    unsafe { request::set_interface(node.as_raw_fd(), address as libc::c_ulong) }
        .while_(format!("make the TAP device {name}"))?;
    Ok(node)
}
