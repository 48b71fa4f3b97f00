//! The same firewall where the link's TAP device is one of the host's own: a table of its own for
//! each link, so that one link comes and goes without a word about another.
//!
//! ```text
//! cmtap3 ─ netdev ingress ─ prerouting ─ from-guest ┬ outside   ─ rules ─ default
//!          MAC, ARP, source                         └ protected ─ rules that count there ─ drop
//! to the host itself: input ─ to-host ─ questions for names, else protected, again
//! to another link:    forward ─ to-guest of that link ─ its owner's others, or replies
//! ```
//!
//! It is decided in `prerouting`, before any other table of the host translates the destination: a
//! port of the host that leads into a container is the host's. What happens to packets of other
//! interfaces is none of these tables' business, but for [`guard`].

use std::fmt::{self, Write};

use super::render::{PORTS, anew, by_destination, set};
use super::{Firewall, TABLE};

/// How the names of devices and tables begin. Whatever has such a name is the helper's.
pub const PREFIX: &str = "cmtap";

/// Connections that one guest may have at a time, as the rootless way allows: the host's table of
/// them is one for all.
const CONNECTIONS: u32 = 8192;

/// The name of a link's TAP device and of its tables: 13 of the 15 bytes that an interface may have.
pub fn device(id: u32) -> String {
    format!("{PREFIX}{id}")
}

/// Where the link is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnHost<'a> {
    /// Name of the device and of the tables, see [`device`].
    pub name: &'a str,
    /// The only interface that leads outside; any when none.
    pub outside: Option<&'a str>,
    /// Where questions for names are answered, on the host's end of the link: UDP and TCP.
    pub questions: Option<(u16, u16)>,
}

impl Firewall<'_> {
    /// The text for the host's network.
    pub fn render_on_host(&self, at: &OnHost<'_>) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.netdev(&mut out, at.name, at.name).and_then(|()| self.on_host(&mut out, at));
        out
    }

    fn on_host(&self, out: &mut String, at: &OnHost<'_>) -> fmt::Result {
        let OnHost { name, .. } = at;
        anew(out, "inet", name)?;
        self.counters_and_sets(out, &["too-many", "friends", "to-guest", "from-host"])?;
        set(out, "friends4", 4, "")?;

        writeln!(out, "\tchain outside {{")?;
        writeln!(out, "\t\tct state established,related counter name \"established\" accept")?;
        writeln!(out, "\t\tct state invalid counter name \"invalid\" drop")?;
        writeln!(
            out,
            "\t\tct state new ct count over {CONNECTIONS} counter name \"too-many\" drop"
        )?;
        self.decision(out)?;

        let (resolver, gateway) = (self.link.resolver, self.link.host);
        writeln!(out, "\tchain from-guest {{")?;
        // What this guest answers to another of the same owner.
        let friends = "\t\tip daddr @friends4 ct state established,related counter name \
                       \"established\" accept\n";
        by_destination(out, resolver, friends)?;

        writeln!(out, "\tchain to-host {{")?;
        if let Some((udp, tcp)) = at.questions {
            for (transport, port) in [("udp", udp), ("tcp", tcp)] {
                // Only what was a question before it was translated.
                writeln!(
                    out,
                    "\t\tip daddr {gateway} {transport} dport {port} ct status dnat accept"
                )?;
            }
        }
        writeln!(out, "\t\tgoto protected\n\t}}")?;

        writeln!(out, "\tchain to-guest {{")?;
        writeln!(out, "\t\tct state established,related counter name \"replies\" accept")?;
        writeln!(
            out,
            "\t\tiifname \"{PREFIX}*\" ip saddr @friends4 counter name \"friends\" accept"
        )?;
        writeln!(out, "\t\tcounter name \"to-guest\" drop\n\t}}")?;

        writeln!(out, "\tchain leaving {{")?;
        if let Some(outside) = at.outside {
            writeln!(
                out,
                "\t\toifname != \"{outside}\" oifname != \"{PREFIX}*\" counter name \"protected\" drop"
            )?;
        }
        writeln!(out, "\t}}")?;
        self.hooks(out, at)?;
        writeln!(out, "}}")
    }

    fn hooks(&self, out: &mut String, at: &OnHost<'_>) -> fmt::Result {
        let OnHost { name, .. } = at;
        let (resolver, gateway, guest) = (self.link.resolver, self.link.host, self.link.guest);
        writeln!(out, "\tchain prerouting {{")?;
        writeln!(out, "\t\ttype filter hook prerouting priority mangle; policy accept;")?;
        writeln!(out, "\t\tiifname vmap {{ \"{name}\" : goto from-guest }}\n\t}}")?;

        writeln!(out, "\tchain input {{")?;
        writeln!(out, "\t\ttype filter hook input priority filter; policy accept;")?;
        // Who is no guest of this link asks its name server nothing.
        for (transport, port) in
            at.questions.iter().flat_map(|(udp, tcp)| [("udp", udp), ("tcp", tcp)])
        {
            writeln!(
                out,
                "\t\tiifname != \"{name}\" ip daddr {gateway} {transport} dport {port} drop"
            )?;
        }
        writeln!(out, "\t\tiifname vmap {{ \"{name}\" : goto to-host }}\n\t}}")?;

        writeln!(out, "\tchain output {{")?;
        writeln!(out, "\t\ttype filter hook output priority filter; policy accept;")?;
        writeln!(out, "\t\toifname != \"{name}\" accept")?;
        writeln!(out, "\t\tct state established,related accept")?;
        writeln!(out, "\t\tcounter name \"from-host\" drop\n\t}}")?;

        writeln!(out, "\tchain forward {{")?;
        writeln!(out, "\t\ttype filter hook forward priority filter; policy accept;")?;
        writeln!(out, "\t\tiifname vmap {{ \"{name}\" : jump leaving }}")?;
        writeln!(out, "\t\toifname vmap {{ \"{name}\" : goto to-guest }}\n\t}}")?;

        if let Some((udp, tcp)) = at.questions {
            writeln!(out, "\tchain questions {{")?;
            writeln!(out, "\t\ttype nat hook prerouting priority dstnat;")?;
            for (transport, port) in [("udp", udp), ("tcp", tcp)] {
                writeln!(
                    out,
                    "\t\tiifname \"{name}\" ip daddr {resolver} {transport} dport 53 \
                     dnat ip to {gateway}:{port}"
                )?;
            }
            writeln!(out, "\t}}")?;
        }
        if self.masquerade {
            let from = format!("ip saddr {guest} oifname != \"{PREFIX}*\"");
            writeln!(out, "\tchain source {{")?;
            writeln!(out, "\t\ttype nat hook postrouting priority srcnat;")?;
            writeln!(out, "\t\t{from} meta l4proto {{ tcp, udp }} masquerade to :{PORTS} random")?;
            writeln!(out, "\t\t{from} masquerade\n\t}}")?;
        }
        Ok(())
    }
}

/// What keeps the host from forwarding for others while it forwards for links alone: packets that
/// come in by one of its other interfaces and would leave by another.
pub fn guard() -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = anew(&mut out, "inet", TABLE).and_then(|()| {
        writeln!(out, "\tchain forward {{")?;
        writeln!(out, "\t\ttype filter hook forward priority filter; policy accept;")?;
        writeln!(
            out,
            "\t\tmeta nfproto ipv4 iifname != \"{PREFIX}*\" oifname != \"{PREFIX}*\" drop"
        )?;
        writeln!(out, "\t}}\n}}")
    });
    out
}

/// What removes a table of both families, whether it is there or not.
pub fn removal(name: &str) -> String {
    ["inet", "netdev"]
        .map(|family| format!("table {family} {name}\ndelete table {family} {name}\n"))
        .concat()
}
