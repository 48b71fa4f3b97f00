//! The firewall: folders of cases with rules and packets, the text for nft and what becomes of each
//! packet; and what holds whatever the rules are.
//!
//! `CASEMATE_BLESS=1` rewrites the expectations; read them before they are committed.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use casemate_config::ipnet::IpNet;
use casemate_config::{FirewallAction, FirewallRule};
use casemate_plan::firewall::{
    By, Decision, Firewall, Link, OnHost, Packet, Payload, Surroundings, device, guard, removal,
    reserved,
};
use proptest::prelude::*;

fn link(ipv6: bool) -> Link {
    let links6 = u128::from(reserved::LINKS6.addr());
    Link {
        mac: "02:00:00:12:34:56".parse().expect("an address"),
        guest: "172.16.200.7".parse().expect("an address"),
        host: "172.16.200.6".parse().expect("an address"),
        v6: ipv6.then_some(((links6 | 7).into(), (links6 | 6).into())),
        resolver: "169.254.1.1".parse().expect("an address"),
        behind: vec![],
        links: "172.16.200.0/24".parse().expect("a network"),
    }
}

/// What stands in a case: `key value` lines, `rule …` and `packet …` among them.
struct Case {
    ipv6: bool,
    /// The link is one of the host's interfaces, and this the only one that leads outside.
    outside: Option<String>,
    default: FirewallAction,
    rules: Vec<FirewallRule>,
    around: Surroundings,
    packets: Vec<(String, Packet)>,
}

fn read(path: &Path) -> Case {
    let text = fs::read_to_string(path).expect("a case");
    let mut case = Case {
        ipv6: false,
        outside: None,
        default: FirewallAction::Accept,
        rules: vec![],
        around: Surroundings::default(),
        packets: vec![],
    };
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "ipv6" => case.ipv6 = true,
            "outside" => case.outside = Some(value.into()),
            "default" => case.default = value.parse().expect("an action"),
            "rule" => case.rules.push(value.parse().expect("a rule")),
            "host" => case.around.host.push(value.parse().expect("a network")),
            "resolved" => {
                let (index, addresses) = value.split_once(' ').expect("a rule and its addresses");
                let parse = |text: &str| text.parse().expect("an address");
                let addresses: Vec<IpAddr> = addresses.split(' ').map(parse).collect();
                let index: usize = index.parse().expect("a number");
                case.around.resolved.insert(index - 1, addresses);
            }
            "packet" => case.packets.push((value.into(), packet(value))),
            other => panic!("{}: what is {other}?", path.display()),
        }
    }
    case
}

/// `tcp 1.2.3.4 80`, `icmp 1.2.3.4 8`, `other 1.2.3.4`.
fn packet(text: &str) -> Packet {
    let words: Vec<&str> = text.split(' ').collect();
    let number = || words[2].parse::<u16>().expect("a number");
    let payload = match words[0] {
        "tcp" => Payload::Tcp(number()),
        "udp" => Payload::Udp(number()),
        "icmp" => Payload::Icmp(number() as u8),
        _ => Payload::Other,
    };
    Packet { to: words[1].parse().expect("an address"), payload }
}

fn told(decision: Decision) -> String {
    let by = match decision.by {
        By::Rule(index) => format!("rule {}", index + 1),
        By::Default => "the default".into(),
        By::Host => "an address of the host".into(),
        By::Reserved => "a reserved address".into(),
        By::NoIpv6 => "no IPv6".into(),
    };
    format!("{}, {by}", decision.action)
}

#[test]
fn firewalls_are_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/firewall");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "case"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 6, "only {} cases were found", cases.len());
    let mut wrong = Vec::new();
    for path in cases {
        let case = read(&path);
        let link = link(case.ipv6);
        let firewall =
            Firewall { link: &link, rules: &case.rules, default: case.default, masquerade: true };
        let packets = case.packets.iter().map(|(text, packet)| {
            format!("# {text}: {}\n", told(firewall.decide(packet, &case.around)))
        });
        let name = device(7);
        let on_host = |outside| {
            let at = OnHost { name: &name, outside: Some(outside), questions: Some((4453, 4454)) };
            format!("{}{}{}", firewall.render_on_host(&at), guard(), removal(&name))
        };
        let text = case.outside.as_deref().map_or_else(|| firewall.render(), on_host);
        let found = format!("{}{text}", packets.collect::<String>());
        let expected = path.with_extension("nft");
        if std::env::var_os("CASEMATE_BLESS").is_some() {
            fs::write(&expected, &found).expect("written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "these are not as expected:\n{}", wrong.join("\n"));
}

fn rule() -> impl Strategy<Value = FirewallRule> {
    let destination = prop_oneof![
        Just(String::new()),
        (any::<u32>(), 0..=32u8).prop_map(|(bits, length)| {
            let mask = u32::MAX.checked_shl(u32::from(32 - length)).unwrap_or(0);
            format!(" dst4={}/{length}", Ipv4Addr::from(bits & mask))
        }),
        near().prop_map(|address| format!(" dst4={address}")),
        Just(" dst6=2001:db8::/32".to_owned()),
        Just(" dsthost=example.org".to_owned()),
    ];
    let traffic = prop_oneof![
        Just(String::new()),
        (1..=u16::MAX).prop_map(|port| format!(" proto=tcp dstports={port}")),
        (1..=u16::MAX, 0..200u16).prop_map(|(port, more)| {
            format!(" proto=udp dstports={port}-{}", port.saturating_add(more))
        }),
        Just(" proto=tcp".to_owned()),
        any::<u8>().prop_map(|number| format!(" proto=icmp icmptype={number}")),
    ];
    let words = (prop_oneof!["accept", "drop"], destination, traffic, "[ -~]{0,40}");
    let plain = words.prop_map(|(action, destination, traffic, comment)| {
        format!("action={action}{traffic}{destination} comment=x{comment}")
    });
    let dns =
        prop_oneof!["accept", "drop"].prop_map(|action| format!("action={action} special=dns"));
    prop_oneof![9 => plain, 1 => dns].prop_map(|text| text.parse().expect("a rule"))
}

/// Addresses of which some are protected.
fn near() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        any::<u32>().prop_map(Ipv4Addr::from),
        any::<[u8; 3]>().prop_map(|[b, c, d]| Ipv4Addr::new(127, b, c, d)),
        any::<u8>().prop_map(|last| Ipv4Addr::new(172, 16, 200, last)),
        any::<u8>().prop_map(|last| Ipv4Addr::new(192, 168, 1, last & 3)),
        Just(Ipv4Addr::new(169, 254, 1, 1)),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        any::<u16>().prop_map(Payload::Tcp),
        Just(Payload::Udp(53)),
        any::<u16>().prop_map(Payload::Udp),
        any::<u8>().prop_map(Payload::Icmp),
        Just(Payload::Other),
    ]
}

fn around() -> Surroundings {
    let host = ["127.0.0.0/8", "192.168.1.1/32", "10.0.0.0/8"];
    let host: Vec<IpNet> = host.iter().map(|net| net.parse().expect("a network")).collect();
    Surroundings { host, ..Surroundings::default() }
}

proptest! {
    /// Whatever the rules are: nothing reaches the host or another link, unless a rule of a single
    /// address says so.
    #[test]
    fn protected_addresses_are_closed_unless_named(
        rules in prop::collection::vec(rule(), 0..12), to in near(), payload in payload(),
    ) {
        let link = link(false);
        let default = FirewallAction::Accept;
        let firewall = Firewall { link: &link, rules: &rules, default, masquerade: true };
        let around = around();
        let decision = firewall.decide(&Packet { to: to.into(), payload }, &around);
        let question = to == link.resolver
            && matches!(payload, Payload::Udp(53) | Payload::Tcp(53));
        let protected = link.links.contains(&to)
            || reserved::V4.iter().any(|net| net.contains(&to))
            || around.host.iter().any(|net| net.contains(&IpAddr::from(to)));
        if protected && !question && decision.action == FirewallAction::Accept {
            let By::Rule(index) = decision.by else { panic!("{decision:?}") };
            let named = format!("dst4={to}/32");
            prop_assert!(rules[index].to_string().contains(&named));
        }
    }

    /// No word of the user is in the text: it has no letters but those of this list.
    #[test]
    fn text_says_nothing_but_what_rules_can_say(rules in prop::collection::vec(rule(), 0..12)) {
        let link = link(false);
        let default = FirewallAction::Drop;
        let text = Firewall { link: &link, rules: &rules, default, masquerade: true }.render();
        let plain = |c: char| c.is_ascii_alphanumeric() || "\t\n {}:;,.\"@!=/-_".contains(c);
        prop_assert!(text.chars().all(plain), "{text}");
        prop_assert!(!text.contains("example") && !text.contains("comment"));
        let depth = text.chars().try_fold(0_i32, |depth, c| match c {
            '{' => Some(depth + 1),
            '}' => (depth > 0).then_some(depth - 1),
            _ => Some(depth),
        });
        prop_assert_eq!(depth, Some(0));
        // A line for each rule at most in each chain, and nothing after `drop` or `accept`.
        for (index, rule) in rules.iter().enumerate() {
            let counter = format!("counter name \"rule{index}\" {}", rule.action);
            let lines = text.lines().filter(|line| line.contains(&format!("\"rule{index}\"")));
            for line in lines {
                prop_assert!(line.ends_with(&counter), "{line}");
            }
        }
    }
}
