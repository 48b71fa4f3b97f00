//! Addresses that no other machine has: a packet to them would end at the host, or at everybody on
//! its network.

use casemate_config::ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// IPv4 (RFC 6890): this host, loopback, link-local, multicast, reserved with broadcast.
pub const V4: [Ipv4Net; 5] = [
    // connect(2) to 0.0.0.0 reaches the loopback interface on Linux.
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// IPv6 (RFC 6890): unspecified, loopback and IPv4-compatible; IPv4-mapped; link-local; the former
/// site-local; multicast; the links of compartments.
pub const V6: [Ipv6Net; 6] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
    Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    LINKS6,
];

/// The IPv6 network of the links: a unique local one (RFC 4193). It is translated before it leaves
/// the host, so it needs not be unique.
pub const LINKS6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfdca, 0x5e3a, 0x7e00, 0, 0, 0, 0, 0), 64);
