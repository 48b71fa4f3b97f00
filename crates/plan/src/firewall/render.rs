//! The firewall as text for `nft -f`: both tables are made anew in one transaction.
//!
//! ```text
//! vm0 ─ netdev ingress ─ forward ─ from-guest ┬ outside   ─ rules ─ default
//!       MAC, ARP, source                      └ protected ─ rules that count there ─ drop
//! ```
//!
//! Established connections are let through behind the check for protected addresses: an address
//! that the host gets later is closed at once, for those too. Each rule counts in both chains by
//! the same named counter. The sets `host4` and `host6`, with the host's addresses, and those of
//! rules with names are filled by whoever loads this.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use casemate_config::{Destination, FirewallRule, PortRange, Traffic, Transport};

use super::{Firewall, Link, OUTSIDE, TABLE, TAP, counter_of, counts_inside, reserved, set_of};

/// Ports that connections leave by: what Linux itself gives to clients (ip(7),
/// `ip_local_port_range`).
pub(super) const PORTS: &str = "32768-60999";

/// Where a rule is looked at.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Place {
    Outside,
    Protected,
}

impl Firewall<'_> {
    /// The text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.netdev(&mut out, TABLE, TAP).and_then(|()| self.inet(&mut out));
        out
    }

    /// What comes from the guest is from the guest.
    pub(super) fn netdev(&self, out: &mut String, table: &str, tap: &str) -> fmt::Result {
        let Link { mac, guest, host, v6, .. } = self.link;
        anew(out, "netdev", table)?;
        for counter in ["spoofed-mac", "spoofed-arp", "spoofed-address", "other-protocol"] {
            writeln!(out, "\tcounter {counter} {{ }}")?;
        }
        writeln!(out, "\tchain ingress {{")?;
        writeln!(out, "\t\ttype filter hook ingress device \"{tap}\" priority 0; policy drop;")?;
        writeln!(out, "\t\tether saddr != {mac} counter name \"spoofed-mac\" drop")?;
        writeln!(
            out,
            "\t\tether type arp arp htype 1 arp ptype 0x0800 arp hlen 6 arp plen 4 \
             arp operation {{ request, reply }} arp saddr ether {mac} arp saddr ip {guest} \
             arp daddr ip {{ {guest}, {host} }} accept"
        )?;
        writeln!(out, "\t\tether type arp counter name \"spoofed-arp\" drop")?;
        let sources = match self.link.behind.is_empty() {
            true => guest.to_string(),
            false => {
                let behind = self.link.behind.iter().map(ToString::to_string);
                let all: Vec<String> = std::iter::once(guest.to_string()).chain(behind).collect();
                format!("{{ {} }}", all.join(", "))
            }
        };
        writeln!(out, "\t\tether type ip ip saddr {sources} accept")?;
        if let Some((guest6, _)) = v6 {
            let local = link_local(mac.octets());
            // The guest is no router.
            writeln!(
                out,
                "\t\tether type ip6 icmpv6 type {{ nd-router-advert, nd-redirect }} \
                 counter name \"spoofed-address\" drop"
            )?;
            // `::` asks whether anybody has the address (RFC 4862).
            writeln!(out, "\t\tether type ip6 ip6 saddr {{ {guest6}, {local} }} accept")?;
            writeln!(
                out,
                "\t\tether type ip6 ip6 saddr :: icmpv6 type nd-neighbor-solicit accept"
            )?;
        }
        writeln!(out, "\t\tether type {{ ip, ip6 }} counter name \"spoofed-address\" drop")?;
        writeln!(out, "\t\tcounter name \"other-protocol\" drop")?;
        writeln!(out, "\t}}\n}}")
    }

    fn inet(&self, out: &mut String) -> fmt::Result {
        anew(out, "inet", TABLE)?;
        self.counters_and_sets(out, &[])?;

        writeln!(out, "\tchain outside {{")?;
        writeln!(out, "\t\tct state established,related counter name \"established\" accept")?;
        writeln!(out, "\t\tct state invalid counter name \"invalid\" drop")?;
        self.decision(out)?;

        let resolver = self.link.resolver;
        writeln!(out, "\tchain from-guest {{")?;
        writeln!(out, "\t\toifname != \"{OUTSIDE}\" counter name \"protected\" drop")?;
        by_destination(out, resolver, "")?;

        writeln!(out, "\tchain to-guest {{")?;
        writeln!(
            out,
            "\t\toifname \"{TAP}\" ct state established,related counter name \"replies\" accept\n\t}}"
        )?;
        writeln!(out, "\tchain forward {{")?;
        writeln!(out, "\t\ttype filter hook forward priority filter; policy drop;")?;
        writeln!(
            out,
            "\t\tiifname vmap {{ \"{TAP}\" : jump from-guest, \"{OUTSIDE}\" : jump to-guest }}\n\t}}"
        )?;

        writeln!(out, "\tchain input {{")?;
        writeln!(out, "\t\ttype filter hook input priority filter; policy drop;")?;
        writeln!(out, "\t\tiifname \"lo\" accept")?;
        if self.link.v6.is_some() {
            writeln!(out, "\t\ticmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept")?;
        }
        writeln!(out, "\t\tiifname \"{OUTSIDE}\" ct state established,related accept")?;
        writeln!(out, "\t\tiifname \"{TAP}\" counter name \"to-link\" drop\n\t}}")?;

        if self.masquerade {
            writeln!(out, "\tchain source {{")?;
            writeln!(out, "\t\ttype nat hook postrouting priority srcnat;")?;
            // The ports become ports of the host: no guest takes one that a service may want.
            writeln!(
                out,
                "\t\toifname \"{OUTSIDE}\" meta l4proto {{ tcp, udp }} masquerade to :{PORTS} random"
            )?;
            writeln!(out, "\t\toifname \"{OUTSIDE}\" masquerade\n\t}}")?;
        }
        writeln!(out, "}}")
    }

    /// What the chains name; `more` are counters of the place.
    pub(super) fn counters_and_sets(&self, out: &mut String, more: &[&str]) -> fmt::Result {
        let counters = ["established", "replies", "default", "protected", "to-link", "invalid"];
        let counters = counters.iter().chain(more).map(ToString::to_string);
        for counter in counters.chain(self.counters()) {
            writeln!(out, "\tcounter {counter} {{ }}")?;
        }
        let links = self.link.links;
        let v4 = reserved::V4.iter().chain([&links]).map(ToString::to_string);
        set(out, "reserved4", 4, &v4.collect::<Vec<_>>().join(", "))?;
        set(out, "host4", 4, "")?;
        let v6 = reserved::V6.iter().map(ToString::to_string);
        set(out, "reserved6", 6, &v6.collect::<Vec<_>>().join(", "))?;
        set(out, "host6", 6, "")?;
        for index in self.named() {
            set(out, &set_of(index, 4), 4, "")?;
            set(out, &set_of(index, 6), 6, "")?;
        }
        Ok(())
    }

    /// The end of the chain `outside`, and the chain `protected`.
    pub(super) fn decision(&self, out: &mut String) -> fmt::Result {
        self.rules(out, Place::Outside)?;
        writeln!(out, "\t\tcounter name \"default\" {}\n\t}}", self.default)?;

        writeln!(out, "\tchain protected {{")?;
        self.rules(out, Place::Protected)?;
        writeln!(out, "\t\tcounter name \"protected\" drop\n\t}}")
    }

    fn counters(&self) -> impl Iterator<Item = String> {
        (0..self.rules.len()).map(counter_of)
    }

    fn rules(&self, out: &mut String, place: Place) -> fmt::Result {
        for (index, rule) in self.rules.iter().enumerate() {
            if place == Place::Protected && !counts_inside(rule) {
                continue;
            }
            for family in [4, 6] {
                let Some(condition) = self.condition(index, rule, family, place) else { continue };
                let (counter, action) = (counter_of(index), rule.action);
                writeln!(out, "\t\t{condition} counter name \"{counter}\" {action}")?;
            }
        }
        Ok(())
    }

    /// What a packet of one family must be for the rule; none when none of the family can match.
    fn condition(
        &self,
        index: usize,
        rule: &FirewallRule,
        family: u8,
        place: Place,
    ) -> Option<String> {
        if family == 6 && self.link.v6.is_none() {
            return None;
        }
        let ip = if family == 4 { "ip" } else { "ip6" };
        let destination = match &rule.destination {
            Destination::Any => format!("meta nfproto ipv{family}"),
            Destination::V4(net) if family == 4 => format!("ip daddr {net}"),
            Destination::V6(net) if family == 6 => format!("ip6 daddr {net}"),
            Destination::V4(_) | Destination::V6(_) => return None,
            Destination::Host(_) => format!("{ip} daddr @{}", set_of(index, family)),
        };
        let ports = |name: &str, ports: Option<PortRange>| match ports {
            Some(range) => format!(" {name} dport {}-{}", range.first(), range.last()),
            None => format!(" meta l4proto {name}"),
        };
        let icmp = if family == 4 { "icmp" } else { "icmpv6" };
        let traffic = match rule.traffic {
            Traffic::Any => String::new(),
            Traffic::Tcp(range) => ports("tcp", range),
            Traffic::Udp(range) => ports("udp", range),
            Traffic::Icmp(Some(number)) => format!(" {icmp} type {number}"),
            Traffic::Icmp(None) => format!(" meta l4proto {icmp}"),
            // The resolver has an IPv4 address, and its questions never come to the other chain.
            Traffic::Dns(_) if family == 6 || place == Place::Protected => return None,
            Traffic::Dns(transport) => {
                let resolver = self.link.resolver;
                let transport = match transport {
                    None => "meta l4proto { tcp, udp } th dport 53",
                    Some(Transport::Tcp) => "tcp dport 53",
                    Some(Transport::Udp) => "udp dport 53",
                };
                format!(" ip daddr {resolver} {transport}")
            }
        };
        Some(format!("{destination}{traffic}"))
    }
}

/// Begins a table that replaces one of its name, whether there is one or not.
pub(super) fn anew(out: &mut String, family: &str, table: &str) -> fmt::Result {
    writeln!(out, "table {family} {table}\ndelete table {family} {table}")?;
    writeln!(out, "table {family} {table} {{")
}

/// Ends the chain of what a guest sends: to which of the two chains of rules it goes. `friends` are
/// lines for those who are no outside and no host.
pub(super) fn by_destination(out: &mut String, resolver: Ipv4Addr, friends: &str) -> fmt::Result {
    writeln!(out, "\t\tip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 goto outside")?;
    out.push_str(friends);
    for family in [4, 6] {
        let ip = if family == 4 { "ip" } else { "ip6" };
        writeln!(out, "\t\t{ip} daddr @reserved{family} goto protected")?;
        writeln!(out, "\t\t{ip} daddr @host{family} goto protected")?;
    }
    writeln!(out, "\t\tgoto outside\n\t}}")
}

pub(super) fn set(out: &mut String, name: &str, family: u8, elements: &str) -> fmt::Result {
    write!(out, "\tset {name} {{ type ipv{family}_addr; flags interval; auto-merge;")?;
    if !elements.is_empty() {
        write!(out, " elements = {{ {elements} }};")?;
    }
    writeln!(out, " }}")
}

/// The link-local address that an interface makes of its Ethernet address (RFC 4291, appendix A).
pub(super) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}
