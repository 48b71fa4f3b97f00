//! The audit log: what is in it, what is not, and what is found when it was altered.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use systemtest::{SHORT, World, here, is_root, skip, until};

/// A world whose log is the test's alone.
fn world(test: &'static str) -> Option<World> {
    if is_root() {
        skip(test, "root's compartments are not the test's alone");
        return None;
    }
    Some(World::new(test, ""))
}

fn file(world: &World) -> PathBuf {
    world.state_directory().join("audit/audit.jsonl")
}

fn records(world: &World) -> Vec<Value> {
    let shown = world.casemate(["audit", "show", "--json", "--compartment", world.name()]);
    shown.done().ok().json().as_array().expect("records").clone()
}

fn kinds(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["event"].as_str().expect("an event")).collect()
}

#[test]
fn log_tells_what_was_done_and_nothing_of_what_was_in_it() {
    let Some(world) = world(here!()) else { return };
    world.run(["echo", "sesame-open"]).done().ok();
    world.run_with(["--root"], ["sh", "-c", "exit 3"]).input("sesame-open").done().exits(3);
    world.casemate(["call", world.name(), "no.Such"]).done().exits(127);
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    let found = records(&world);
    assert_eq!(
        kinds(&found),
        [
            "start",
            "session",
            "session-end",
            "session",
            "session-end",
            "session",
            "session-end",
            "stop"
        ]
    );
    assert_eq!(found[1]["fields"]["program"], "echo");
    assert_eq!(
        (&found[3]["fields"]["user"], &found[4]["fields"]["code"]),
        (&"root".into(), &3.into())
    );
    assert_eq!(found[5]["fields"]["service"], "no.Such");
    assert_eq!(found[7]["fields"]["failed"], false);
    let text = fs::read_to_string(file(&world)).expect("read");
    assert!(!text.contains("sesame-open"), "{text}");
    let verified = world.casemate(["audit", "verify"]).done().ok();
    assert!(verified.text().contains("8 records"), "{verified}");
    let none = world.casemate(["audit", "show", "--since", "2999-01-01"]).done().ok();
    assert_eq!(none.text(), "");
    world.casemate(["audit", "show", "--since", "soon"]).done().exits(2).says("no time");
}

#[test]
fn calls_are_recorded_with_what_decided_them() {
    let Some(world) = world(here!()) else { return };
    let policy = world.path("policy.d");
    fs::create_dir_all(&policy).expect("made");
    let line = format!("casemate.Date * {} @adminvm allow\n", world.name());
    fs::write(policy.join("30-x.policy"), line).expect("written");
    let line = "casemate-call dom0 casemate.Date; casemate-call dom0 no.Such; true";
    world.shell(line).done().ok();
    let found = records(&world);
    let calls: Vec<&Value> = found.iter().filter(|record| record["event"] == "call").collect();
    assert_eq!(calls.len(), 2, "{found:?}");
    assert_eq!(
        (&calls[0]["fields"]["allowed"], &calls[1]["fields"]["allowed"]),
        (&true.into(), &false.into())
    );
    // The client hears of a session's end before the log does.
    let found = until("the session's end", SHORT, || {
        let found = records(&world);
        found.iter().any(|record| record["event"] == "session-end").then_some(found)
    });
    let count = |kind: &str| found.iter().filter(|record| record["event"] == kind).count();
    assert_eq!(
        (count("session"), count("session-end")),
        (1, 1),
        "a call is no session of its caller: {found:?}"
    );
    assert!(calls[0]["fields"]["by"].as_str().is_some_and(|by| by.ends_with("30-x.policy:1")));
    world.casemate(["audit", "verify"]).done().ok();
}

#[test]
fn altered_log_is_found_and_killed_writers_break_nothing() {
    let Some(world) = world(here!()) else { return };
    for _ in 0..3 {
        world.run(["true"]).done().ok();
        let supervisor = world.supervisor();
        let mut loads: Vec<_> = (0..4).map(|_| world.run(["true"]).start()).collect();
        std::thread::sleep(std::time::Duration::from_millis(50));
        kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("killed");
        for load in loads.drain(..) {
            load.done();
        }
    }
    let verified = world.casemate(["audit", "verify", "--json"]).done().ok().json();
    assert_eq!(verified["breaks"].as_array().map(Vec::len), Some(0));
    let head = verified["head"].as_str().expect("a head").to_owned();
    world.casemate(["audit", "verify", "--head", &head]).done().ok();
    let good = fs::read_to_string(file(&world)).expect("read");
    let lines: Vec<&str> = good.lines().collect();
    // A record removed from the middle, one changed, the last ones cut off.
    let without = [&lines[..2], &lines[3..]].concat().join("\n") + "\n";
    fs::write(file(&world), without).expect("written");
    let found = world.casemate(["audit", "verify"]).done().exits(1).says("audit.jsonl:3:");
    assert!(found.error().contains("record 3 was removed"), "{found}");
    fs::write(file(&world), good.replacen("\"start\"", "\"stop\"", 1)).expect("written");
    world.casemate(["audit", "verify"]).done().exits(1).says("record 1 was changed");
    fs::write(file(&world), lines[..lines.len() - 2].join("\n") + "\n").expect("written");
    world.casemate(["audit", "verify"]).done().ok();
    world.casemate(["audit", "verify", "--head", &head]).done().exits(1).says("were cut off");
    world.casemate(["audit", "verify", "--head", "7"]).done().exits(2).says("a head is");
}

#[test]
fn records_are_followed_as_they_are_written() {
    let Some(world) = world(here!()) else { return };
    let follow = world.casemate(["audit", "follow", "--compartment", world.name()]).start();
    world.run(["true"]).done().ok();
    until("the session's end", SHORT, || follow.stdout().contains("session-end").then_some(()));
    let said = follow.stdout();
    let first = said.lines().next().unwrap_or_default().to_owned();
    assert!(first.contains("  start  "), "{said}");
}

#[test]
fn no_log_is_written_where_none_is_wanted() {
    let Some(world) = world(here!()) else { return };
    let text = fs::read_to_string(world.config()).expect("read");
    world.configure(&format!("{text}\n[audit]\nenable = false\n"));
    world.run(["true"]).done().ok();
    assert!(!file(&world).exists());
    let verified = world.casemate(["audit", "verify"]).done().ok();
    assert_eq!(verified.text(), "the audit log is empty");
}

#[test]
fn records_are_sent_as_they_are_written_and_wait_while_nobody_takes_them() {
    let Some(world) = world(here!()) else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = listener.local_addr().expect("an address");
    let text = fs::read_to_string(world.config()).expect("read");
    world.configure(&format!("{text}\n[audit]\nsyslog = \"tcp://{address}\"\n"));
    drop(listener);
    world.run(["true"]).done().ok();
    let status = || world.casemate(["audit", "status", "--json"]).done().ok().json();
    let waits = until("it is said that nobody is there", SHORT, || {
        let found = status()["places"][0].clone();
        found["error"].is_string().then_some(found)
    });
    assert_eq!((&waits["to"], &waits["arrived"]), (&format!("tcp://{address}").into(), &0.into()));
    world.casemate(["audit", "forward"]).done().exits(1).says("another process sends them");
    let listener = TcpListener::bind(address).expect("bound again");
    let taken = std::thread::spawn(move || {
        let mut text = String::new();
        while !text.contains("session-end") {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.read_to_string(&mut text).expect("read");
        }
        text
    });
    let text = taken.join().expect("taken");
    assert!(text.contains("<110>1 20") && text.contains("[meta sequenceId=\"1\"]"), "{text}");
    until("it is known to have arrived", SHORT, || {
        let found = status()["places"][0].clone();
        (found["arrived"].as_u64() >= Some(3) && found["error"].is_null()).then_some(())
    });
}

#[test]
fn what_is_not_as_it_was_recorded_is_found() {
    let Some(world) = world(here!()) else { return };
    // Images of the user's own are as old as they are.
    let data = world.path("data");
    let verify = |words: &[&str]| {
        world.casemate(["verify"].iter().chain(words).copied()).env("XDG_DATA_HOME", &data).done()
    };
    verify(&[]).exits(1).says("no baseline").says("--record");
    fs::create_dir_all(world.path("policy.d")).expect("made");
    let rule = world.path("policy.d/30-mine.policy");
    fs::write(&rule, "* * @anyvm @anyvm deny\n").expect("written");
    let recorded = verify(&["--record"]).ok().text();
    let digest = recorded.lines().find_map(|line| line.strip_prefix("digest ")).expect("a digest");
    let shown = world.casemate(["audit", "show"]).done().ok().text();
    assert!(shown.contains("baseline-recorded") && shown.contains(digest), "{shown}");
    let same = verify(&[]).ok().text();
    assert!(same.contains("are as they were recorded"), "{same}");
    // A rule more, another, its file open to all; a file more; a setting.
    fs::write(&rule, "* * @anyvm @anyvm allow\n").expect("written");
    fs::set_permissions(&rule, fs::Permissions::from_mode(0o666)).expect("set");
    fs::write(world.path("policy.d/10-new.policy"), "").expect("written");
    let before = fs::read_to_string(world.config()).expect("read");
    world.configure(&format!("{before}\n# a word more\n"));
    let found = verify(&["--json"]).exits(1).json();
    let found: Vec<(&str, &str)> = found["drift"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["of"].as_str().expect("text"), one["how"].as_str().expect("text")))
        .collect();
    let rule_was = "changed, mode 0666 was 0644";
    assert_eq!(found, [("configuration", "changed"), ("policy", "new"), ("policy", rule_was)]);
    world.configure(&before);
    fs::remove_file(world.path("policy.d/10-new.policy")).expect("removed");
    fs::remove_file(&rule).expect("removed");
    verify(&[]).exits(1).says("something is not as it was recorded");
    // Whoever changes the baseline as well leaves a log that says otherwise.
    let baseline = world.state_directory().join("baseline.json");
    let text = fs::read_to_string(&baseline).expect("read");
    fs::write(&baseline, text.replace("30-mine", "31-mine")).expect("written");
    let done = verify(&[]).exits(1);
    assert!(
        done.text().contains("baseline: ") && done.text().contains("audit log tells of"),
        "{done}"
    );
    fs::write(&baseline, "{").expect("written");
    verify(&[]).exits(1).says("could not understand").says("--record");
}
