//! What the kernel says of its devices (netlink, `NETLINK_KOBJECT_UEVENT`): only whether dm-verity
//! found a block that is not what it was.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// The kernel's own group; others are udev's.
const KERNEL: u32 = 1;
/// Longest event, the kernel's `UEVENT_BUFFER_SIZE` and its head.
const LONGEST: usize = 4096;
/// `TYPE,BLOCK`: 0 for a data block, 1 for one of the hash tree (drivers/md/dm-verity-target.c).
const DAMAGE: &str = "DM_VERITY_ERR_BLOCK_NR=";

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Uevents(OwnedFd);

impl Uevents {
    /// Begins to listen.
    pub(crate) fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(socket))
    }

    /// Takes what has arrived; returns the first block that was found damaged.
    pub(crate) fn damaged_block(&self) -> Option<u64> {
        let mut event = [0; LONGEST];
        let mut found = None;
        loop {
            match recv(self.0.as_raw_fd(), &mut event, MsgFlags::empty()) {
                Ok(count) => found = found.or_else(|| damage(&event[..count])),
                // Some were lost; those that come are enough.
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => return found,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The block an event of dm-verity names. Fields are separated by NUL.
fn damage(event: &[u8]) -> Option<u64> {
    let mut fields = event.split(|&byte| byte == 0);
    let field = fields.find_map(|field| field.strip_prefix(DAMAGE.as_bytes()))?;
    std::str::from_utf8(field).ok()?.split_once(',')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_damage_is_heard() {
        let event =
            b"change@/devices/virtual/block/dm-0\0ACTION=change\0DM_VERITY_ERR_BLOCK_NR=0,1234\0";
        assert_eq!(damage(event), Some(1234));
        assert_eq!(damage(b"add@/x\0ACTION=add\0"), None);
        assert_eq!(damage(b"DM_VERITY_ERR_BLOCK_NR=0\0DM_VERITY_ERR_BLOCK_NR=0,1"), None);
    }
}
