//! `casemate check`, and where a configuration comes from.

use std::fs;

use systemtest::{World, here, is_root, skip};

#[test]
fn good_file_is_valid() {
    let world = World::new(here!(), "");
    let done = world.casemate(["check"]).done().ok();
    assert!(done.text().contains("valid: 1 compartment"), "{done}");
    let json = world.casemate(["check", "--json"]).done().ok().json();
    assert_eq!(json.as_array().map(Vec::len), Some(0), "{json}");
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_place() {
    let world = World::new(here!(), "");
    world.configure(
        "[compartment.one]\nmemroy = 512\n\n[compartment.two]\nid = 4\ncpus = \"many\"\n\n\
         [compartment.three]\ntemplate = \"none\"\n",
    );
    let done = world.casemate(["check"]).done().exits(3);
    let error = done.error();
    for wanted in [
        "casemate.toml:2",
        "memroy",
        "did you mean `memory`",
        "casemate.toml:5",
        "casemate.toml:6",
        "casemate.toml:9",
        "^",
        "hint",
    ] {
        assert!(error.contains(wanted), "`{wanted}` is missing in {done}");
    }
    let json = world.casemate(["check", "--json"]).done().exits(3).json();
    let found = json.as_array().expect("a list");
    assert!(found.len() >= 4, "{json}");
    for diagnostic in found {
        assert!(diagnostic["line"].is_u64() && diagnostic["message"].is_string(), "{diagnostic}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let world = World::new(here!(), "");
    for (text, words) in [
        ("[compartment.a]\nid = 5\n[compartment.b]\nid = 5\n", "5"),
        ("[compartment.a]\nnetworks.lan = {}\n", "router"),
        ("[compartment.a]\npci-devices = [\"0000:03:00.0\"]\n", "isolated-pci-devices"),
        ("[compartment.a]\nmemory = 1\n", "memory"),
        ("[compartment.host]\n", "host"),
        ("[compartment.a-d12]\n", "disposable"),
    ] {
        world.configure(text);
        let done = world.casemate(["check"]).done();
        assert_eq!(done.code, Some(3), "{text}\n{done}");
        assert!(done.error().contains(words), "`{words}` is missing in {done}");
    }
}

#[test]
fn folder_of_drop_ins_is_one_configuration() {
    let world = World::new(here!(), "");
    let folder = world.path("casemate.d");
    fs::create_dir(&folder).expect("made");
    fs::write(folder.join("10-one.toml"), "[compartment.one]\nmemory = 256\n").expect("written");
    fs::write(folder.join("20-two.json"), "{\"compartment\": {\"two\": {\"cpus\": 1}}}")
        .expect("written");
    fs::write(folder.join(".hidden.toml"), "not toml").expect("written");
    fs::write(folder.join("notes.txt"), "not toml").expect("written");
    let call =
        |arguments: &[&str]| world.program("casemate").arg("--config").arg(&folder).args(arguments);
    call(&["check"]).done().ok();
    let list = call(&["list", "--json"]).done().ok().json();
    let names: Vec<_> =
        list.as_array().expect("a list").iter().filter_map(|row| row["name"].as_str()).collect();
    assert!(names.contains(&"one") && names.contains(&"two"), "{names:?}");
    // Declared twice: the error names the file.
    fs::write(folder.join("30-again.toml"), "[compartment.one]\n").expect("written");
    call(&["check"]).done().exits(3).says("30-again.toml");
}

#[test]
fn drop_ins_beside_the_own_file_are_read() {
    if is_root() {
        return skip(here!(), "root's configuration is the machine's");
    }
    let world = World::new(here!(), "");
    let place = world.path("config/casemate");
    fs::create_dir_all(place.join("casemate.d")).expect("made");
    fs::write(place.join("casemate.toml"), "[compartment.own]\nmemory = 256\n").expect("written");
    fs::write(place.join("casemate.d/more.toml"), "[compartment.more]\n").expect("written");
    let done = world.program("casemate").args(["list"]).done().ok();
    assert!(done.text().contains("own") && done.text().contains("more"), "{done}");
    world.program("casemate").args(["check"]).done().ok();
}

#[test]
fn json_form_says_the_same() {
    let world = World::new(here!(), "");
    let file = world.path("casemate.json");
    let name = world.name();
    let text = format!(
        "{{\"compartment\": {{\"{name}\": {{\"memory\": 256, \"cpus\": 1, \"disposable\": true}}}}}}"
    );
    fs::write(&file, text).expect("written");
    let call =
        |arguments: &[&str]| world.program("casemate").arg("--config").arg(&file).args(arguments);
    call(&["check"]).done().ok();
    assert_eq!(call(&["run", name, "--", "echo", "json"]).done().ok().text(), "json");
    call(&["stop", "--force", name]).done().ok();
    fs::write(&file, "{\"compartment\": {\"x\": {\"memroy\": 1}}}").expect("written");
    call(&["check"]).done().exits(3).says("casemate.json:1").says("memroy");
    fs::write(&file, "{").expect("written");
    call(&["check"]).done().exits(3).says("casemate.json:");
}

#[test]
fn schema_is_json_and_knows_the_options() {
    let world = World::new(here!(), "");
    let schema = world.program("casemate").args(["check", "--schema"]).done().ok();
    assert!(schema.json()["$schema"].is_string(), "{schema}");
    for option in ["idle-timeout", "host-networking", "disposable-template", "kernel-params"] {
        assert!(schema.text().contains(option), "`{option}` is missing");
    }
    let reference = world.program("casemate").args(["check", "--reference"]).done().ok();
    assert!(reference.text().contains("idle-timeout"));
}

#[test]
fn shipped_examples_are_valid() {
    let folder = systemtest::programs::workspace().join("examples");
    let Ok(entries) = fs::read_dir(&folder) else {
        return skip(here!(), "the sources are not here");
    };
    let world = World::new(here!(), "");
    for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
        world.program("casemate").arg("--config").arg(entry.path()).args(["check"]).done().ok();
    }
}

#[test]
fn ids_are_kept_between_starts() {
    let world = World::with(here!(), &[("one", ""), ("two", "")]);
    let slots = || {
        let plan = world.casemate(["plan", world.named("two"), "--json"]).done().ok().json();
        plan["instance"].clone()
    };
    // Printing a plan keeps nothing; a start does.
    world.casemate(["start", world.named("two")]).done().ok();
    let before = slots();
    // Another compartment, before it in order of names.
    world.configure_more("[compartment.aaa-earlier]\nmemory = 256\n");
    world.casemate(["plan", "aaa-earlier"]).done().ok();
    assert_eq!(slots(), before);
    world.casemate(["stop", "--force", world.named("two")]).done().ok();
}

#[test]
fn file_that_cannot_be_read_is_named() {
    if is_root() {
        return skip(here!(), "root may read everything");
    }
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(here!(), "");
    fs::set_permissions(world.config(), fs::Permissions::from_mode(0o000)).expect("set");
    world.casemate(["check"]).done().exits(3).says("casemate.toml").says("ermission denied");
}
