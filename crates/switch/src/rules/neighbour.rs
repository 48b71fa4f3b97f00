//! What a frame claims about addresses: ARP (RFC 826), neighbour discovery (RFC 4861), IP sources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Binding, Mac, Refusal, Role, SHORTEST, WINDOW};

/// A field of `N` bytes.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

impl Binding {
    fn has_ipv4(&self, address: Ipv4Addr) -> bool {
        self.addresses.is_empty() || self.addresses.contains(&IpAddr::V4(address))
    }

    /// Beside configured addresses every port has the link-local one that its MAC address gives
    /// (RFC 4291, appendix A).
    fn has_ipv6(&self, address: Ipv6Addr) -> bool {
        self.addresses.is_empty()
            || self.addresses.contains(&IpAddr::V6(address))
            || address == link_local(self.mac)
    }
}

fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The sender's addresses are the port's. An address of zero is a probe's (RFC 5227).
pub(super) fn arp(frame: &[u8], from: &Binding) -> Result<(), Refusal> {
    let packet = &frame[SHORTEST..];
    // Ethernet and IPv4, with their lengths.
    if field(packet, 0) != Some([0, 1, 8, 0, 6, 4]) {
        return Err(Refusal::Arp);
    }
    let hardware = field::<6>(packet, 8).map(Mac::from).ok_or(Refusal::Arp)?;
    let address = field::<4>(packet, 14).map(Ipv4Addr::from).ok_or(Refusal::Arp)?;
    let target = field::<4>(packet, 24).map(Ipv4Addr::from).ok_or(Refusal::Arp)?;
    let probe = address.is_unspecified() && !target.is_unspecified();
    match hardware == from.mac && (probe || from.has_ipv4(address)) {
        true => Ok(()),
        false => Err(Refusal::Arp),
    }
}

/// The source is the port's, or nothing yet (DHCP).
pub(super) fn ipv4_source(frame: &[u8], from: &Binding) -> Result<(), Refusal> {
    let source = field::<4>(frame, SHORTEST + 12).map(Ipv4Addr::from).ok_or(Refusal::Address)?;
    match source.is_unspecified() || from.has_ipv4(source) {
        true => Ok(()),
        false => Err(Refusal::Address),
    }
}

/// What a router sends is its own, or from where it may forward from.
#[inline(always)]
pub(super) fn forwarded(frame: &[u8], from: &Binding) -> Result<(), Refusal> {
    if from.not_from.is_empty() {
        return Ok(());
    }
    let source = field::<4>(frame, SHORTEST + 12).map(Ipv4Addr::from).ok_or(Refusal::Crossing)?;
    let crosses = from.not_from.iter().any(|network| network.contains(source));
    match crosses && !from.addresses.contains(&IpAddr::V4(source)) {
        true => Err(Refusal::Crossing),
        false => Ok(()),
    }
}

/// Next headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMP: u8 = 58;
const DESTINATION: u8 = 60;

/// The source is the port's, and so is what neighbour discovery says.
pub(super) fn ipv6(frame: &[u8], from: &Binding) -> Result<(), Refusal> {
    let packet = &frame[SHORTEST..];
    let source = field::<16>(packet, 8).map(Ipv6Addr::from).ok_or(Refusal::Address)?;
    if from.role == Role::Client && !source.is_unspecified() && !from.has_ipv6(source) {
        return Err(Refusal::Address);
    }
    // Without the padding of short frames. A length of zero is a jumbogram's, or there is nothing.
    let length = field::<2>(packet, 4).map_or(0, u16::from_be_bytes);
    let frame = match length {
        0 => frame,
        length => &frame[..frame.len().min(SHORTEST + 40 + usize::from(length))],
    };
    let packet = &frame[SHORTEST..];
    let mut next = packet[6];
    let mut at = 40;
    loop {
        // A chain of headers beyond the window is nobody's.
        let length = match next {
            ICMP => return icmp(frame, SHORTEST + at, source, from),
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let [_, units] = field(packet, at).ok_or(Refusal::Neighbour)?;
                (usize::from(units) + 1) * 8
            }
            AUTHENTICATION => {
                let [_, units] = field(packet, at).ok_or(Refusal::Neighbour)?;
                (usize::from(units) + 2) * 4
            }
            FRAGMENT => {
                let [_, _, high, low] = field(packet, at).ok_or(Refusal::Neighbour)?;
                if u16::from_be_bytes([high, low]) >> 3 != 0 {
                    // Not the first, so no header is in it.
                    return Ok(());
                }
                8
            }
            _ => return Ok(()),
        };
        next = *packet.get(at).ok_or(Refusal::Neighbour)?;
        at += length;
    }
}

/// Types of neighbour discovery.
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Options.
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;

fn icmp(frame: &[u8], at: usize, source: Ipv6Addr, from: &Binding) -> Result<(), Refusal> {
    let wrong = Refusal::Neighbour;
    let kind = *frame.get(at).ok_or(wrong)?;
    // Bytes before the options, and which of those names the sender.
    let (fixed, own) = match kind {
        ROUTER_SOLICITATION => (8, SOURCE_LINK),
        SOLICITATION => (24, SOURCE_LINK),
        ADVERTISEMENT => {
            let target = field::<16>(frame, at + 8).map(Ipv6Addr::from).ok_or(wrong)?;
            if !from.has_ipv6(target) {
                return Err(wrong);
            }
            (24, TARGET_LINK)
        }
        ROUTER_ADVERTISEMENT if from.role == Role::Router => (16, SOURCE_LINK),
        // A redirect's target is another's link address, by purpose.
        REDIRECT if from.role == Role::Router => return Ok(()),
        ROUTER_ADVERTISEMENT | REDIRECT => return Err(wrong),
        _ => return Ok(()),
    };
    if from.role == Role::Router && !source.is_unspecified() && !from.has_ipv6(source) {
        return Err(wrong);
    }
    // All of it has to be in the window.
    if frame.len() >= WINDOW {
        return Err(wrong);
    }
    let mut options = frame.get(at + fixed..).ok_or(wrong)?;
    while let [option, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 || length > options.len() {
            return Err(wrong);
        }
        if option == own && field::<6>(options, 2).map(Mac::from) != Some(from.mac) {
            return Err(wrong);
        }
        options = &options[length..];
    }
    Ok(())
}
