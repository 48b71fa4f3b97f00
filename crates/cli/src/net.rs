//! `net`: what compartments reach by their links to the host and in networks, which rule decides, and
//! what a supervisor that was killed left of them.

mod switches;

use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::process::Command;

use casemate_config::{Compartment, CompartmentName, Destination};
use casemate_host::facts::{Sources, own_programs};
use casemate_host::network::{ask_repair, helper_socket, own_addresses};
use casemate_plan::firewall::{By, Firewall, Packet, Payload, Surroundings};
use casemate_supervise::control::{Counter, Network, Request};
use casemate_supervise::prepare::{Purpose, Target, World};
use casemate_supervise::volumes::Passphrases;
use nix::unistd::geteuid;
use serde::Serialize;

use crate::arguments::{Net, NetTest};
use crate::connect::Supervisor;
use crate::failure::Problem;
use crate::{event_loop, print_json};

/// Counters that are not of rules, and what they count.
const COUNTERS: [(&str, &str); 14] = [
    ("established", "packets of connections that were let through"),
    ("replies", "packets back"),
    ("default", "decided by the default"),
    ("protected", "to the host or another compartment: dropped"),
    ("to-link", "to the other end of the link: dropped"),
    ("invalid", "of no connection: dropped"),
    ("spoofed-mac", "from another Ethernet address: dropped"),
    ("spoofed-arp", "ARP for another address: dropped"),
    ("spoofed-address", "from another IP address: dropped"),
    ("other-protocol", "neither IP nor ARP: dropped"),
    ("too-many", "connections beyond the limit: dropped"),
    ("friends", "packets of the same owner's compartments, by a rule of theirs"),
    ("to-guest", "to the compartment, unasked: dropped"),
    ("from-host", "from this machine, unasked: dropped"),
];

/// One compartment, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    name: String,
    host_networking: bool,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Network>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<Membership>,
}

/// Its part in a network between compartments, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Membership {
    network: String,
    role: &'static str,
    router: String,
    address: String,
    mac: String,
    connected: bool,
}

pub(crate) fn net(world: &World, command: &Net) -> Result<u8, Problem> {
    match command {
        Net::Show { name, json } => show(world, name.as_deref(), *json),
        Net::Test(arguments) => test(world, arguments),
        Net::Stats { name, json } => switches::stats(world, name.as_deref(), *json),
        Net::Capture(arguments) => switches::capture(world, arguments),
        Net::Repair => repair(world),
    }
}

/// What a supervisor leaves is nothing, however it ends. What a root helper that was killed leaves is
/// removed by the next one, which starts at the first question; or by root, without one.
fn repair(world: &World) -> Result<u8, Problem> {
    let asked = ask_repair();
    if let Ok(Some(mended)) = &asked {
        if mended.is_empty() {
            outln!("nothing to repair: casemate-netd runs and found nothing left when it began");
        }
        for what in mended {
            outln!("casemate-netd, when it began: {what}");
        }
        return Ok(0);
    }
    let program = own_programs(&Sources::current(&world.places)).jail;
    let program = program.with_file_name("casemate-netd");
    if geteuid().is_root() && program.exists() {
        let socket = helper_socket();
        let state = socket.parent().unwrap_or(Path::new("/run/casemate-netd"));
        let done = Command::new(&program).arg("repair").arg("--state").arg(state).status();
        return match done {
            Ok(status) if status.success() => Ok(0),
            Ok(status) => Err(Problem::new(format!("could not repair: casemate-netd {status}"))),
            Err(error) => {
                Err(Problem::new(format!("could not start {}", program.display())).because(&error))
            }
        };
    }
    if let Err(error) = asked {
        return Err(Problem::new("could not ask casemate-netd what is left of links")
            .because(&error)
            .hint("as root, `casemate net repair` does it without"));
    }
    outln!(
        "nothing to repair: without root, the network of a compartment is in processes of its own \
         and ends with its supervisor, however that ends"
    );
    Ok(0)
}

fn show(world: &World, name: Option<&str>, json: bool) -> Result<u8, Problem> {
    let names: Vec<&str> = match name {
        Some(name) => vec![name],
        None => world.settings().compartments.keys().map(CompartmentName::as_str).collect(),
    };
    let mut all = Vec::new();
    for name in names {
        all.push(look(world, name)?);
    }
    if json {
        return print_json(&all);
    }
    for shown in &all {
        print(world, shown)?;
    }
    Ok(0)
}

fn look(world: &World, name: &str) -> Result<Shown, Problem> {
    // A fresh disposable has its template's settings.
    let declared = declared(world, name);
    let compartment = world.compartment(&declared)?;
    let mut shown = Shown {
        name: name.into(),
        host_networking: compartment.host_networking,
        running: false,
        link: None,
        networks: memberships(world, name, compartment)?,
    };
    event_loop()?.block_on(async {
        if let Some(mut supervisor) = Supervisor::running(world.places.runtime(), name)? {
            shown.running = true;
            if compartment.host_networking {
                shown.link = Some(supervisor.ask::<Network>(&Request::Network).await?);
            }
        }
        Ok::<_, Problem>(shown)
    })
}

fn memberships(
    world: &World,
    name: &str,
    compartment: &Compartment,
) -> Result<Vec<Membership>, Problem> {
    let mut memberships = Vec::new();
    for parts in world.ports(compartment, Purpose::Print)? {
        let network = parts.network.to_string();
        let port = switches::port(world, &network, name)?;
        memberships.push(Membership {
            network,
            role: if parts.router == compartment.name { "router" } else { "client" },
            router: parts.router.to_string(),
            address: parts.address.to_string(),
            mac: parts.mac.to_string(),
            connected: port.is_some_and(|port| port.connected),
        });
    }
    Ok(memberships)
}

fn print_memberships(shown: &Shown) {
    for Membership { network, role, router, address, mac, connected } in &shown.networks {
        let role = match *role {
            "router" => "the router".to_owned(),
            _ => format!("behind `{router}`"),
        };
        let state = if *connected { "connected" } else { "not connected" };
        outln!("  network {network:<8} {address} ({mac}), {role}, {state}");
    }
}

/// The compartment of the configuration with this name, or the template of a fresh disposable.
fn declared(world: &World, name: &str) -> String {
    let known = |name: &str| world.settings().compartments.keys().any(|one| one.as_str() == name);
    match name.rsplit_once("-d") {
        Some((template, number))
            if !known(name) && known(template) && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            template.into()
        }
        _ => name.into(),
    }
}

fn print(world: &World, shown: &Shown) -> Result<(), Problem> {
    let name = &shown.name;
    if !shown.host_networking {
        match shown.networks.is_empty() {
            true => outln!("{name}: offline"),
            false => outln!("{name}: no link to the host"),
        }
        print_memberships(shown);
        return Ok(());
    }
    let compartment = world.compartment(&declared(world, name))?;
    let Some(link) = &shown.link else {
        outln!("{name}: not running; when it runs it reaches{}", way(world, name));
        for (index, rule) in compartment.firewall.iter().enumerate() {
            outln!("  {:<16} {rule}", format!("rule {}", index + 1));
        }
        outln!("  {:<16} {}", "otherwise", compartment.firewall_default);
        print_memberships(shown);
        return Ok(());
    };
    let Network { mac, address, gateway, resolver, .. } = link;
    outln!("{name}: {address} ({mac}), gateway {gateway}, name server {resolver}");
    outln!("  {:<16} {}", "made", described(&link.way, &link.device));
    let count = |name: &str| {
        let found = link.counters.iter().find(|counter| counter.name == name);
        found.map_or((0, 0), |Counter { packets, bytes, .. }| (*packets, *bytes))
    };
    for (index, rule) in link.rules.iter().enumerate() {
        let (packets, bytes) = count(&format!("rule{index}"));
        let label = format!("rule {}", index + 1);
        outln!("  {label:<16} {packets:>10} packets {bytes:>14} bytes  {rule}");
    }
    let there = |name: &str| link.counters.iter().any(|counter| counter.name == name);
    for (counter, what) in COUNTERS.into_iter().filter(|(name, _)| there(name)) {
        let (packets, bytes) = count(counter);
        let what = match counter {
            "default" => format!("{what}: {}", link.default),
            _ => what.to_owned(),
        };
        outln!("  {counter:<16} {packets:>10} packets {bytes:>14} bytes  {what}");
    }
    print_memberships(shown);
    Ok(())
}

/// Which way the link would be made, in words, where that can be said.
fn way(world: &World, name: &str) -> String {
    let target = Target::Declared(declared(world, name));
    let prepared = world.prepare(&target, Purpose::Print, &Passphrases::default());
    let network = prepared.ok().and_then(|prepared| prepared.plan.network);
    network.map_or(String::new(), |network| {
        format!(" ({})", described(network.way.name(), network.way.device()))
    })
}

fn described(way: &str, device: &str) -> String {
    match way {
        "tap" => format!("by casemate-netd: the TAP device {device} of this machine"),
        _ => "without root: in a namespace of its own, by pasta".into(),
    }
}

/// What is decided about one address, for programs.
#[derive(Serialize)]
struct Tested {
    address: IpAddr,
    action: String,
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<usize>,
}

fn test(world: &World, arguments: &NetTest) -> Result<u8, Problem> {
    let target = Target::Declared(declared(world, &arguments.name));
    let compartment = world.compartment(target.declared())?;
    let (host, payload) = destination(arguments)?;
    if !compartment.host_networking {
        let problem = Problem::new(format!("compartment `{}` is offline", arguments.name));
        let routers = world.routers(target.declared())?;
        return Err(match routers.first() {
            Some((router, _)) => problem.hint(format!(
                "what it reaches by way of `{router}` is decided by that one's rules: casemate net \
                 test {router} {}",
                arguments.destination
            )),
            None => {
                problem.hint("it reaches nothing; set host-networking = true to give it a link")
            }
        });
    }
    let prepared = world.prepare(&target, Purpose::Print, &Passphrases::default())?;
    let Some(network) = &prepared.plan.network else {
        return Err(Problem::new(format!("compartment `{}` is offline", arguments.name)));
    };
    let firewall = Firewall {
        link: &network.link,
        rules: &compartment.firewall,
        default: compartment.firewall_default,
        masquerade: true,
    };
    let around = surroundings(compartment);
    let addresses = addresses(host)?;
    let tested: Vec<Tested> = addresses
        .into_iter()
        .map(|to| {
            let decision = firewall.decide(&Packet { to, payload }, &around);
            let rule = match decision.by {
                By::Rule(index) => Some(index + 1),
                _ => None,
            };
            let by = because(decision.by, compartment);
            Tested { address: to, action: decision.action.to_string(), by, rule }
        })
        .collect();
    if arguments.json {
        return print_json(&tested);
    }
    for Tested { address, action, by, .. } in &tested {
        outln!("{address}: {action}, {by}");
    }
    Ok(0)
}

fn because(by: By, compartment: &Compartment) -> String {
    match by {
        By::Rule(index) => match compartment.firewall.get(index) {
            Some(rule) => format!("by rule {}: {rule}", index + 1),
            None => format!("by rule {}", index + 1),
        },
        By::Default => {
            format!("as no rule matches and firewall-default is {}", compartment.firewall_default)
        }
        By::Host => "as it is an address of the host that no rule names".into(),
        By::Reserved => {
            "as it is another compartment's address, or one for everybody or nobody, and no rule \
             names it"
                .into()
        }
        By::NoIpv6 => "as the compartment has no IPv6".into(),
    }
}

/// The host's addresses, and those of the names in rules as they are now.
fn surroundings(compartment: &Compartment) -> Surroundings {
    let mut around = Surroundings { host: own_addresses(), ..Surroundings::default() };
    for (index, rule) in compartment.firewall.iter().enumerate() {
        if let Destination::Host(name) = &rule.destination {
            let found = addresses(name.as_str()).unwrap_or_default();
            around.resolved.insert(index, found);
        }
    }
    around
}

/// `HOST:PORT`, `[ADDRESS]:PORT`, or a host alone with `--icmp`.
fn destination(arguments: &NetTest) -> Result<(&str, Payload), Problem> {
    let text = arguments.destination.as_str();
    let bare = |host: &'_ str| host.trim_start_matches('[').trim_end_matches(']').len();
    if arguments.icmp {
        let start = usize::from(text.starts_with('['));
        return Ok((&text[start..start + bare(text)], Payload::Icmp(ECHO)));
    }
    let wrong = || {
        Problem::new(format!("`{text}` is not HOST:PORT"))
            .hint("for example example.org:443, 192.0.2.1:53 or [2001:db8::1]:443")
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let start = usize::from(host.starts_with('['));
    let host = &host[start..start + bare(host)];
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host, if arguments.udp { Payload::Udp(port) } else { Payload::Tcp(port) }))
}

/// Echo request, RFC 792: what ping sends.
const ECHO: u8 = 8;

fn addresses(host: &str) -> Result<Vec<IpAddr>, Problem> {
    let found = (host, 0).to_socket_addrs().map_err(|error| {
        Problem::new(format!("could not find an address of `{host}`")).because(&error)
    })?;
    let mut all: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    all.sort();
    all.dedup();
    Ok(all)
}
