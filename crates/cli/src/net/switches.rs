//! `net stats` and `net capture`: what the switches of networks between compartments count, and the
//! frames of one port as a file. Both ask the switch itself, by its control socket.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use casemate_config::{Compartment, NetworkName};
use casemate_host::switch::{Control, SwitchError, plain};
use casemate_plan::switch::{control, switches};
use casemate_supervise::prepare::World;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::arguments::NetCapture;
use crate::failure::Problem;
use crate::print_json;

/// How long a guest may take to answer a probe.
const PROBE: Duration = Duration::from_millis(500);

/// The longest packet of a capture: a frame of 64 KiB and its header.
const LONGEST: usize = 1 << 17;

/// Bytes of pcap's header, which comes first.
const HEADER: usize = 24;

/// A network, for programs.
#[derive(Debug, Serialize)]
struct Shown {
    network: String,
    running: bool,
    ports: Vec<Port>,
}

/// A port, as its switch tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all(serialize = "camelCase", deserialize = "kebab-case"))]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) mac: String,
    pub(super) ip: Vec<String>,
    pub(super) connected: bool,
    sent: Count,
    received: Count,
    /// Frames, by the reason for which they were dropped.
    drops: BTreeMap<String, u64>,
    /// Microseconds that its guest took to answer.
    #[serde(rename(serialize = "latencyMicroseconds"))]
    probe_us: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Count {
    frames: u64,
    bytes: u64,
}

/// What a switch answers to `stats`.
#[derive(Debug, Deserialize)]
struct Stats {
    ports: Vec<Port>,
}

pub(super) fn stats(world: &World, name: Option<&str>, json: bool) -> Result<u8, Problem> {
    let mut all = Vec::new();
    for (network, port) in chosen(world, name)? {
        let Some(switch) = connect(world, &network)? else {
            all.push(Shown { network, running: false, ports: vec![] });
            continue;
        };
        let is_wanted = |one: &Port| port.as_ref().is_none_or(|port| one.name == *port);
        for port in ports(&switch, &network)?.into_iter().filter(is_wanted) {
            probe(&switch, &network, &port.name)?;
        }
        let ports = ports(&switch, &network)?.into_iter().filter(is_wanted).collect();
        all.push(Shown { network, running: true, ports });
    }
    if json {
        return print_json(&all);
    }
    for shown in &all {
        print(shown);
    }
    Ok(0)
}

/// The networks that a name means, each with the port that is wanted, if it is one: a network, or
/// those of a compartment; all of them without a name.
fn chosen(world: &World, name: Option<&str>) -> Result<Vec<(String, Option<String>)>, Problem> {
    let networks = &world.settings().networks;
    let Some(name) = name else {
        return Ok(networks.keys().map(|network| (network.to_string(), None)).collect());
    };
    if networks.keys().any(|network| network.as_str() == name) {
        return Ok(vec![(name.to_owned(), None)]);
    }
    let compartment = world.compartment(&super::declared(world, name))?;
    if compartment.networks.is_empty() {
        return Err(Problem::new(format!("compartment `{name}` is a member of no network"))
            .hint("without a name: casemate net stats"));
    }
    let of_it = compartment.networks.keys();
    Ok(of_it.map(|network| (network.to_string(), Some(name.to_owned()))).collect())
}

fn print(shown: &Shown) {
    let network = &shown.network;
    if !shown.running {
        outln!("{network}: not running");
        return;
    }
    outln!("{network}:");
    for port in &shown.ports {
        let Port { name, role, mac, sent, received, .. } = port;
        let address = port.ip.join(" ");
        let state = match (port.connected, port.probe_us) {
            (false, _) => "not connected".to_owned(),
            (true, None) => "connected, does not answer".to_owned(),
            (true, Some(latency)) => format!("answers after {latency:.0} µs"),
        };
        outln!("  {name} ({role}): {address} ({mac}), {state}");
        for (what, count) in [("sent", sent), ("received", received)] {
            outln!("    {what:<9} {:>12} frames {:>16} bytes", count.frames, count.bytes);
        }
        for (reason, count) in &port.drops {
            outln!("    dropped   {count:>12} frames: {}", in_words(reason));
        }
    }
}

/// What a reason for dropping means.
fn in_words(reason: &str) -> &str {
    match reason {
        "length" => "too short or too long",
        "source" => "from another's Ethernet address",
        "vlan" => "with a VLAN tag",
        "arp" => "ARP for another's address",
        "neighbour" => "neighbour discovery for another's address",
        "address" => "from an IP address that is not its own",
        "not-router" => "to another client",
        "unknown" => "to an address that nobody has",
        "offload" => "with a header that lies",
        "absent" => "for a port that is not connected",
        "full" => "for which it had no room",
        "buffers" => "for which its buffers were too small",
        "crossing" => "forwarded from one client to another",
        other => other,
    }
}

fn connect(world: &World, network: &str) -> Result<Option<Control>, Problem> {
    let path = control(&switches(world.places.runtime()), network);
    Control::connect(&path).map_err(|error| no_answer(network, &error))
}

fn no_answer(network: &str, error: &SwitchError) -> Problem {
    Problem::new(format!("could not ask the switch of the network `{network}`")).because(error)
}

fn ports(switch: &Control, network: &str) -> Result<Vec<Port>, Problem> {
    let answer = switch.ask(&json!({ "stats": {} }), None);
    let answer = answer.map_err(|error| no_answer(network, &error))?;
    let stats: Stats =
        serde_json::from_value(answer).map_err(|_| no_answer(network, &SwitchError::Malformed))?;
    let cleaned = |port: Port| Port {
        name: plain(&port.name),
        role: plain(&port.role),
        mac: plain(&port.mac),
        ip: port.ip.iter().map(|address| plain(address)).collect(),
        drops: port.drops.iter().map(|(reason, count)| (plain(reason), *count)).collect(),
        ..port
    };
    Ok(stats.ports.into_iter().map(cleaned).collect())
}

/// A port as its switch sees it; none when nobody has it.
pub(super) fn port(world: &World, network: &str, name: &str) -> Result<Option<Port>, Problem> {
    let Some(switch) = connect(world, network)? else { return Ok(None) };
    Ok(ports(&switch, network)?.into_iter().find(|port| port.name == name))
}

/// Asks a guest for its address and waits for the answer.
fn probe(switch: &Control, network: &str, name: &str) -> Result<(), Problem> {
    match switch.ask(&json!({ "probe": { "name": name } }), None) {
        Ok(_) => {}
        // Nobody there to ask, or a port that has gone meanwhile.
        Err(SwitchError::Refused(_)) => return Ok(()),
        Err(error) => return Err(no_answer(network, &error)),
    }
    let begin = Instant::now();
    while begin.elapsed() < PROBE {
        let has_answered = |port: &Port| port.name == name && port.probe_us.is_some();
        if ports(switch, network)?.iter().any(has_answered) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub(super) fn capture(world: &World, arguments: &NetCapture) -> Result<u8, Problem> {
    let name = &arguments.name;
    let compartment = world.compartment(&super::declared(world, name))?;
    let network = network_of(compartment, arguments)?;
    if !world.settings().switch.capture {
        return Err(Problem::new("recording frames is not allowed").hint(
            "set capture = true in [switch]; it holds for switches that start from then on",
        ));
    }
    let Some(switch) = connect(world, network)? else {
        return Err(Problem::new(format!("nobody is in the network `{network}`"))
            .hint(format!("run: casemate start {name}")));
    };
    let (reader, writer) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(no_socket)?;
    let request = json!({ "capture": { "name": name } });
    switch.ask(&request, Some(writer.as_fd())).map_err(|error| match error {
        SwitchError::Refused(reason) if reason.starts_with("recording is not allowed") => {
            Problem::new("the switch was started when recording was not allowed yet")
                .hint(format!("stop all members of the network `{network}`, and start them again"))
        }
        other => no_answer(network, &other),
    })?;
    // The end of the recording is the end of the other one.
    drop((writer, switch));
    let path = &arguments.file;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).map_err(Stopped::File).and_then(|file| {
        let frames = record(&reader, file, arguments)?;
        eprintln!("{frames} frames");
        Ok(0)
    });
    written.map_err(|stopped| match stopped {
        Stopped::File(error) => {
            Problem::new(format!("could not write {}", path.display())).because(&error)
        }
        Stopped::Socket(error) => no_socket(error),
    })
}

/// The network that is meant.
fn network_of<'a>(
    compartment: &'a Compartment,
    arguments: &NetCapture,
) -> Result<&'a str, Problem> {
    let name = &arguments.name;
    let mut networks = compartment.networks.keys().map(NetworkName::as_str);
    if let Some(wanted) = &arguments.network {
        return networks.find(|network| network == wanted).ok_or_else(|| {
            Problem::new(format!("compartment `{name}` is no member of the network `{wanted}`"))
        });
    }
    match (networks.next(), networks.next()) {
        (Some(network), None) => Ok(network),
        (None, _) => Err(Problem::new(format!("compartment `{name}` is a member of no network"))
            .hint("frames of links to the host are not recorded")),
        (Some(_), Some(_)) => {
            Err(Problem::new(format!("compartment `{name}` has several networks"))
                .hint("choose one: --network NETWORK"))
        }
    }
}

fn no_socket(error: Errno) -> Problem {
    Problem::new("could not hear the switch").because(&error)
}

/// Why no more is recorded.
enum Stopped {
    File(std::io::Error),
    Socket(Errno),
}

/// Writes what comes until it is enough; returns how many frames that were.
fn record(reader: &OwnedFd, mut file: File, arguments: &NetCapture) -> Result<u64, Stopped> {
    let end = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut buffer, mut frames) = (vec![0; LONGEST], 0_u64);
    while arguments.frames.is_none_or(|most| frames < most) {
        let timeout = match end.map(|end| end.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(Duration::ZERO) => break,
            Some(left) => PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
        };
        let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(Stopped::Socket(error)),
        }
        match recv(reader.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) => {
                eprintln!("note: the switch has ended, or the port was given up");
                break;
            }
            Ok(length) => {
                file.write_all(&buffer[..length]).map_err(Stopped::File)?;
                frames += u64::from(length != HEADER);
            }
            Err(error) => return Err(Stopped::Socket(error)),
        }
    }
    Ok(frames)
}
