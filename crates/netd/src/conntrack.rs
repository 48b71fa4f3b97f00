//! Forgetting the connections of a guest, so that none of them goes on with whoever has its address
//! next: one message to the kernel's connection tracking (nfnetlink_conntrack.h).

use std::net::Ipv4Addr;

use casemate_netns::error::{KeeperError, While};
use casemate_netns::netlink::{Socket, attribute};
use nix::errno::Errno;
use nix::libc;

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = (1 << 8) | 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;

/// Which end of a connection: the attribute of its address, and the bit that says it counts.
const ENDS: [(u16, u32); 2] = [(1, 1 << 0), (2, 1 << 1)];

/// Forgets every connection that this address began, or that was begun towards it.
///
/// # Errors
/// The kernel refuses. One that cannot filter (before Linux 5.8) forgets nothing, and says nothing.
pub(crate) fn forget(address: Ipv4Addr) -> Result<(), KeeperError> {
    let socket = Socket::netfilter()?;
    for (end, flag) in ENDS {
        // `struct nfgenmsg`: the family counts where the version is not 0.
        let mut body = vec![libc::AF_INET as u8, 1, 0, 0];
        let mut ip = Vec::new();
        attribute(&mut ip, end, &address.octets());
        let mut tuple = Vec::new();
        attribute(&mut tuple, CTA_TUPLE_IP | NESTED, &ip);
        attribute(&mut body, CTA_TUPLE_ORIG | NESTED, &tuple);
        let mut filter = Vec::new();
        attribute(&mut filter, CTA_FILTER_ORIG_FLAGS, &flag.to_ne_bytes());
        attribute(&mut body, CTA_FILTER | NESTED, &filter);
        match socket.ask(DELETE, 0, &body) {
            Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOENT) => {}
            result => result.while_(format!("forget the connections of {address}"))?,
        }
    }
    Ok(())
}
