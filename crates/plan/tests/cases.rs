//! Folders of cases: a configuration, facts about a machine, and the plan as it is printed.
//!
//! `CASEMATE_BLESS=1` rewrites the expectations; read them before they are committed.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_config::{
    Compartment, CompartmentId, DiskFormat, Environment, Format, NetworkName, Origin, Settings,
    Source,
};
use casemate_plan::facts::HostFacts;
use casemate_plan::jail::Inode;
use casemate_plan::network::LinkParts;
use casemate_plan::process::Role;
use casemate_plan::switch::PortParts;
use casemate_plan::{
    ImageParts, Instance, Layer, Request, Resume, ShareParts, VolumeParts, identity, plan, print,
};
use casemate_wire::Verity;

fn facts() -> HostFacts {
    let text = fs::read_to_string(cases().join("facts.json")).expect("the facts");
    serde_json::from_str(&text).expect("facts")
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn load(path: &Path) -> casemate_config::Loaded {
    let text = fs::read_to_string(path).expect("a configuration");
    let source = Source {
        path: "/etc/casemate/casemate.toml".into(),
        text,
        format: Format::Toml,
        origin: Origin::User,
    };
    let environment = Environment { home: Some("/home/owner".into()), user: "owner".into() };
    casemate_config::load(&[source], &environment)
}

fn image() -> ImageParts {
    let directory = Path::new("/store/images/0123456789abcdef");
    ImageParts {
        digest: "0123456789abcdef".repeat(4),
        root: directory.join("root.erofs"),
        filesystem: "erofs".into(),
        verity: Some(Verity { root_hash: [0xcd; 32], data_blocks: 13_000, hash_start: 13_001 }),
        kernel: directory.join("kernel"),
        initrd: "/store/derived/initrd".into(),
    }
}

/// A volume with one snapshot.
fn volume(volume: &casemate_config::Volume) -> VolumeParts {
    let layer = |name: &str, format| Layer {
        path: format!("/data/volumes/demo/{}/{name}", volume.name).into(),
        format,
    };
    VolumeParts {
        name: volume.name.clone(),
        layers: vec![layer("data.raw", DiskFormat::Raw), layer("1.qcow2", DiskFormat::Qcow2)],
        size: volume.size.bytes(),
        blank: false,
        sector_size: 4096,
    }
}

/// Stands for the allocator's library.
fn allocator(compartment: &casemate_config::Compartment) -> Vec<u8> {
    match compartment.guest.allocator {
        casemate_config::Allocator::Default => vec![],
        _ => b"library".to_vec(),
    }
}

/// A folder as it is found where nothing is in the way.
fn share(share: &casemate_config::Share) -> ShareParts {
    let inode = Inode { device: 64_769, number: 1_234 };
    ShareParts { folder: share.source.clone(), inode, owner: (33, 34) }
}

/// What the first run would give a compartment in its networks.
fn ports(settings: &Settings, compartment: &Compartment) -> Vec<PortParts> {
    let ids = settings.assign(&Default::default(), &Default::default()).expect("ids");
    let parts = |name: &NetworkName| {
        let (network, assigned) = (&settings.networks[name], &ids.networks[name]);
        let member = assigned.members[&compartment.name];
        PortParts {
            network: name.clone(),
            router: network.router.clone(),
            router_has_link: settings.compartments[&network.router].host_networking,
            cidr: assigned.cidr,
            address: member.address,
            mac: member.mac,
        }
    };
    compartment.networks.keys().map(parts).collect()
}

/// The plan of the only compartment, or why there is none, as text.
fn outcome(folder: &Path) -> String {
    let loaded = load(&folder.join("input.toml"));
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
    let mut facts = facts();
    if let Ok(patch) = fs::read_to_string(folder.join("facts.json")) {
        let mut value = serde_json::to_value(&facts).expect("JSON");
        let patch: serde_json::Value = serde_json::from_str(&patch).expect("JSON");
        for (key, changed) in patch.as_object().expect("an object") {
            value[key] = changed.clone();
        }
        facts = serde_json::from_value(value).expect("facts");
    }
    let settings = &loaded.settings;
    let compartment = settings.compartments.values().next().expect("a compartment");
    let fresh = folder.join("fresh").exists();
    let resume = folder
        .join("resume")
        .exists()
        .then(|| Resume { snapshot: "before".into(), file: "/data/memory/demo/before.age".into() });
    let request = Request {
        compartment,
        engine: &settings.engines[&compartment.engine],
        audit: &settings.audit,
        instance: Instance {
            name: if fresh { "web-d1234".into() } else { compartment.name.to_string() },
            slot: if fresh { identity::FRESH_SLOTS + 1234 } else { 3 },
            fresh,
        },
        image: (!folder.join("no-image").exists()).then(image),
        volumes: compartment.volumes.iter().map(volume).collect(),
        shares: compartment.shares.iter().map(share).collect(),
        file_sources: Default::default(),
        block_devices: Default::default(),
        image_name: compartment.image.to_string(),
        machine_id: "0".repeat(32),
        run_directory: format!("/run/user/1000/casemate/{}", compartment.name).into(),
        allocator: allocator(compartment),
        resume,
        log_directory: format!("/state/logs/{}", compartment.name).into(),
        network: &settings.network,
        link: CompartmentId::new(7)
            .map(|id| LinkParts { id, mac: "02:00:00:12:34:56".parse().expect("an address") }),
        switch: &settings.switch,
        ports: ports(settings, compartment),
        switches: "/run/user/1000/casemate/.networks".into(),
        switch_logs: "/state/networks".into(),
    };
    match plan(&request, &facts) {
        Ok(plan) => print(&plan),
        Err(refusal) => format!("error: {refusal}\nhint: {}\n", refusal.hint()),
    }
}

#[test]
fn plans_are_as_expected() {
    let mut folders: Vec<PathBuf> = fs::read_dir(cases())
        .expect("the cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(folders.len() >= 8, "only {} cases were found", folders.len());
    let mut wrong = Vec::new();
    for folder in folders {
        let found = outcome(&folder);
        let expected = folder.join("expected.txt");
        if std::env::var_os("CASEMATE_BLESS").is_some() {
            fs::write(&expected, &found).expect("written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "these plans are not as expected:\n{}", wrong.join("\n"));
}

proptest::proptest! {
    #[test]
    fn no_two_processes_share_a_user(a in 0..26_000u32, b in 0..26_000u32, network in 0..1000u16) {
        let facts = facts();
        let of = |slot, role| identity::identity(&facts, slot, role).expect("an identity");
        let mut ids = vec![of(a, Role::Vmm).uid, of(a, Role::Link).uid];
        // Disposables are numbered from 1000.
        let is_one = |slot| !(identity::FRESH_SLOTS..identity::FRESH_SLOTS + 1000).contains(&slot);
        proptest::prop_assume!(is_one(a) && is_one(b));
        let networked = |slot| !(2768..identity::FRESH_SLOTS).contains(&slot);
        ids.push(of(a, Role::Switch(network)).uid);
        ids.extend(networked(a).then(|| of(a, Role::Network).uid));
        if a != b {
            ids.extend([of(b, Role::Vmm).uid, of(b, Role::Link).uid]);
            ids.extend(networked(b).then(|| of(b, Role::Network).uid));
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        proptest::prop_assert_eq!(ids.len(), count);
        let (start, length) = facts.caller.subordinate_uids.expect("a range");
        proptest::prop_assert!(ids.iter().all(|id| (start..start + length).contains(id)));
    }
}

#[test]
fn switches_of_the_pool_have_a_user_each() {
    let number = |text: &str| identity::switch_number(text.parse().expect("a network"));
    let pool: Vec<u16> = (0..256).map(|third| number(&format!("10.88.{third}.0/24"))).collect();
    assert_eq!(pool, (0..256).collect::<Vec<u16>>());
    for other in ["10.88.0.0/16", "10.20.0.0/24", "192.168.1.0/25", "10.0.0.0/8"] {
        assert!((256..1000).contains(&number(other)), "{other}");
    }
}

#[test]
fn a_slot_beyond_the_range_is_refused() {
    assert!(identity::identity(&facts(), 40_000, Role::Vmm).is_err());
}

#[test]
fn every_descriptor_of_the_vmm_is_used() {
    for name in ["plain", "microvm", "kvm-by-descriptor"] {
        let folder = cases().join(name);
        let text = outcome(&folder);
        for descriptor in [3, 4, 5, 6] {
            let named = text.contains(&format!("fd={descriptor}"));
            assert!(named, "{name}: nothing uses descriptor {descriptor}");
        }
    }
}
