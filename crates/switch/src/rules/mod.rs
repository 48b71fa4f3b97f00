//! Who may send what to whom. Pure: bytes in, a [`Verdict`] out.
//!
//! - There is one router; all others are clients and exchange frames with the router only.
//! - Each port has one MAC address, by configuration; nothing is learned. A frame has its port's
//!   address as source, or is dropped; so have ARP packets and neighbour discovery within.
//! - Broadcast and multicast go from a client to the router, and from the router to all clients.
//! - What the router sends to an address that no port has goes nowhere.
//! - Frames with VLAN tags are dropped: a tag would hide what is checked here, and some systems
//!   take a frame with tag 0 for one without.
//! - A client with configured addresses sends from these only, and claims no others.
//! - A router forwards nothing that comes from networks it is told not to forward from, such as this
//!   one itself: that would be a way from client to client.
//!
//! All of it is decided by a private copy of the beginning of a frame ([`Window`]), and that copy
//! is what is delivered.

mod address;
mod neighbour;
mod table;

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

pub use address::{Mac, MacError};
pub use table::{MAX_PORTS, Table};

/// Networks a router may be told not to forward from.
pub const MAX_NOT_FROM: usize = 64;

/// Bytes of a frame that are copied before anything is decided: Ethernet, IPv6 with extension
/// headers of usual length and the longest TCP header, or a router's usual advertisement.
pub const WINDOW: usize = 256;

/// What is enough of frames that are neither IPv6 nor left to be cut or summed: ARP and IPv4 sources.
pub const SHORT_WINDOW: usize = 64;

/// The shortest frame: two addresses and a type.
pub const SHORTEST: usize = 14;

/// The longest frame: an Ethernet header and the longest IPv6 packet (40 bytes and 65535).
pub const LONGEST: usize = SHORTEST + 40 + 65535;

/// What a port is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The one that all others talk to.
    Router,
    /// Talks to the router.
    Client,
}

/// What a port may claim to be.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Router or client.
    pub role: Role,
    /// Its source address.
    pub mac: Mac,
    /// The addresses it may claim. If there are none, none are checked. Those of the router are
    /// checked in ARP and neighbour discovery only, as it forwards what others sent.
    pub addresses: Vec<IpAddr>,
    /// Networks that a router forwards nothing from. Its own addresses may be among them.
    pub not_from: Vec<Network>,
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: u32,
    mask: u32,
}

/// A network that is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no network like 10.88.0.0/24")]
pub struct NetworkError(String);

impl Network {
    #[inline(always)]
    fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask == self.address
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address = u32::from(address.parse::<Ipv4Addr>().map_err(|_| wrong())?);
        let length: u32 = length.parse().ok().filter(|length| *length <= 32).ok_or_else(wrong)?;
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        if address & !mask != 0 {
            return Err(wrong());
        }
        Ok(Self { address, mask })
    }
}

/// The beginning of a frame, private.
#[derive(Clone, Debug)]
pub struct Window {
    bytes: [u8; WINDOW],
    length: usize,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// To one port, by its number.
    To(usize),
    /// To all clients.
    Clients,
    /// Nowhere.
    Drop(Refusal),
}

/// Why a frame goes nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Shorter than [`SHORTEST`] or longer than [`LONGEST`].
    Length,
    /// Its source is not the port's.
    Source,
    /// It has a VLAN tag.
    Vlan,
    /// An ARP packet that claims another's address, or is malformed.
    Arp,
    /// Neighbour discovery that claims another's address, or what only a router may say, or that
    /// cannot be looked through.
    Neighbour,
    /// An IP source that the port does not have.
    Address,
    /// A client's frame to another client.
    NotRouter,
    /// No port has that address.
    Unknown,
    /// The router forwards what comes from a network that it must not forward from.
    Crossing,
}

impl Refusal {
    /// Whether an honest guest never does so. An honest router forwards what a client makes it.
    #[must_use]
    pub fn is_violation(self) -> bool {
        !matches!(self, Self::Unknown | Self::Crossing)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { bytes: [0; WINDOW], length: 0 }
    }
}

impl Window {
    /// The copy.
    #[inline(always)]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Its type (`ETHERTYPE_*`).
    #[inline(always)]
    pub(crate) fn kind(&self) -> Option<u16> {
        let bytes = self.bytes().get(SHORTEST - 2..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    }

    /// Takes what `fill` copies, which says how much.
    #[inline(always)]
    pub fn fill(&mut self, fill: impl FnOnce(&mut [u8; WINDOW]) -> usize) {
        self.length = fill(&mut self.bytes).min(WINDOW);
    }

    #[inline(always)]
    fn address(&self, at: usize) -> u64 {
        let bytes = &self.bytes[at..at + 8];
        u64::from_be_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]) >> 16
    }
}

/// `ETHERTYPE_*`
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// Decides where a frame of `length` bytes goes that came from a port with this binding.
#[inline]
#[must_use]
pub fn decide(window: &Window, length: usize, from: &Binding, table: &Table) -> Verdict {
    if window.length < SHORTEST || length > LONGEST {
        return Verdict::Drop(Refusal::Length);
    }
    if Mac::from_bits(window.address(6)) != from.mac {
        return Verdict::Drop(Refusal::Source);
    }
    let kind = u16::from_be_bytes([window.bytes[12], window.bytes[13]]);
    if let Err(refusal) = check(kind, window.bytes(), from) {
        return Verdict::Drop(refusal);
    }
    let to = Mac::from_bits(window.address(0));
    match from.role {
        Role::Client => match table.router() {
            Some((router, mac)) if to == mac || to.is_group() => Verdict::To(router),
            Some(_) => Verdict::Drop(Refusal::NotRouter),
            None => Verdict::Drop(Refusal::Unknown),
        },
        Role::Router if to.is_group() => Verdict::Clients,
        Role::Router => match table.client(to) {
            Some(port) => Verdict::To(port),
            None => Verdict::Drop(Refusal::Unknown),
        },
    }
}

#[inline(always)]
fn check(kind: u16, frame: &[u8], from: &Binding) -> Result<(), Refusal> {
    match kind {
        IPV4 if from.role == Role::Router => neighbour::forwarded(frame, from),
        IPV4 if from.addresses.is_empty() => Ok(()),
        IPV4 => neighbour::ipv4_source(frame, from),
        IPV6 => neighbour::ipv6(frame, from),
        ARP => neighbour::arp(frame, from),
        kind if VLAN.contains(&kind) => Err(Refusal::Vlan),
        _ => Ok(()),
    }
}
