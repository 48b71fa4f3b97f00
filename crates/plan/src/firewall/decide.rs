//! What becomes of one packet of the guest, and which rule says so. The same order as in the text
//! for nft; a test sends packets through both.

use std::collections::BTreeMap;
use std::net::IpAddr;

use casemate_config::ipnet::IpNet;
use casemate_config::{Destination, FirewallAction, FirewallRule, Traffic, Transport};

use super::{Firewall, counts_inside, is_dns, reserved};

/// Where DNS servers listen.
const DNS: u16 = 53;

/// The first packet of a connection, from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it goes.
    pub to: IpAddr,
    /// What it carries.
    pub payload: Payload,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// TCP, to this port.
    Tcp(u16),
    /// UDP, to this port.
    Udp(u16),
    /// ICMP or ICMPv6, of this type.
    Icmp(u8),
    /// Anything else.
    Other,
}

/// What the rules do not say themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Addresses and networks that are the host's own.
    pub host: Vec<IpNet>,
    /// Addresses of the names of rules, by the rule's number.
    pub resolved: BTreeMap<usize, Vec<IpAddr>>,
}

/// What happens, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub action: FirewallAction,
    /// Why.
    pub by: By,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The rule with this number, from 0.
    Rule(usize),
    /// `firewall-default`.
    Default,
    /// It is an address of the host, and no rule names it.
    Host,
    /// It is an address of another compartment's link, of everybody or of nobody, and no rule names
    /// it.
    Reserved,
    /// The link has no IPv6.
    NoIpv6,
}

impl Firewall<'_> {
    /// What happens to `packet`.
    pub fn decide(&self, packet: &Packet, around: &Surroundings) -> Decision {
        let drop = |by| Decision { action: FirewallAction::Drop, by };
        if packet.to.is_ipv6() && self.link.v6.is_none() {
            return drop(By::NoIpv6);
        }
        let protected = self.protects(packet, around);
        for (index, rule) in self.rules.iter().enumerate() {
            let counts = protected.is_none() || (counts_inside(rule) && !is_dns(rule.traffic));
            if counts && self.matches(index, rule, packet, around) {
                return Decision { action: rule.action, by: By::Rule(index) };
            }
        }
        match protected {
            Some(by) => drop(by),
            None => Decision { action: self.default, by: By::Default },
        }
    }

    /// Why the destination is protected, if it is.
    fn protects(&self, packet: &Packet, around: &Surroundings) -> Option<By> {
        if self.is_question(packet) {
            return None;
        }
        let reserved = match packet.to {
            IpAddr::V4(to) => {
                self.link.links.contains(&to) || reserved::V4.iter().any(|net| net.contains(&to))
            }
            IpAddr::V6(to) => reserved::V6.iter().any(|net| net.contains(&to)),
        };
        if around.host.iter().any(|net| net.contains(&packet.to)) {
            return Some(By::Host);
        }
        reserved.then_some(By::Reserved)
    }

    /// A question to the resolver.
    fn is_question(&self, packet: &Packet) -> bool {
        packet.to == IpAddr::V4(self.link.resolver)
            && matches!(packet.payload, Payload::Tcp(DNS) | Payload::Udp(DNS))
    }

    fn matches(
        &self,
        index: usize,
        rule: &FirewallRule,
        packet: &Packet,
        around: &Surroundings,
    ) -> bool {
        let there = match (&rule.destination, packet.to) {
            (Destination::Any, _) => true,
            (Destination::V4(net), IpAddr::V4(to)) => net.contains(&to),
            (Destination::V6(net), IpAddr::V6(to)) => net.contains(&to),
            (Destination::V4(_) | Destination::V6(_), _) => false,
            (Destination::Host(_), to) => {
                around.resolved.get(&index).is_some_and(|known| known.contains(&to))
            }
        };
        there
            && match (rule.traffic, packet.payload) {
                (Traffic::Any, _)
                | (Traffic::Tcp(None), Payload::Tcp(_))
                | (Traffic::Udp(None), Payload::Udp(_))
                | (Traffic::Icmp(None), Payload::Icmp(_)) => true,
                (Traffic::Tcp(Some(range)), Payload::Tcp(port))
                | (Traffic::Udp(Some(range)), Payload::Udp(port)) => {
                    (range.first().get()..=range.last().get()).contains(&port)
                }
                (Traffic::Icmp(Some(number)), Payload::Icmp(found)) => number == found,
                (Traffic::Dns(transport), payload) => {
                    self.is_question(packet)
                        && matches!(
                            (transport, payload),
                            (None, _)
                                | (Some(Transport::Tcp), Payload::Tcp(_))
                                | (Some(Transport::Udp), Payload::Udp(_))
                        )
                }
                _ => false,
            }
    }
}
