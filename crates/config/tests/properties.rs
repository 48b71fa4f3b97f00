//! What holds for every input: no panic, no collision, and nothing given is taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use casemate_config::{AssignedIds, Environment, Format, MacAddr, Origin, Settings, Source, load};
use proptest::prelude::*;

fn source(text: String, format: Format, origin: Origin) -> Source {
    Source { path: "/etc/casemate/casemate.toml".into(), text, format, origin }
}

fn environment() -> Environment {
    Environment { home: None, user: "alice".into() }
}

/// Pieces that get past the parsers more often than random letters do.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[compartment.a]\n",
        "[compartment.b]\n",
        "[template.t]\n",
        "[defaults]\n",
        "[network]\n",
        "[network.lan]\n",
        "[image.i]\n",
        "[engine.qemu]\n",
        "[[compartment.a.volumes]]\n",
        "[compartment.a.networks.lan]\n",
        "[switch]\n",
        "memory = ",
        "id = ",
        "template = \"t\"\n",
        "cidr = ",
        "firewall = ",
        "guest.users = ",
        "guest.files = ",
        "name = ",
        "size = ",
        "mount-point = ",
        "router = true\n",
        "mac-address = ",
        "pci-devices = ",
        "users = ",
        "image = ",
        "color = ",
        "shares = ",
        "secrets = ",
        "key = ",
        "path = ",
        "5",
        "true",
        "\"a\"",
        "\"\"",
        "\"~/x\"",
        "\"action=accept proto=tcp\"",
        "\"02:00:00:00:00:01\"",
        "\"01:00.0\"",
        "\"10.0.0.0/8\"",
        "\"4GiB\"",
        "{}",
        "[]",
        "{ a = 1 }",
        "[{}]",
        "\n",
        ",",
        "=",
        "\"\\u00e9\"",
        "'",
        "é",
        "\u{1b}",
        "\0",
        "{\"compartment\":",
        "{\"a\":",
        "{\"memory\":1}",
        "}",
        "null",
    ];
    prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_text_loads_and_renders(
        pieces in prop::collection::vec(piece(), 0..40),
        json in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = pieces.concat();
        let format = if json { Format::Json } else { Format::Toml };
        // The same text again as a user's file, cut anywhere: two files and broken syntax.
        let mut end = cut.index(text.len() + 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let sources = [
            source(text.clone(), format, Origin::System),
            source(text[..end].to_owned(), format, Origin::User),
        ];
        let loaded = load(&sources, &environment());
        let _ = (loaded.render(false), loaded.render(true));
        for name in loaded.settings.compartments.keys() {
            prop_assert!(loaded.errors_for(name.as_str()).is_empty());
        }
        for name in loaded.settings.broken.keys() {
            prop_assert!(!loaded.errors_for(name).is_empty());
        }
        for diagnostic in &loaded.diagnostics {
            prop_assert!(diagnostic.place.is_none_or(|at| loaded.position(at).is_some()));
        }
        let _ = loaded.settings.assign(&AssignedIds::default(), &Default::default());
    }
}

/// A compartment as the tests know it.
#[derive(Debug, Clone)]
struct Wish {
    id: Option<u32>,
    networks: BTreeSet<usize>,
    online: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    let id = prop::option::weighted(0.2, (1..127u32).prop_map(|half| half * 2 + 1));
    let networks = prop::collection::btree_set(0..3usize, 0..3);
    (id, networks, any::<bool>()).prop_map(|(id, networks, online)| Wish { id, networks, online })
}

fn wishes() -> impl Strategy<Value = BTreeMap<String, Wish>> {
    prop::collection::btree_map("[a-z][a-z0-9]{0,5}", wish(), 1..30)
        .prop_map(|wishes| wishes.into_iter().filter(|(name, _)| valid(name)).collect())
}

fn valid(name: &str) -> bool {
    name.parse::<casemate_config::CompartmentName>().is_ok()
}

/// Settings with the wishes fulfilled; an id somebody else fixed already is left out.
fn settings(wishes: &BTreeMap<String, Wish>) -> Settings {
    let mut text = String::from("[network.net0]\ncidr = \"10.1.0.0/28\"\n");
    for network in 0..3 {
        let _ =
            writeln!(text, "[compartment.zz-router{network}]\nnetworks.net{network}.router = true");
    }
    let mut ids = BTreeSet::new();
    for (name, wish) in wishes {
        let _ = writeln!(text, "[compartment.{name}]\nhost-networking = {}", wish.online);
        if let Some(id) = wish.id.filter(|id| ids.insert(*id)) {
            let _ = writeln!(text, "id = {id}");
        }
        // The /28 has room for 13 clients; keep the test to what fits.
        for network in wish.networks.iter().filter(|network| **network != 0 || name.len() < 2) {
            let _ = writeln!(text, "networks.net{network} = {{}}");
        }
    }
    let loaded = load(&[source(text, Format::Toml, Origin::User)], &environment());
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
    loaded.settings
}

fn check_no_collision(settings: &Settings, assigned: &AssignedIds) {
    let mut ids = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    let mut macs: BTreeSet<MacAddr> = BTreeSet::new();
    for compartment in assigned.compartments.values() {
        assert!(ids.insert(compartment.id));
        let (host, guest) = settings.network.link(compartment.id).unwrap();
        assert_eq!(u32::from(host) + 1, u32::from(guest));
        assert_eq!(u32::from(host) % 2, 0, "not a /31");
        assert!(addresses.insert(host) && addresses.insert(guest));
        assert!(macs.insert(compartment.mac));
    }
    let networks: Vec<_> = assigned.networks.values().collect();
    for (at, network) in networks.iter().enumerate() {
        assert!(!network.cidr.overlaps(settings.network.cidr));
        assert!(networks[..at].iter().all(|other| !other.cidr.overlaps(network.cidr)));
        for member in network.members.values() {
            assert!(network.cidr.net().hosts().any(|host| host == member.address));
            assert!(addresses.insert(member.address), "{} given twice", member.address);
            assert!(macs.insert(member.mac));
        }
    }
    for compartment in settings.compartments.values() {
        let given = assigned.compartments[&compartment.name];
        assert!(compartment.id.is_none_or(|id| id == given.id));
        for name in compartment.networks.keys() {
            assert!(assigned.networks[name].members.contains_key(&compartment.name));
        }
    }
    for (name, network) in &settings.networks {
        let router = assigned.networks[name].members[&network.router];
        assert_eq!(Some(router.address), assigned.networks[name].cidr.host(1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_collides_and_nothing_given_changes(
        first in wishes(),
        second in wishes(),
        keep in prop::collection::vec(any::<bool>(), 30),
    ) {
        let before = settings(&first);
        let assigned = before.assign(&AssignedIds::default(), &Default::default()).unwrap();
        check_no_collision(&before, &assigned);
        prop_assert_eq!(&before.assign(&assigned, &Default::default()).unwrap(), &assigned);

        // Some go, others come; nobody fixes an id this time.
        let mut changed: BTreeMap<String, Wish> = second;
        changed.extend(first.iter().zip(&keep).filter(|(_, keep)| **keep).map(|((name, wish), _)| {
            (name.clone(), wish.clone())
        }));
        changed.values_mut().for_each(|wish| wish.id = None);
        let after = settings(&changed);
        let Ok(reassigned) = after.assign(&assigned, &Default::default()) else { return Ok(()) };
        check_no_collision(&after, &reassigned);
        for name in after.compartments.keys().filter(|name| before.compartments.contains_key(*name)) {
            prop_assert_eq!(assigned.compartments[name], reassigned.compartments[name]);
        }
        for (name, network) in &reassigned.networks {
            let Some(known) = assigned.networks.get(name) else { continue };
            prop_assert_eq!(known.cidr, network.cidr);
            for (member, given) in &network.members {
                let stays = after.compartments.get(member).is_some_and(|compartment| {
                    compartment.networks.contains_key(name)
                });
                if let Some(known) = known.members.get(member).filter(|_| stays) {
                    prop_assert_eq!(known, given);
                }
            }
        }
        // And those who went come back to what they had.
        let back = before.assign(&reassigned, &Default::default()).unwrap();
        for name in before.compartments.keys() {
            prop_assert_eq!(assigned.compartments[name].id, back.compartments[name].id);
        }
    }
}
