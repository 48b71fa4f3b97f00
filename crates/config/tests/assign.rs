//! Ids and addresses: the particular cases.

use casemate_config::{
    AssignedIds, CompartmentId, CompartmentName, Environment, Format, Loaded, NetworkName, Origin,
    Source, load,
};

fn loaded(text: &str) -> Loaded {
    let source = Source {
        path: "casemate.toml".into(),
        text: text.into(),
        format: Format::Toml,
        origin: Origin::User,
    };
    load(&[source], &Environment { home: None, user: "alice".into() })
}

fn assign(text: &str, prior: &AssignedIds) -> AssignedIds {
    let loaded = loaded(text);
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
    loaded.settings.assign(prior, &Default::default()).unwrap()
}

fn name(text: &str) -> CompartmentName {
    text.parse().unwrap()
}

fn id(assigned: &AssignedIds, compartment: &str) -> u32 {
    assigned.compartments[&name(compartment)].id.get()
}

fn address(assigned: &AssignedIds, network: &str, compartment: &str) -> String {
    let network: NetworkName = network.parse().unwrap();
    assigned.networks[&network].members[&name(compartment)].address.to_string()
}

#[test]
fn the_networked_come_first_and_ids_are_the_lowest_free() {
    let text = "[compartment.a]\n[compartment.b]\nhost-networking = true\n[compartment.c]\nid = 3";
    let assigned = assign(text, &AssignedIds::default());
    assert_eq!((id(&assigned, "c"), id(&assigned, "b"), id(&assigned, "a")), (3, 5, 7));
}

#[test]
fn ids_of_links_are_those_that_the_system_grants() {
    let source = |text: &str, origin| Source {
        path: "casemate.toml".into(),
        text: text.into(),
        format: Format::Toml,
        origin,
    };
    let system = "[network]\ngrants = [\"user=bob ids=3-9\", \"user=alice ids=11-13\"]";
    let user = "[compartment.a]\nhost-networking = true\n[compartment.b]\n\
                [compartment.c]\nhost-networking = true\n[compartment.d]\nhost-networking = true";
    let sources = [source(system, Origin::System), source(user, Origin::User)];
    let loaded = load(&sources, &Environment { home: None, user: "alice".into() });
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
    let assigned = loaded.settings.assign(&AssignedIds::default(), &Default::default()).unwrap();
    let found = ["a", "c", "d", "b"].map(|name| id(&assigned, name));
    assert_eq!(found, [11, 13, 3, 5], "beyond them the lowest");
}

#[test]
fn a_fixed_id_takes_it_from_whom_it_was_assigned_to() {
    let prior = assign("[compartment.a]", &AssignedIds::default());
    assert_eq!(id(&prior, "a"), 3);
    let assigned = assign("[compartment.a]\n[compartment.b]\nid = 3", &prior);
    assert_eq!((id(&assigned, "a"), id(&assigned, "b")), (5, 3));
}

#[test]
fn a_broken_compartment_keeps_its_id() {
    let prior = assign("[compartment.a]\n[compartment.b]", &AssignedIds::default());
    let broken = loaded("[compartment.a]\nmemory = 1\n[compartment.b]\n[compartment.c]");
    assert!(broken.settings.broken.contains_key("a"));
    let assigned = broken.settings.assign(&prior, &Default::default()).unwrap();
    assert_eq!((id(&assigned, "a"), id(&assigned, "b"), id(&assigned, "c")), (3, 5, 7));
}

#[test]
fn who_is_gone_gives_way_only_when_nothing_else_is_left() {
    // A /29 has room for the ids 3, 5 and 7.
    let small = "[network]\ncidr = \"172.16.200.0/29\"\n";
    let prior =
        assign(&format!("{small}[compartment.a]\n[compartment.b]"), &AssignedIds::default());
    let three = format!("{small}[compartment.b]\n[compartment.c]");
    let assigned = assign(&three, &prior);
    assert_eq!((id(&assigned, "a"), id(&assigned, "b"), id(&assigned, "c")), (3, 5, 7));
    let four = format!("{three}\n[compartment.d]");
    let assigned = assign(&four, &assigned);
    assert_eq!((id(&assigned, "d"), id(&assigned, "b"), id(&assigned, "c")), (3, 5, 7));
    assert!(!assigned.compartments.contains_key(&name("a")));

    let full = loaded(&format!("{four}\n[compartment.e]"));
    let errors = full.settings.assign(&assigned, &Default::default()).unwrap_err();
    let errors: Vec<_> = errors.iter().collect();
    assert_eq!(
        full.render_some(&errors, false),
        "\
error: no id is left for compartment `e`: 172.16.200.0/29 has room for 3
 --> casemate.toml:6:14
  |
6 | [compartment.e]
  |              ^
  |
  = hint: widen `[network] cidr`, for example to a /16
"
    );
}

#[test]
fn clients_have_the_address_of_their_id_where_that_is_one() {
    let text = "
        [network]
        cidr = \"172.16.0.0/16\"
        [compartment.router]
        networks.lan.router = true
        [compartment.near]
        id = 9
        networks.lan = {}
        [compartment.last]
        id = 255
        networks.lan = {}
        [compartment.far]
        id = 4001
        networks.lan = {}";
    let assigned = assign(text, &AssignedIds::default());
    assert_eq!(address(&assigned, "lan", "router"), "10.88.0.1");
    assert_eq!(address(&assigned, "lan", "near"), "10.88.0.9");
    // .255 is the broadcast address; even addresses are nobody's id.
    assert_eq!(address(&assigned, "lan", "far"), "10.88.0.2");
    assert_eq!(address(&assigned, "lan", "last"), "10.88.0.4");
}

#[test]
fn a_network_too_small_for_its_members_is_an_error() {
    let mut text = String::from("[network.lan]\ncidr = \"10.1.0.0/29\"\n");
    text += "[compartment.router]\nnetworks.lan.router = true\n";
    for number in 0..6 {
        text += &format!("[compartment.c{number}]\nnetworks.lan = {{}}\n");
    }
    let loaded = loaded(&text);
    let errors = loaded.settings.assign(&AssignedIds::default(), &Default::default()).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].message.contains("no address is left"), "{}", errors[0].message);
}

#[test]
fn fresh_disposables_stay_out_of_the_way() {
    let loaded = loaded("[compartment.a]\n[compartment.b]\nid = 255");
    let assigned = loaded.settings.assign(&AssignedIds::default(), &Default::default()).unwrap();
    let first = loaded.settings.free_id(&assigned, &Default::default()).unwrap();
    assert_eq!(first.get(), 253);
    let second = loaded.settings.free_id(&assigned, &[first].into()).unwrap();
    assert_eq!(second, CompartmentId::new(251).unwrap());
}

#[test]
fn what_was_assigned_survives_being_written_down() {
    let text = "[compartment.a]\nnetworks.lan.router = true\n[compartment.b]\nnetworks.lan = {}";
    let assigned = assign(text, &AssignedIds::default());
    let json = serde_json::to_string_pretty(&assigned).unwrap();
    assert_eq!(serde_json::from_str::<AssignedIds>(&json).unwrap(), assigned);
    assert_eq!(serde_json::from_str::<AssignedIds>("{}").unwrap(), AssignedIds::default());
    // MACs follow from names alone; changing that would change every guest's interfaces.
    assert!(json.contains("\"mac\": \"8a:a2:01:70:31:fb\""), "{json}");
}

#[test]
fn what_the_system_assigned_wins() {
    let mut own = assign("[compartment.a]\n[compartment.b]", &AssignedIds::default());
    let system = assign("[compartment.b]\nid = 99", &AssignedIds::default());
    own.absorb(&system);
    assert_eq!((id(&own, "a"), id(&own, "b")), (3, 99));
}
