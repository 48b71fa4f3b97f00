//! Forgetting the connections of a guest, so that none of them goes on with whoever has its address
//! next: the kernel's connection tracking lists them (nfnetlink_conntrack.h), and each is removed by
//! its name. Removing all at once by a filter is younger (Linux 6.11) than kernels in use.

use std::net::Ipv4Addr;

use casemate_netns::error::{KeeperError, While};
use casemate_netns::netlink::{Socket, attribute, value_of};
use nix::errno::Errno;
use nix::libc;

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;

/// What a connection is called by.
const NAME: [u16; 3] = [CTA_TUPLE_ORIG | NESTED, CTA_ID, CTA_ZONE];

/// Which end of a connection: the attribute of its address, and the bit that says it counts.
const ENDS: [(u16, u32); 2] = [(1, 1 << 0), (2, 1 << 1)];

/// `struct nfgenmsg` of IPv4.
const GENERAL: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];

/// Forgets every connection that this address began, or that was begun towards it.
///
/// # Errors
/// The kernel refuses. One without connection tracking has nothing to forget.
pub(crate) fn forget(address: Ipv4Addr) -> Result<(), KeeperError> {
    let socket = Socket::netfilter()?;
    for (end, flag) in ENDS {
        let mut body = GENERAL.to_vec();
        let mut ip = Vec::new();
        attribute(&mut ip, end, &address.octets());
        let mut tuple = Vec::new();
        attribute(&mut tuple, CTA_TUPLE_IP | NESTED, &ip);
        attribute(&mut body, CTA_TUPLE_ORIG | NESTED, &tuple);
        // Kernels before 5.8 pass this over, and list all there are.
        let mut filter = Vec::new();
        attribute(&mut filter, CTA_FILTER_ORIG_FLAGS, &flag.to_ne_bytes());
        attribute(&mut body, CTA_FILTER | NESTED, &filter);
        let listed = match socket.list(GET, &body) {
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => continue,
            other => other.while_(format!("list the connections of {address}"))?,
        };
        for connection in listed.iter().filter(|one| is_of(one, end, address)) {
            let mut body = GENERAL.to_vec();
            for kind in NAME {
                if let Some(Some(value)) = value_of(connection, kind) {
                    attribute(&mut body, kind, value);
                }
            }
            match socket.ask(DELETE, 0, &body) {
                // It has ended by itself.
                Err(Errno::ENOENT) => {}
                other => other.while_(format!("forget the connections of {address}"))?,
            }
        }
    }
    Ok(())
}

/// Whether one end of a connection has this address.
fn is_of(connection: &[u8], end: u16, address: Ipv4Addr) -> bool {
    let tuple = value_of(connection, CTA_TUPLE_ORIG | NESTED).flatten();
    let ip = tuple.and_then(|tuple| value_of(tuple, CTA_TUPLE_IP | NESTED).flatten());
    ip.and_then(|ip| value_of(ip, end).flatten()) == Some(&address.octets()[..])
}
