//! The firewall of one compartment's link to the host: what its rules mean, as nft text
//! ([`Firewall::render`]) and as an answer about one packet ([`Firewall::decide`]).
//!
//! A packet of the guest goes to one of two places. *Outside*: the rules decide, the first that
//! matches, and the compartment's default where none does. *Protected*: the host's own addresses,
//! the links of other compartments, and what is no other machine's address at all ([`reserved`]).
//! There a rule with `action=accept` counts only where it names that very address, and everything
//! else is dropped, whatever the default. A name (`dsthost=`) never names a protected address: who
//! answers for a name in the DNS must not open the host.
//!
//! Nothing here is text of the user: addresses, numbers and words of this module alone are written,
//! so no rule can say more than it says.

mod decide;
mod host;
mod render;
pub mod reserved;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use casemate_config::ipnet::Ipv4Net;
use casemate_config::{Destination, FirewallAction, FirewallRule, MacAddr, Traffic};
use serde::Serialize;

pub use decide::{By, Decision, Packet, Payload, Surroundings};
pub use host::{OnHost, PREFIX, device, guard, removal};

/// The guest's interface on the host's side: a TAP device.
pub const TAP: &str = "vm0";

/// The interface that leads outside.
pub const OUTSIDE: &str = "out0";

/// The table, in the families `inet` and `netdev`.
pub const TABLE: &str = "casemate";

/// The ends of a compartment's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Link {
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// The guest's address.
    pub guest: Ipv4Addr,
    /// The other end, its gateway.
    pub host: Ipv4Addr,
    /// The same with IPv6: the guest's address and its gateway, of one /127.
    pub v6: Option<(Ipv6Addr, Ipv6Addr)>,
    /// What the guest asks for names.
    pub resolver: Ipv4Addr,
    /// The network that all links are cut from.
    pub links: Ipv4Net,
    /// Networks between compartments that the guest is the router of: what comes from their addresses
    /// comes by way of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<Ipv4Net>,
}

/// The rules of one compartment, on its link.
#[derive(Clone, Copy, Debug)]
pub struct Firewall<'a> {
    /// The link.
    pub link: &'a Link,
    /// In the order of the configuration; the first that matches counts.
    pub rules: &'a [FirewallRule],
    /// What happens where none does.
    pub default: FirewallAction,
    /// Packets get the outside's address.
    pub masquerade: bool,
}

impl Firewall<'_> {
    /// Numbers of the rules whose destination is a name, from 0.
    pub fn named(&self) -> impl Iterator<Item = usize> {
        let is_name = |rule: &FirewallRule| matches!(rule.destination, Destination::Host(_));
        self.rules.iter().enumerate().filter(move |(_, rule)| is_name(rule)).map(|(index, _)| index)
    }
}

/// Whether the rule counts for protected addresses: it forbids, or it names a single one.
fn counts_inside(rule: &FirewallRule) -> bool {
    rule.action == FirewallAction::Drop || named_address(rule).is_some()
}

/// The single address that a rule names.
pub(crate) fn named_address(rule: &FirewallRule) -> Option<IpAddr> {
    match &rule.destination {
        Destination::V4(net) if net.prefix_len() == 32 => Some(net.addr().into()),
        Destination::V6(net) if net.prefix_len() == 128 => Some(net.addr().into()),
        _ => None,
    }
}

/// Questions to the resolver cannot go to a named destination too; the types of a rule say so.
fn is_dns(traffic: Traffic) -> bool {
    matches!(traffic, Traffic::Dns(_))
}

/// The set with the addresses of rule `index`, for `family` 4 or 6.
pub fn set_of(index: usize, family: u8) -> String {
    format!("rule{index}-{family}")
}

/// The counter of rule `index`.
pub fn counter_of(index: usize) -> String {
    format!("rule{index}")
}
