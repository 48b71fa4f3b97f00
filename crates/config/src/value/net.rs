//! IPv4 networks of compartments.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::flaw::Flaw;

/// The pool that virtual networks get their /24 from: 10.88.0.0/16.
pub(crate) const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 16);

/// An IPv4 network written by its first address: no host bits set.
///
/// Prefix lengths from 8 to 29: a /29 is the smallest that has room for a router and clients.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Cidr(Ipv4Net);

impl Ipv4Cidr {
    /// The network.
    pub const fn net(self) -> Ipv4Net {
        self.0
    }

    /// The address `offset` above the network's first; `None` outside of it.
    pub fn host(self, offset: u32) -> Option<Ipv4Addr> {
        let address = u32::from(self.0.network()).checked_add(offset)?;
        (address <= u32::from(self.0.broadcast())).then(|| Ipv4Addr::from(address))
    }

    /// How many addresses the network has, first and last included.
    pub fn size(self) -> u32 {
        1 << (32 - self.0.prefix_len())
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0.network()) || other.0.contains(&self.0.network())
    }

    /// The `index`-th /24 of the pool for virtual networks.
    pub(crate) fn of_pool(index: u8) -> Self {
        Self(Ipv4Net::new_assert(Ipv4Addr::new(10, 88, index, 0), 24))
    }

    /// The network of the /31 links unless another is set.
    pub(crate) const fn links() -> Self {
        Self(Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 200, 0), 24))
    }

    /// What virtual networks are cut from unless they say otherwise: 10.88.0.0/16.
    pub const fn pool() -> Self {
        Self(POOL)
    }
}

impl std::str::FromStr for Ipv4Cidr {
    type Err = Flaw;
    fn from_str(text: &str) -> Result<Self, Flaw> {
        let net: Ipv4Net = text.parse().map_err(|_| {
            Flaw::new(format!("{} is not an IPv4 network", crate::value::text::quoted(text)))
                .hint("address and prefix length, for example \"172.16.200.0/24\"")
        })?;
        if !(8..=29).contains(&net.prefix_len()) {
            return Err(Flaw::new(format!("a /{} network cannot be used", net.prefix_len()))
                .hint("prefix lengths from /8 to /29"));
        }
        if net.addr() != net.network() {
            return Err(Flaw::new(format!("`{text}` has bits set beyond its prefix"))
                .hint(format!("the network is \"{}\"", net.trunc())));
        }
        let first = net.network();
        if first.is_loopback() || first.is_multicast() || first.octets()[0] == 0 {
            return Err(Flaw::new(format!("`{text}` cannot be given to machines"))
                .hint("use a private network (RFC 1918), for example \"172.16.200.0/24\""));
        }
        Ok(Self(net))
    }
}

impl std::fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Ipv4Cidr {
    type Error = Flaw;
    fn try_from(text: String) -> Result<Self, Flaw> {
        text.parse()
    }
}

impl From<Ipv4Cidr> for String {
    fn from(cidr: Ipv4Cidr) -> Self {
        cidr.to_string()
    }
}

crate::value::text::textual!(
    Ipv4Cidr,
    "an IPv4 network",
    Some("^[0-9]{1,3}(\\.[0-9]{1,3}){3}/[0-9]{1,2}$"),
    "172.16.200.0/24"
);
