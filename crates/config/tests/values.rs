//! Typed values: what is printed is read again as the same.

use casemate_config::{
    Bdf, Color, CompartmentId, FirewallRule, Ipv4Cidr, MacAddr, MemorySize, Size, Traffic,
};
use proptest::prelude::*;

fn rule() -> impl Strategy<Value = String> {
    let destination = prop_oneof![
        Just(String::new()),
        any::<[u8; 4]>().prop_map(|[a, b, c, d]| format!(" dst4={a}.{b}.{c}.{d}")),
        any::<[u8; 2]>().prop_map(|[a, b]| format!(" dst4={a}.{b}.0.0/16")),
        any::<u128>().prop_map(|bits| format!(" dst6={}", std::net::Ipv6Addr::from(bits))),
        "[a-z][a-z0-9]{0,8}(\\.[a-z]{2,4})?".prop_map(|name| format!(" dsthost={name}")),
    ];
    let ports = || {
        prop_oneof![
            Just(String::new()),
            (1..=65_535u16).prop_map(|port| format!(" dstports={port}")),
            (1..=100u16, 100..=65_535u16).prop_map(|(a, b)| format!(" dstports={a}-{b}")),
        ]
    };
    let traffic = prop_oneof![
        Just(String::new()),
        ports().prop_map(|ports| format!(" proto=tcp{ports}")),
        ports().prop_map(|ports| format!(" proto=udp{ports}")),
        any::<u8>().prop_map(|kind| format!(" proto=icmp icmptype={kind}")),
    ];
    let action = prop_oneof![Just("action=accept"), Just("action=drop")];
    let comment =
        prop_oneof![Just(String::new()), "[ -~]{1,20}".prop_map(|text| format!(" comment={text}"))];
    (action, destination, traffic, comment).prop_map(|(a, b, c, d)| format!("{a}{c}{b}{d}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_firewall_rule_reads_as_it_prints(text in rule()) {
        let rule: FirewallRule = text.parse().unwrap();
        prop_assert_eq!(rule.to_string().parse::<FirewallRule>().unwrap(), rule);
    }

    #[test]
    fn any_text_is_a_firewall_rule_or_a_flaw_within_it(text in any::<String>()) {
        if let Err(flaw) = text.parse::<FirewallRule>() {
            prop_assert!(flaw.range.is_none_or(|range| text.get(range).is_some()));
        }
    }

    #[test]
    fn the_words_of_rules_in_any_order_never_panic(
        words in prop::collection::vec("(action|proto|dst4|dstports|icmptype|special|comment| )=?[a-z0-9./é-]{0,6}", 0..6),
    ) {
        let text = words.join(" ");
        if let Err(flaw) = text.parse::<FirewallRule>() {
            prop_assert!(flaw.range.is_none_or(|range| text.get(range).is_some()));
        }
    }

    #[test]
    fn sizes_read_as_they_print(mib in 1..=u64::MAX >> 20) {
        let size = Size::from_mib(mib).unwrap();
        prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
    }

    #[test]
    fn addresses_read_as_they_print(octets in any::<[u8; 6]>(), rgb in any::<[u8; 3]>()) {
        let [a, b, c, d, e, f] = octets;
        let text = format!("{:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}", a & !1 | 2);
        prop_assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), text);
        let text = format!("{a:04x}:{b:02x}:{:02x}.{}", c & 31, d & 7);
        prop_assert_eq!(text.parse::<Bdf>().unwrap().to_string(), text);
        let [red, green, blue] = rgb;
        let text = format!("#{red:02x}{green:02x}{blue:02x}");
        prop_assert_eq!(text.parse::<Color>().unwrap().to_string(), text);
    }
}

#[test]
fn units_are_powers_of_1024_however_they_are_written() {
    for text in ["4096", "4096M", "4096MiB", "4G", "4GB", "4Gb", "4GiB", "4 GiB", "4g", "4194304K"]
    {
        assert_eq!(text.parse::<Size>().unwrap().mib(), 4096, "{text}");
    }
    for text in ["", "G", "4X", "4GG", "-4G", "4.5G", "0", "1K", "4 G iB", "+4"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
}

#[test]
fn limits_hold() {
    assert!(MemorySize::from_mib(63).is_none() && MemorySize::from_mib((4 << 20) + 1).is_none());
    assert!(CompartmentId::new(1).is_none() && CompartmentId::new(4).is_none());
    assert!(
        "10.0.0.0/7".parse::<Ipv4Cidr>().is_err() && "10.0.0.0/30".parse::<Ipv4Cidr>().is_err()
    );
    let net: Ipv4Cidr = "10.0.0.0/29".parse().unwrap();
    assert_eq!(net.host(7).unwrap().to_string(), "10.0.0.7");
    assert_eq!(net.host(8), None);
}

#[test]
fn a_comment_is_the_rest_of_the_line() {
    let rule: FirewallRule = "action=drop comment=no more proto=tcp  ".parse().unwrap();
    assert_eq!(rule.comment.as_deref(), Some("no more proto=tcp"));
    assert_eq!(rule.traffic, Traffic::Any);
}
