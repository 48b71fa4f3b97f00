//! Networks between compartments: the ports of one compartment, and the switch that each is a port of.
//!
//! ```text
//! VMM ── /ports/NAME (vhost-user) ── casemate-switch ── /ports/NAME ── VMM of another compartment
//!                                       │ control socket
//!        supervisor ── keeps a port ────┴──── keeps a port ── supervisor of the other
//! ```
//!
//! A switch is no one compartment's. The first supervisor that needs it starts it, in a jail that does
//! not end with the supervisor; it holds the lock of its network, so there is never a second one; a port
//! lasts as long as the connection by which a supervisor added it, and the switch as long as somebody
//! is connected. See docs/design/0012-switch.md.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use casemate_config::ipnet::Ipv4Net;
use casemate_config::{Compartment, CompartmentName, Ipv4Cidr, MacAddr, NetworkName};
use serde::Serialize;

use crate::facts::HostFacts;
use crate::jail::{Jail, Limits, Reach};
use crate::network::RESOLVER;
use crate::process::{Descriptor, DescriptorSource, Process, Role, SharedPart};
use crate::vm::LOG_SIZE;
use crate::{Refusal, Request, identity, qemu};

/// What a compartment was given in a network that it is a member of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortParts {
    /// The network.
    pub network: NetworkName,
    /// Its router.
    pub router: CompartmentName,
    /// The router has a link to the host, so names are resolved by way of it.
    pub router_has_link: bool,
    /// Its addresses.
    pub cidr: Ipv4Cidr,
    /// That of the compartment.
    pub address: Ipv4Addr,
    /// The compartment's Ethernet address in it.
    pub mac: MacAddr,
}

/// A port of a planned compartment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Port {
    /// The network.
    pub network: String,
    /// What the port is called at the switch: the running compartment's name.
    pub name: String,
    /// The compartment is the network's router.
    pub router: bool,
    /// The network's addresses.
    pub cidr: Ipv4Net,
    /// The guest's.
    pub address: Ipv4Addr,
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// Where the guest sends what is neither its own nor the network's.
    pub gateway: Option<Ipv4Addr>,
    /// What the guest asks for names, by way of the router.
    pub name_servers: Vec<IpAddr>,
    /// Networks that it forwards nothing from, as their clients would reach each other.
    pub not_from: Vec<Ipv4Net>,
    /// Bytes of the longest packet.
    pub mtu: u16,
    /// The socket on the host that the VMM connects to.
    pub socket: PathBuf,
    /// The other end.
    pub switch: Switch,
}

/// The switch of a network, and where it is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Switch {
    /// Its control socket.
    pub control: PathBuf,
    /// The lock that it holds.
    pub lock: PathBuf,
    /// What it says.
    pub log: PathBuf,
    /// How it is started.
    pub process: Process,
}

/// Where the VMM sees the folder with the sockets of its ports.
const PORTS: &str = "/ports";

/// The switch's descriptors.
const CONTROL: i32 = 3;
const LOCK: i32 = 4;

/// Descriptors of a switch: 256 ports, each with a listening and a connected socket, eight events,
/// 32 regions of memory, and its supervisor.
const OPEN_FILES: u64 = 256 * 48;

/// Until a port is there; a switch that is started listens within some 50 ms.
pub const PATIENCE_SECONDS: u32 = 20;

/// The folder with the sockets of a compartment's ports.
pub fn folder(run_directory: &Path) -> PathBuf {
    run_directory.join("ports")
}

/// The folder with the control sockets and locks of all networks. No compartment has such a name.
pub fn switches(runtime: &Path) -> PathBuf {
    runtime.join(".networks")
}

/// The control socket of a network's switch, in that folder.
pub fn control(switches: &Path, network: &str) -> PathBuf {
    switches.join(format!("{network}.sock"))
}

/// The compartments that this one is behind, each with a network, in the order of the networks.
pub fn routers<'r>(request: &'r Request<'_>) -> impl Iterator<Item = (&'r str, &'r str)> {
    let own = &request.compartment.name;
    let others = request.ports.iter().filter(move |port| port.router != *own);
    others.map(|port| (port.router.as_str(), port.network.as_str()))
}

/// The networks that the request's compartment is the router of.
pub(crate) fn behind(request: &Request<'_>) -> Vec<Ipv4Net> {
    let own = &request.compartment.name;
    let routed = request.ports.iter().filter(|port| port.router == *own);
    routed.map(|port| port.cidr.net()).collect()
}

/// The ports of the request's compartment, in the order of the networks.
///
/// # Errors
/// There is no user for a switch.
pub(crate) fn ports(request: &Request<'_>, facts: &HostFacts) -> Result<Vec<Port>, Refusal> {
    let own = &request.compartment.name;
    let leads = default_way(request.compartment, &request.ports);
    let port = |parts: &PortParts| {
        let router = parts.router == *own;
        let is_way = leads == Some(&parts.network);
        let resolver = IpAddr::from(RESOLVER);
        Ok(Port {
            network: parts.network.to_string(),
            name: request.instance.name.clone(),
            router,
            cidr: parts.cidr.net(),
            address: parts.address,
            mac: parts.mac,
            gateway: parts.cidr.host(1).filter(|_| is_way),
            name_servers: (is_way && parts.router_has_link)
                .then_some(resolver)
                .into_iter()
                .collect(),
            not_from: if router { behind(request) } else { vec![] },
            mtu: request.switch.mtu,
            socket: folder(&request.run_directory).join(parts.network.as_str()),
            switch: switch(request, facts, parts)?,
        })
    };
    request.ports.iter().map(port).collect()
}

/// The network whose router leads to everything else: none for who has a link of his own, else the
/// first whose router has one, else the first.
fn default_way<'p>(compartment: &Compartment, ports: &'p [PortParts]) -> Option<&'p NetworkName> {
    if compartment.host_networking {
        return None;
    }
    let behind = || ports.iter().filter(|port| port.router != compartment.name);
    let way = behind().find(|port| port.router_has_link).or_else(|| behind().next())?;
    Some(&way.network)
}

fn switch(request: &Request<'_>, facts: &HostFacts, parts: &PortParts) -> Result<Switch, Refusal> {
    let name = parts.network.as_str();
    let role = Role::Switch(identity::switch_number(parts.cidr.net()));
    let shared = |number, part| Descriptor { number, what: DescriptorSource::Shared { part } };
    let settings = request.switch;
    let mut arguments: Vec<String> = [
        "--control",
        &format!("fd:{CONTROL}"),
        "--end-with-clients",
        "--name",
        name,
        "--log-level",
        settings.log_level.as_str(),
    ]
    .map(String::from)
    .to_vec();
    if settings.capture {
        arguments.push("--allow-capture".into());
    }
    Ok(Switch {
        control: control(&request.switches, name),
        lock: request.switches.join(format!("{name}.lock")),
        log: request.switch_logs.join(format!("{name}.log")),
        process: Process {
            role,
            program: facts.programs.switch.clone(),
            arguments,
            environment: vec![],
            descriptors: vec![shared(CONTROL, SharedPart::Control), shared(LOCK, SharedPart::Lock)],
            jail: Jail {
                identity: identity::identity(facts, request.instance.slot, role)?,
                files: vec![],
                limits: Limits {
                    open_files: OPEN_FILES,
                    address_space: None,
                    file_size: LOG_SIZE,
                    processes: 1,
                },
                reach: Reach::Nothing,
            },
        },
    })
}

/// What the VMM is told of a port: that there is a socket, in its jail.
pub(crate) fn vhost(parts: &PortParts) -> qemu::VhostPort {
    qemu::VhostPort {
        mac: parts.mac.to_string(),
        socket: Path::new(PORTS).join(parts.network.as_str()),
    }
}

/// The folder with the sockets as the VMM sees it.
pub(crate) fn visible(request: &Request<'_>) -> crate::jail::VisibleFile {
    let source = folder(&request.run_directory);
    crate::jail::VisibleFile { target: PORTS.into(), ..crate::jail::VisibleFile::read(source) }
}

/// What the agent is told of a port.
pub(crate) fn interface(port: &Port) -> casemate_wire::Port {
    casemate_wire::Port {
        mac: port.mac.octets(),
        address: port.address,
        prefix: port.cidr.prefix_len(),
        gateway: port.gateway,
        name_servers: port.name_servers.clone(),
        mtu: port.mtu,
    }
}

/// Kernel settings of a router's guest.
pub(crate) fn sysctls(ports: &[Port]) -> impl Iterator<Item = (String, String)> {
    let routes = ports.iter().any(|port| port.router);
    routes.then(|| ("net.ipv4.ip_forward".into(), "1".into())).into_iter()
}
