//! `casemate policy`, without a guest: what it says goes by files and by which compartments run.

use std::fs;

use systemtest::{World, here, is_root, skip};

const COMPARTMENTS: &str = "[compartment.work]\ntags = [\"net\"]\n[compartment.vault]\n";
const RULES: &str = "gpg.Sign +release @tag:net vault deny\n\
                     gpg.Sign * work vault allow autostart=no\n";

#[test]
fn user_has_a_policy_of_his_own() {
    if is_root() {
        return skip(here!(), "root's configuration is the machine's");
    }
    let world = World::new(here!(), "");
    world.configure(COMPARTMENTS);
    let place = world.path("config/casemate/policy.d");
    fs::create_dir_all(&place).expect("made");
    fs::write(place.join("30-keys.policy"), RULES).expect("written");
    let check = world.casemate(["policy", "check"]).done().ok();
    assert!(check.text().contains("valid"), "{check}");
    let explain = |service| {
        let words = ["policy", "explain", "work", "vault", service, "--json"];
        world.casemate(words).done().ok().json()
    };
    let told = explain("gpg.Sign+key");
    assert_eq!(told["by"]["line"], 2, "{told}");
    assert_eq!(told["near"][0]["field"], "argument", "{told}");
    assert!(!told["decision"]["deny"].is_null(), "the vault does not run: {told}");
    let told = explain("gpg.Sign+release");
    assert_eq!(told["reason"], "a rule denies it", "{told}");
}

#[test]
fn file_with_a_mistake_is_named_and_stands_in_the_way() {
    let world = World::new(here!(), "");
    world.configure(COMPARTMENTS);
    let folder = world.path("policies");
    fs::create_dir(&folder).expect("made");
    fs::write(folder.join("10-first.policy"), "a * work vault allow\n").expect("written");
    fs::write(folder.join("20-wrong.policy"), "b * work vault permit\n").expect("written");
    fs::write(folder.join("30-last.policy"), "* * work vault allow\n").expect("written");
    let folder = folder.to_str().expect("text");
    let check = world.casemate(["policy", "check", "--policy-dir", folder]).done().exits(3);
    for words in ["20-wrong.policy:1:16", "`permit` is no action", "^^^^^^"] {
        assert!(check.error().contains(words), "`{words}` is missing in {check}");
    }
    let decision = |service| {
        let words =
            ["policy", "explain", "work", "vault", service, "--json", "--policy-dir", folder];
        world.casemate(words).done().ok().json()["decision"].clone()
    };
    assert_eq!(decision("a")["allow"]["target"], "vault");
    for service in ["b", "c"] {
        assert!(!decision(service)["deny"].is_null(), "{service}");
    }
}
