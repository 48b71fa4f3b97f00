//! The link of a compartment to the host, the rootless way: a network namespace of its own with the
//! guest's TAP device and the firewall, joined to the host's network by pasta (package passt).
//!
//! ```text
//! VMM ── descriptor of vm0 ── vm0 ── nft ── out0 ── pasta ── sockets of the host
//!                             └ namespace, kept by casemate-netns ┘
//! ```
//!
//! That is one of two ways; the other is the root helper's, whose TAP device is one of the host
//! ([`Way::Helper`]). Here, one planned process does all of it: `casemate-netns`, in a jail that leaves it the host's network
//! and nothing else; pasta and nft are its children there. See docs/design/0013-host-networking.md.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use casemate_config::ipnet::Ipv4Net;
use casemate_config::{
    Compartment, CompartmentId, Destination, FirewallAction, FirewallRule, MacAddr, NetworkMode,
    NetworkSettings,
};
use casemate_wire::Interface;
use serde::{Deserialize, Serialize};

pub use crate::by_helper::ByHelper;
use crate::by_helper::{Otherwise, SET_UP, by_helper};
use crate::facts::{HostFacts, NetworkFacts};
use crate::firewall::{Firewall, Link, OUTSIDE, TABLE, TAP, named_address, reserved, set_of};
use crate::helper::Terms;
use crate::jail::{Jail, Limits, Reach, VisibleFile};
use crate::process::{Channel, Descriptor, DescriptorSource, Process, Role};
use crate::vm::LOG_SIZE;
use crate::{Refusal, Request, identity, switch};

/// Which number and Ethernet address a compartment has on its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkParts {
    /// Its number.
    pub id: CompartmentId,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// The network of a planned compartment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Network {
    /// Its link.
    pub link: Link,
    /// Its rules, as the configuration has them.
    pub rules: Vec<String>,
    /// What happens to what no rule matches.
    #[serde(serialize_with = "as_word")]
    pub default: FirewallAction,
    /// How it is made.
    pub way: Way,
    /// Why it is not made the other way, where that is a question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a link is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Without root: in a namespace of its own.
    Rootless(Box<Namespace>),
    /// By the root helper: among the host's own interfaces.
    Helper(Box<ByHelper>),
}

impl Way {
    /// The way in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rootless(_) => "rootless",
            Self::Helper(_) => "tap",
        }
    }

    /// Name of the TAP device, where it is.
    pub fn device(&self) -> &str {
        match self {
            Self::Rootless(namespace) => &namespace.tap,
            Self::Helper(link) => &link.device,
        }
    }
}

/// What `casemate-netns` is told: the namespace, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Namespace {
    /// Name of the TAP device.
    pub tap: String,
    /// Its address, of a /31.
    pub address: Ipv4Addr,
    /// The guest's.
    pub guest: Ipv4Addr,
    /// Networks between compartments that the guest is the router of.
    pub behind: Vec<Ipv4Net>,
    /// Its IPv6 address, of a /127.
    pub address6: Option<Ipv6Addr>,
    /// Name of the interface that pasta makes.
    pub outside: String,
    /// The program nft.
    pub nft: PathBuf,
    /// What it loads.
    pub rules: String,
    /// The table with the sets `host4` and `host6`, kept equal to the host's own addresses.
    pub table: String,
    /// The program pasta.
    pub pasta: PathBuf,
    /// Its arguments, but for the namespaces.
    pub pasta_arguments: Vec<String>,
    /// What is asked for names.
    pub resolver: Ipv4Addr,
    /// Names whose addresses are kept in sets of the table.
    pub names: Vec<Name>,
}

/// The name in one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Name {
    /// Number of the rule, from 0.
    pub rule: usize,
    /// The name.
    pub host: String,
    /// The set of its IPv4 addresses.
    pub set4: String,
    /// And of those of IPv6.
    pub set6: String,
}

/// The descriptor of `casemate-netns` to the supervisor.
const CHANNEL: i32 = 3;
/// And that with what it is told.
const ORDER: i32 = 4;

/// Bytes of a packet on the link. Ethernet's own, which every guest can.
pub const MTU: u16 = 1500;

/// Until the namespace is there; a loaded machine has been seen to take 1 s.
pub const DEADLINE_SECONDS: u32 = 20;

/// The end of the namespace that pasta is at, and pasta's own: a pair nobody outside ever sees.
const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);
const OUTSIDE_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 1);
const OUTSIDE_PREFIX: u8 = 30;

/// The same with IPv6, of another network than the links.
const OUTSIDE_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfdca, 0x5e3a, 0x7e01, 0, 0, 0, 0, 2);
const OUTSIDE_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfdca, 0x5e3a, 0x7e01, 0, 0, 0, 0, 1);

/// The kernel's settings of networks: those of the namespace that the reader is in. IPv6 is forwarded
/// by them alone.
const SETTINGS: &str = "/proc/sys/net";

/// What a guest asks for names; pasta, or the helper's forwarder, asks the host's first name server
/// in its place.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Connections that pasta may have, each a socket: fewer than there are ports for clients, which the
/// host and other compartments need too.
const OPEN_FILES: u64 = 1 << 13;

/// The keeper, its name resolver, pasta, nft, and room.
const PROCESSES: u64 = 16;

/// The network of the request's compartment; none when it is offline.
///
/// # Errors
/// The configuration asks for what the way cannot, or the host lacks a part.
pub(crate) fn network(
    request: &Request<'_>,
    facts: &HostFacts,
) -> Result<Option<Network>, Refusal> {
    let compartment = request.compartment;
    if !compartment.host_networking {
        return Ok(None);
    }
    let settings = request.network;
    let not_possible = |what: String, hint: &str| Refusal::HostNotReady { what, hint: hint.into() };
    let (refused, hint) = match by_helper(request, settings, facts) {
        _ if settings.mode == NetworkMode::Rootless => (None, ""),
        Ok(network) => return Ok(Some(network)),
        Err(Otherwise::Refused(refusal)) => return Err(refusal),
        Err(Otherwise::Absent) => (None, SET_UP),
        Err(Otherwise::Not(reason, hint)) => (Some(reason), hint),
    };
    if settings.mode == NetworkMode::Tap {
        let what = match refused {
            None => {
                "`mode = \"tap\"` in [network] needs the root helper casemate-netd, which is not \
                     set up on this machine"
                    .into()
            }
            Some(reason) => format!("`mode = \"tap\"` in [network] cannot be had: {reason}"),
        };
        return Err(not_possible(what, hint));
    }
    if !settings.nat_enable {
        return Err(not_possible(
            "`nat.enable = false` in [network] cannot be had without root: what a compartment sends \
             always leaves as the host's own"
                .into(),
            "remove it",
        ));
    }
    let (pasta, nft) = programs(&facts.network)?;
    let link = link(request, settings)?;
    reachable(compartment, &link, false)?;
    let firewall = Firewall {
        link: &link,
        rules: &compartment.firewall,
        default: compartment.firewall_default,
        masquerade: true,
    };
    let namespace = Namespace {
        tap: TAP.into(),
        address: link.host,
        guest: link.guest,
        behind: link.behind.clone(),
        address6: link.v6.map(|(_, host)| host),
        outside: OUTSIDE.into(),
        nft,
        rules: firewall.render(),
        table: TABLE.into(),
        pasta,
        pasta_arguments: pasta_arguments(settings, link.v6.is_some()),
        resolver: link.resolver,
        names: names(&compartment.firewall),
    };
    let rules = compartment.firewall.iter().map(FirewallRule::to_string).collect();
    let way = Way::Rootless(Box::new(namespace));
    let default = compartment.firewall_default;
    Ok(Some(Network { link, rules, default, way, why: refused }))
}

fn as_word<S: serde::Serializer>(
    action: &FirewallAction,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(action)
}

fn programs(facts: &NetworkFacts) -> Result<(PathBuf, PathBuf), Refusal> {
    let missing = |program: &str, package: &str| Refusal::HostNotReady {
        what: format!("`{program}` is not installed, which `host-networking` needs"),
        hint: format!("install the package `{package}`"),
    };
    let pasta = facts.pasta.clone().ok_or_else(|| missing("pasta", "passt"))?;
    let nft = facts.nft.clone().ok_or_else(|| missing("nft", "nftables"))?;
    if let Err(reason) = &facts.tun {
        return Err(Refusal::HostNotReady {
            what: format!("no TAP device can be made, which `host-networking` needs: {reason}"),
            hint: "load the kernel module tun, and let everybody open /dev/net/tun (mode 0666, as \
                   udev does)"
                .into(),
        });
    }
    Ok((pasta, nft))
}

pub(crate) fn link(request: &Request<'_>, settings: &NetworkSettings) -> Result<Link, Refusal> {
    let parts = request.link;
    let ends = parts.and_then(|parts| {
        let id = parts.id.get();
        let last = settings.cidr.size() - 1;
        Some((settings.cidr.host(id).filter(|_| id <= last)?, settings.cidr.host(id - 1)?, parts))
    });
    let Some((guest, host, parts)) = ends else {
        return Err(Refusal::HostNotReady {
            what: format!(
                "compartment `{}` has no address in {}, the links of [network]",
                request.compartment.name, settings.cidr
            ),
            hint: "widen `cidr` in [network], or give the compartment a smaller `id`".into(),
        });
    };
    let links = settings.cidr.net();
    let v6 = settings.ipv6.then(|| {
        let end = |id: u32| (u128::from(reserved::LINKS6.addr()) | u128::from(id)).into();
        (end(parts.id.get()), end(parts.id.get() - 1))
    });
    let behind = switch::behind(request);
    Ok(Link { mac: parts.mac, guest, host, v6, resolver: RESOLVER, links, behind })
}

/// Refuses rules that allow what no compartment can reach this way: without the helper, another
/// compartment's link and the other end of its own; loopback, everybody at once.
pub(crate) fn reachable(
    compartment: &Compartment,
    link: &Link,
    by_helper: bool,
) -> Result<(), Refusal> {
    for (index, rule) in compartment.firewall.iter().enumerate() {
        let number = index + 1;
        let refused = |what: String, hint: &str| {
            let rule = format!("rule {number} of `firewall` of `{}`", compartment.name);
            Err(Refusal::HostNotReady { what: format!("{rule} {what}"), hint: hint.into() })
        };
        if rule.action == FirewallAction::Drop {
            continue;
        }
        if let Destination::V6(net) = rule.destination {
            if link.v6.is_none() {
                return refused(
                    format!("allows {net}, and links have no IPv6"),
                    "remove it, or set ipv6 = true in [network]",
                );
            }
            if named_address(rule).is_some() && reserved::V6.iter().any(|own| own.contains(&net)) {
                return refused(
                    format!("allows {}, which a compartment cannot reach", net.addr()),
                    "the host is named by one of its own global addresses",
                );
            }
        }
        let Destination::V4(net) = rule.destination else { continue };
        if link.links.contains(&net) && by_helper {
            continue;
        }
        if link.links.contains(&net) {
            return refused(
                format!(
                    "allows {net}, a link of compartments, which cannot be reached without root"
                ),
                "share a folder, or let both reach a machine outside; the host is named by one of \
                 its own addresses",
            );
        }
        let nowhere = |address: Ipv4Addr| {
            reserved::V4.iter().any(|net| net.contains(&address)) && !address.is_link_local()
        };
        if named_address(rule).is_some() && nowhere(net.addr()) {
            return refused(
                format!("allows {}, which a compartment cannot reach", net.addr()),
                "the host is named by one of its own addresses, not by a loopback one",
            );
        }
    }
    Ok(())
}

/// The names in rules, with the sets of their addresses.
pub fn names(rules: &[FirewallRule]) -> Vec<Name> {
    let name = |(rule, found): (usize, &FirewallRule)| match &found.destination {
        Destination::Host(host) => {
            let [set4, set6] = [4, 6].map(|family| set_of(rule, family));
            Some(Name { rule, host: host.as_str().into(), set4, set6 })
        }
        _ => None,
    };
    rules.iter().enumerate().filter_map(name).collect()
}

fn pasta_arguments(settings: &NetworkSettings, v6: bool) -> Vec<String> {
    let mut words: Vec<String> = [
        "--foreground",
        // The log of processes is for what goes wrong.
        "--quiet",
        "--config-net",
        // The guest's gateway is the namespace, and never the host's loopback interface.
        "--no-map-gw",
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ra",
    ]
    .map(String::from)
    .to_vec();
    if !v6 {
        words.extend(["--no-ndp", "--ipv4-only"].map(String::from));
    }
    let mut option = |name: &str, value: &str| words.extend([name.into(), value.into()]);
    // No port of the host leads to the guest, and none of the namespace's loopback to the host's.
    for ports in ["--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"] {
        option(ports, "none");
    }
    option("--address", &OUTSIDE_ADDRESS.to_string());
    option("--netmask", &OUTSIDE_PREFIX.to_string());
    option("--gateway", &OUTSIDE_GATEWAY.to_string());
    if v6 {
        option("--address", &OUTSIDE_ADDRESS6.to_string());
        option("--gateway", &OUTSIDE_GATEWAY6.to_string());
    }
    option("--dns-forward", &RESOLVER.to_string());
    option("--ns-ifname", OUTSIDE);
    if let Some(interface) = &settings.nat_interface {
        option("--interface", interface.as_str());
        option("--outbound-if4", interface.as_str());
        if v6 {
            option("--outbound-if6", interface.as_str());
        }
    }
    words
}

/// The process that makes and keeps the namespace.
///
/// # Errors
/// There is no user for it.
pub(crate) fn keeper(
    request: &Request<'_>,
    facts: &HostFacts,
    network: &Network,
) -> Result<Option<Process>, Refusal> {
    let Way::Rootless(namespace) = &network.way else { return Ok(None) };
    let mut files: Vec<VisibleFile> =
        facts.system_directories.iter().map(|path| VisibleFile::execute(path.clone())).collect();
    for program in [&namespace.nft, &namespace.pasta] {
        if !files.iter().any(|file| program.starts_with(&file.source)) {
            files.push(VisibleFile::execute(program.clone()));
        }
    }
    files.push(VisibleFile::read("/etc/ld.so.cache").if_there());
    files.push(VisibleFile::read("/dev/urandom"));
    files.push(VisibleFile::write("/dev/null"));
    files.push(VisibleFile::write("/dev/net/tun"));
    if namespace.address6.is_some() {
        files.push(VisibleFile::write(SETTINGS));
    }
    // Where pasta mounts the empty root that it then lives in.
    files.push(VisibleFile::empty("/tmp"));
    if let Some(path) = &facts.network.resolv_conf {
        let target = "/etc/resolv.conf".into();
        files.push(VisibleFile { target, ..VisibleFile::read(path.clone()) });
    }
    let text = serde_json::to_string(namespace).unwrap_or_default();
    Ok(Some(Process {
        role: Role::Network,
        program: facts.programs.netns.clone(),
        arguments: vec![],
        environment: vec![],
        descriptors: vec![
            Descriptor {
                number: CHANNEL,
                what: DescriptorSource::Channel { channel: Channel::Network },
            },
            Descriptor { number: ORDER, what: DescriptorSource::Text { text } },
        ],
        jail: Jail {
            identity: identity::identity(facts, request.instance.slot, Role::Network)?,
            files,
            limits: Limits {
                open_files: OPEN_FILES,
                address_space: None,
                file_size: LOG_SIZE,
                processes: PROCESSES,
            },
            reach: Reach::HostNetwork,
        },
    }))
}

/// What the agent is told of the link.
pub(crate) fn interface(network: &Network) -> Interface {
    let link = &network.link;
    Interface {
        mac: link.mac.octets(),
        address: link.guest,
        gateway: link.host,
        v6: link.v6,
        name_servers: vec![link.resolver.into()],
        mtu: MTU,
    }
}

/// What the user should know of a network.
pub(crate) fn notes(network: &Network, facts: &NetworkFacts) -> Vec<String> {
    let mut notes = match (&network.way, &network.why) {
        (Way::Helper(link), _) => vec![format!(
            "the network is made by casemate-netd: the TAP device {} of the host",
            link.device
        )],
        (Way::Rootless(_), why) => {
            let mut note = "the network is rootless: what the compartment sends leaves as the host's \
                            own, nothing reaches it from outside, and other compartments are out of \
                            reach"
                .to_owned();
            if let Some(why) = why {
                note.push_str(&format!(" (not by casemate-netd: {why})"));
            }
            vec![note]
        }
    };
    if !facts.resolvers.iter().any(std::net::IpAddr::is_ipv4) {
        notes.push(
            "the compartment resolves no names: the host has no IPv4 name server in \
             /etc/resolv.conf"
                .into(),
        );
    }
    notes
}

/// The longest message of either end, in bytes: two counters for each of some thousand rules.
pub const LONGEST_MESSAGE: usize = 128 * 1024;

/// From `casemate-netns` to the supervisor, as JSON, one a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromKeeper {
    /// The namespace is there. Comes with the TAP device.
    Ready,
    /// It could not be made, or has ended.
    Failed {
        /// Why, for a person.
        reason: String,
    },
    /// The answer to [`ToKeeper::Counters`].
    Counters {
        /// What nft lists, JSON.
        text: String,
    },
    /// The other answer to it.
    NoCounters {
        /// Why not, for a person.
        reason: String,
    },
    /// Of the root helper: what the user may have.
    Terms {
        /// That.
        terms: Terms,
    },
    /// Of the root helper: what it found when it began, and mended.
    Repaired {
        /// In words; nothing when there was nothing.
        what: Vec<String>,
    },
}

/// From the supervisor to `casemate-netns`, as JSON, one a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToKeeper {
    /// How many packets met which rule?
    Counters,
}
