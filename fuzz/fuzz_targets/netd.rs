//! Any bytes as a request to the root helper. What is read as one says no more than its types can: it
//! goes through them unchanged, and the firewall made of it has no line that is not this project's.
//!
//! Nothing may panic.
#![no_main]

use casemate_plan::firewall::{Firewall, Link, OnHost, device};
use casemate_plan::helper::{LONGEST_REQUEST, MOST_RULES, ToHelper, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(request) = decode(data) else { return };
    assert!(data.len() <= LONGEST_REQUEST);
    let again = serde_json::to_vec(&request).expect("JSON");
    if again.len() <= LONGEST_REQUEST {
        assert_eq!(decode(&again).expect("the same"), request);
    }
    let ToHelper::Link(order) = request else { return };
    assert!(order.rules.len() <= MOST_RULES);
    let link = Link {
        mac: order.mac,
        guest: order.address,
        host: [172, 16, 200, 2].into(),
        v6: None,
        resolver: [169, 254, 1, 1].into(),
        links: "172.16.200.0/24".parse().expect("a network"),
        behind: Vec::new(),
    };
    let (rules, default) = (&order.rules, order.default);
    let firewall = Firewall { link: &link, rules, default, masquerade: true };
    let name = device(order.id.get());
    let at = OnHost { name: &name, outside: None, questions: Some((1, 2)) };
    let text = firewall.render_on_host(&at);
    let plain = |c: char| c.is_ascii_alphanumeric() || " \t\n\"{}@*,;:.-_/!=".contains(c);
    assert!(text.chars().all(plain), "{text}");
    // Each rule is written in four places at most, each in one line.
    assert!(text.lines().count() < 120 + 8 * rules.len());
});
