//! The firewall rules of a compartment: one line of `key=value` words each, first match decides.
//!
//! `action=accept|drop [proto=tcp|udp|icmp] [dst4=CIDR|dst6=CIDR|dsthost=NAME] [dstports=A-B]
//! [icmptype=N] [special=dns] [comment=…]`. Combinations that no packet could match cannot be
//! written in the types below. Rendering to nft is the plan's affair.

mod parse;

use std::num::NonZeroU16;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::value::choice::FirewallAction;
use crate::value::name::label_of_domain;
use crate::value::text::{text_type, textual};

text_type! {
    /// A host name resolved when the rules are installed.
    RuleHost: "a host name",
    "letters, digits and `-` in parts joined by dots",
    Some("^[A-Za-z0-9.-]{1,253}$"), "example.org",
    |text| text.len() <= 253 && text.split('.').all(label_of_domain)
}

/// One rule: what it matches, and what then happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRule {
    /// What happens to a matching packet.
    pub action: FirewallAction,
    /// Where the packet goes.
    pub destination: Destination,
    /// What kind of packet it is.
    pub traffic: Traffic,
    /// The user's remark.
    pub comment: Option<String>,
}

/// Where a packet goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Anywhere outside; other compartments and the host are not meant.
    Any,
    /// An IPv4 network, without host bits. May name another compartment or the host.
    V4(Ipv4Net),
    /// An IPv6 network, without host bits.
    V6(Ipv6Net),
    /// Every address a name resolves to.
    Host(RuleHost),
}

/// What kind of packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Every protocol.
    Any,
    /// TCP, to these ports or to all.
    Tcp(Option<PortRange>),
    /// UDP, to these ports or to all.
    Udp(Option<PortRange>),
    /// ICMP (ICMPv6 for IPv6 destinations), of this type or of all.
    Icmp(Option<u8>),
    /// Questions to the name servers given to the compartment, over UDP, TCP or both (`None`).
    Dns(Option<Transport>),
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports from `first` to `last`, both included; `first` is never above `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: NonZeroU16,
    last: NonZeroU16,
}

impl PortRange {
    /// `None` when `first` is above `last`.
    pub fn new(first: NonZeroU16, last: NonZeroU16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The lowest port.
    pub const fn first(self) -> NonZeroU16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> NonZeroU16 {
        self.last
    }
}

/// The rule as it is written in the configuration, in one fixed order.
impl std::fmt::Display for FirewallRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "action={}", self.action)?;
        match self.traffic {
            Traffic::Any | Traffic::Dns(None) => {}
            Traffic::Tcp(_) | Traffic::Dns(Some(Transport::Tcp)) => write!(f, " proto=tcp")?,
            Traffic::Udp(_) | Traffic::Dns(Some(Transport::Udp)) => write!(f, " proto=udp")?,
            Traffic::Icmp(_) => write!(f, " proto=icmp")?,
        }
        match &self.destination {
            Destination::Any => {}
            Destination::V4(net) => write!(f, " dst4={net}")?,
            Destination::V6(net) => write!(f, " dst6={net}")?,
            Destination::Host(name) => write!(f, " dsthost={name}")?,
        }
        match self.traffic {
            Traffic::Tcp(Some(ports)) | Traffic::Udp(Some(ports)) => {
                write!(f, " dstports={}-{}", ports.first, ports.last)?;
            }
            Traffic::Icmp(Some(number)) => write!(f, " icmptype={number}")?,
            Traffic::Dns(_) => write!(f, " special=dns")?,
            _ => {}
        }
        match &self.comment {
            Some(comment) => write!(f, " comment={comment}"),
            None => Ok(()),
        }
    }
}

textual!(
    FirewallRule,
    "a firewall rule",
    Some("(^|\\s)action=(accept|drop)(\\s|$)"),
    "action=accept proto=tcp dst4=1.2.3.0/24 dstports=443-443"
);
