//! The firewall's text and its answers say the same: packets of a guest are put through the kernel's
//! nft, in a namespace of the test's own, and through `Firewall::decide`.
//!
//! The test is the guest and the outside: it holds both TAP devices, `vm0` (or `cmtap7`, where the text
//! is that of the root helper) and `out0`.

// UNSAFETY: the ioctl that makes a TAP device has no safe wrapper.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use casemate_config::{FirewallAction, FirewallRule};
use casemate_plan::firewall::{By, Firewall, Link, OnHost, Packet, Payload, Surroundings, set_of};
use nix::libc;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Set in the process that is in the namespace.
const INSIDE: &str = "CASEMATE_TEST_INSIDE";

/// Sets of rules, and packets for each.
const RULESETS: usize = 15;
const PACKETS: usize = 40;

const GUEST_MAC: [u8; 6] = [2, 0, 0, 0x12, 0x34, 0x56];
const LINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

nix::ioctl_write_int!(
    /// TUNSETIFF, linux/if_tun.h.
    set_interface, b'T', 202
);

/// Which text is tried.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Namespace,
    Host,
}

#[test]
fn kernel_and_answers_agree_about_every_packet() {
    in_namespace("kernel_and_answers_agree_about_every_packet", Way::Namespace);
}

#[test]
fn kernel_and_answers_agree_where_the_link_is_the_hosts() {
    in_namespace("kernel_and_answers_agree_where_the_link_is_the_hosts", Way::Host);
}

fn in_namespace(test: &str, way: Way) {
    if std::env::var_os(INSIDE).is_some() {
        return inside(way);
    }
    if program("nft").and(program("ip")).is_none() {
        return println!("skipped: {test}: no nft or no ip");
    }
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--"])
        .arg(std::env::current_exe().expect("a path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare starts");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}\n{wrong}");
    assert!(said.contains("packets compared"), "{said}");
    println!("{said}");
}

fn program(name: &str) -> Option<String> {
    let folders = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let mut places = folders.iter().map(|folder| format!("{folder}/{name}"));
    places.find(|place| std::path::Path::new(place).exists())
}

fn inside(way: Way) {
    let device = way.device();
    let mut guest = tap(device);
    let mut outside = tap("out0");
    let mac = LINK_MAC.map(|byte| format!("{byte:02x}")).join(":");
    for line in [
        &format!("link set {device} address {mac} up"),
        "link set out0 up",
        &format!("address add 172.16.200.6/31 dev {device}"),
        "address add 169.254.2.2/30 dev out0",
        "route add default via 169.254.2.1",
        "neighbour add 169.254.2.1 lladdr 02:00:00:00:00:02 dev out0 nud permanent",
    ] {
        run(&program("ip").expect("looked for"), &line.split(' ').collect::<Vec<_>>(), "");
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("it is this namespace's");

    let link = Link {
        mac: "02:00:00:12:34:56".parse().expect("an address"),
        guest: "172.16.200.7".parse().expect("an address"),
        host: "172.16.200.6".parse().expect("an address"),
        v6: None,
        resolver: "169.254.1.1".parse().expect("an address"),
        behind: vec![],
        links: "172.16.200.0/24".parse().expect("a network"),
    };
    // The same in each run.
    let config = Config { failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let sets = (any::<bool>(), prop::collection::vec(rule(), 0..8));
    let (mut number, mut accepted, mut ruled) = (0_u16, 0, 0);
    for _ in 0..RULESETS {
        let (open, rules) = sets.new_tree(&mut runner).expect("a value").current();
        let default = if open { FirewallAction::Accept } else { FirewallAction::Drop };
        let firewall = Firewall { link: &link, rules: &rules, default, masquerade: true };
        let around = around(&firewall);
        load(&firewall, &around, way);
        let mut before = counters();
        for _ in 0..PACKETS {
            number += 1;
            let packet = packet().new_tree(&mut runner).expect("a value").current();
            let decision = firewall.decide(&packet, &around);
            while outside.read(&mut [0; 4096]).is_ok() {}
            guest.write_all(&frame(&packet, number)).expect("the device takes it");
            let after = counters();
            // What the kernel itself says by the device meanwhile is no packet of the guest.
            let of_guest = |(name, _): &(&String, &u64)| *name != "from-host";
            let mut grown = after.iter().filter(of_guest);
            let grown = grown.find(|(name, count)| before[*name] < **count);
            let by = match decision.by {
                By::Rule(index) => format!("rule{index}"),
                By::Default => "default".into(),
                By::Host | By::Reserved | By::NoIpv6 => "protected".into(),
            };
            let text: Vec<String> = rules.iter().map(ToString::to_string).collect();
            let grown = grown.map(|(name, _)| name.as_str());
            // What is for an end of this very link never leads outside, whatever the rules; and the
            // kernel drops what no interface may carry.
            let local = [link.host, link.guest].map(IpAddr::V4).contains(&packet.to);
            let martian = matches!(packet.to, IpAddr::V4(to) if to.is_loopback() || to.octets()[0] == 0
                || to.is_multicast() || to.octets()[0] >= 240);
            let passed = got(&mut outside, packet.to);
            if local || martian {
                assert!(!passed, "{packet:?} {text:?}");
            } else {
                assert_eq!(grown, Some(by.as_str()), "{packet:?} {decision:?} {text:#?}");
                let accepts = decision.action == FirewallAction::Accept;
                assert_eq!(passed, accepts, "{packet:?} {decision:?} {text:#?}");
                accepted += usize::from(accepts);
                ruled += usize::from(matches!(decision.by, By::Rule(_)));
            }
            before = after;
        }
    }
    assert!(accepted > 50 && ruled > 50, "{accepted} {ruled}");
    println!("{} packets compared, {accepted} accepted, {ruled} by rules", RULESETS * PACKETS);
}

impl Way {
    fn device(self) -> &'static str {
        if self == Self::Host { "cmtap7" } else { "vm0" }
    }

    fn table(self) -> &'static str {
        if self == Self::Host { "cmtap7" } else { "casemate" }
    }

    fn text(self, firewall: &Firewall<'_>) -> String {
        let at = OnHost { name: self.device(), outside: Some("out0"), questions: None };
        match self {
            Self::Namespace => firewall.render(),
            Self::Host => firewall.render_on_host(&at),
        }
    }
}

/// Addresses of the host, and of each name.
fn around(firewall: &Firewall<'_>) -> Surroundings {
    let host = ["192.168.1.1/32", "10.0.0.0/16"];
    let host = host.iter().map(|net| net.parse().expect("a network")).collect();
    let known: Vec<IpAddr> =
        ["203.0.113.1", "192.168.1.1"].iter().map(|text| text.parse().expect("one")).collect();
    let resolved = firewall.named().map(|index| (index, known.clone())).collect();
    Surroundings { host, resolved }
}

fn load(firewall: &Firewall<'_>, around: &Surroundings, way: Way) {
    let mut text = way.text(firewall);
    let table = way.table();
    let list = |items: Vec<String>| items.join(", ");
    let host = list(around.host.iter().map(ToString::to_string).collect());
    text.push_str(&format!("add element inet {table} host4 {{ {host} }}\n"));
    for (index, known) in &around.resolved {
        let known = list(known.iter().map(ToString::to_string).collect());
        let set = set_of(*index, 4);
        text.push_str(&format!("add element inet {table} {set} {{ {known} }}\n"));
    }
    run(&program("nft").expect("looked for"), &["-f", "-"], &text);
}

/// Packets by counter, of the tables just loaded.
fn counters() -> BTreeMap<String, u64> {
    let text = run(&program("nft").expect("looked for"), &["--json", "list", "counters"], "");
    let listed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let entries = listed["nftables"].as_array().expect("a list");
    let counter = |entry: &serde_json::Value| {
        let counter = entry.get("counter")?;
        Some((counter["name"].as_str()?.to_owned(), counter["packets"].as_u64()?))
    };
    entries.iter().filter_map(counter).collect()
}

/// Whether a packet to this address came out.
fn got(outside: &mut File, to: IpAddr) -> bool {
    let IpAddr::V4(to) = to else { return false };
    let mut buffer = [0; 4096];
    while let Ok(length) = outside.read(&mut buffer) {
        if length >= 34 && buffer[12..14] == [8, 0] && buffer[30..34] == to.octets() {
            return true;
        }
    }
    false
}

/// An Ethernet frame with the packet, as the guest would send it.
fn frame(packet: &Packet, number: u16) -> Vec<u8> {
    let IpAddr::V4(to) = packet.to else { panic!("IPv4 alone") };
    let port =
        |port: u16| (1024 + number % 60_000).to_be_bytes().into_iter().chain(port.to_be_bytes());
    let from = Ipv4Addr::new(172, 16, 200, 7);
    let (protocol, payload): (u8, Vec<u8>) = match packet.payload {
        Payload::Tcp(to_port) => {
            let mut segment: Vec<u8> = port(to_port).collect();
            // Sequence numbers, 20 bytes of header, SYN, a window.
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0, 0, 0, 0]);
            let mut pseudo = [from.octets(), to.octets(), [0, 6, 0, 20]].concat();
            pseudo.extend(&segment);
            segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
            (6, segment)
        }
        Payload::Udp(to_port) => (17, port(to_port).chain([0, 12, 0, 0, 1, 2, 3, 4]).collect()),
        Payload::Icmp(kind) => {
            let mut message = vec![kind, 0, 0, 0];
            message.extend(number.to_be_bytes());
            message.extend([0; 14]);
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            (1, message)
        }
        // A number that is nobody's (RFC 3692).
        Payload::Other => (253, vec![0; 8]),
    };
    let length = (20 + payload.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend(number.to_be_bytes());
    header.extend([0, 0, 64, protocol, 0, 0]);
    header.extend([from.octets(), to.octets()].concat());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&LINK_MAC[..], &GUEST_MAC, &[8, 0], &header, &payload].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn packet() -> impl Strategy<Value = Packet> {
    let port = || prop_oneof![Just(53_u16), Just(80), Just(443), 1000..1010_u16];
    // Of ICMP what conntrack takes for the beginning of something (nf_conntrack_proto_icmp.c).
    let kind = prop_oneof![Just(8_u8), Just(13), Just(17)];
    let payload = prop_oneof![
        4 => port().prop_map(Payload::Tcp),
        4 => port().prop_map(Payload::Udp),
        2 => kind.prop_map(Payload::Icmp),
        1 => Just(Payload::Other),
    ];
    (address(), payload).prop_map(|(to, payload)| Packet { to: to.into(), payload })
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        6 => (0..4_u8).prop_map(|last| Ipv4Addr::new(203, 0, 113, last)),
        2 => (0..3_u8).prop_map(|last| Ipv4Addr::new(192, 168, 1, last)),
        2 => (0..2_u8).prop_map(|third| Ipv4Addr::new(10, third, 0, 1)),
        1 => (6..10_u8).prop_map(|last| Ipv4Addr::new(172, 16, 200, last)),
        2 => Just(Ipv4Addr::new(169, 254, 1, 1)),
        1 => Just(Ipv4Addr::new(169, 254, 169, 254)),
        1 => prop_oneof![Just(Ipv4Addr::LOCALHOST), Just(Ipv4Addr::UNSPECIFIED),
                         Just(Ipv4Addr::BROADCAST), Just(Ipv4Addr::new(224, 0, 0, 251))],
    ]
}

fn rule() -> impl Strategy<Value = FirewallRule> {
    let destination = prop_oneof![
        2 => Just(String::new()),
        2 => Just(" dst4=203.0.113.0/31".to_owned()),
        1 => Just(" dst4=192.168.0.0/16".to_owned()),
        1 => Just(" dst4=0.0.0.0/0".to_owned()),
        3 => address().prop_map(|address| format!(" dst4={address}")),
        2 => Just(" dsthost=example.org".to_owned()),
        1 => Just(" dst6=2001:db8::/32".to_owned()),
    ];
    let traffic = prop_oneof![
        Just("".to_owned()),
        Just(" proto=tcp".to_owned()),
        Just(" proto=udp dstports=53-1004".to_owned()),
        Just(" proto=tcp dstports=80".to_owned()),
        Just(" proto=icmp".to_owned()),
        Just(" proto=icmp icmptype=8".to_owned()),
    ];
    let action = || prop_oneof![Just("accept"), Just("drop")];
    let plain = (action(), traffic, destination)
        .prop_map(|(action, traffic, to)| format!("action={action}{traffic}{to}"));
    let dns = (action(), prop_oneof![Just(""), Just(" proto=udp"), Just(" proto=tcp")])
        .prop_map(|(action, proto)| format!("action={action}{proto} special=dns"));
    prop_oneof![5 => plain, 1 => dns].prop_map(|text| text.parse().expect("a rule"))
}

/// A TAP device whose reads do not wait.
fn tap(name: &str) -> File {
    let node = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .expect("it is there");
    // SAFETY: ifreq is numbers and a union of such, valid when zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    let address = &raw const request;
    // SAFETY: TUNSETIFF takes the address of an ifreq, which outlives the call.
    unsafe { set_interface(node.as_raw_fd(), address as libc::c_ulong) }.expect("made");
    node
}

/// What a program says, given this; it must succeed.
#[track_caller]
fn run(program: &str, words: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let done = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {}: {said}\n{input}", words.join(" "));
    String::from_utf8_lossy(&done.stdout).into_owned()
}
