//! Operations killed at any moment: what was taken is there, what is in the way is removed, and the
//! next operation goes on as if nothing had been.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use casemate_volume::{LockedVolume, Volumes};
use common::{AGE, World, banking, home, name, read, snapshot, world, write};

const CELL: u64 = 64 << 10;
const DATA: &str = "CASEMATE_TEST_KILLED";

/// The process that is killed: takes, reverts and deletes snapshots for ever, and says before each
/// step what it is about to do, and after each that it is done.
#[test]
fn busy() {
    let Ok(data) = std::env::var(DATA) else { return };
    let mut volume = Volumes::at(data.as_ref()).lock(&banking(), &name()).expect("locked");
    let say = |text: String| {
        println!("@{text}");
        let _ = std::io::stdout().flush();
    };
    let names: Vec<_> = volume.snapshots().into_iter().map(|one| one.name.clone()).collect();
    // Names go on where the one before was killed.
    let first = names.iter().filter_map(|name| name.as_str().parse().ok()).max().unwrap_or(0) + 1;
    for number in first..first + 1000_u64 {
        say(format!("write {number}"));
        write(&volume, &[((number % 16) * CELL, CELL, (number % 251) as u8)]);
        say(format!("take {number}"));
        volume.take_snapshot(&snapshot(&number.to_string()), false).expect("taken");
        say("done".into());
        let old = number.saturating_sub(2);
        if number % 3 == 0
            && volume.snapshots().iter().any(|one| one.name == snapshot(&old.to_string()))
        {
            say(format!("revert {old}"));
            volume.revert(&snapshot(&old.to_string())).expect("reverted");
            say("done".into());
        }
        if volume.snapshots().len() > 3 {
            let oldest = volume.snapshots()[number as usize % 2].name.clone();
            say(format!("delete {oldest}"));
            volume.delete_snapshot(&oldest).expect("deleted");
            say("done".into());
        }
    }
}

fn start(world: &World) -> (Child, std::thread::JoinHandle<Vec<String>>) {
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "busy", "--nocapture"])
        .env(DATA, world.directory.path().join("data"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let said = std::thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        lines.filter_map(|line| line.split_once('@').map(|(_, said)| said.to_owned())).collect()
    });
    (child, said)
}

/// The content of each cell that is the same all through, by snapshot and of now.
fn contents(volume: &mut LockedVolume) -> BTreeMap<String, Vec<u8>> {
    let names: Vec<_> = volume.snapshots().into_iter().map(|one| one.name.clone()).collect();
    let mut contents = BTreeMap::new();
    contents.insert("now".to_owned(), read(volume));
    // Now is kept while the others are looked at.
    let kept = snapshot("kept");
    volume.take_snapshot(&kept, false).expect("taken");
    for name in names {
        volume.revert(&name).expect("reverted");
        contents.insert(name.to_string(), read(volume));
    }
    volume.revert(&kept).expect("reverted");
    volume.delete_snapshot(&kept).expect("deleted");
    assert_eq!(read(volume), contents["now"]);
    contents
}

#[test]
fn snapshots_survive_a_kill_at_any_moment() {
    let Some(world) = world(AGE) else { return };
    let volume = world.made(1);
    write(&volume, &[(0, 1 << 20, 255)]);
    drop(volume);
    let rounds = if std::env::var_os("CASEMATE_SOAK").is_some() { 50 } else { 8 };
    // What a snapshot held when it was first seen, it holds for ever.
    let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for round in 0..rounds {
        let (mut child, said) = start(&world);
        // Not waiting for anything: the moment of the kill is what is random here.
        std::thread::sleep(Duration::from_millis(150 + round * 37 % 400));
        child.kill().expect("killed");
        child.wait().expect("ended");
        let said = said.join().expect("read");
        let mut volume = world.lock();
        let found = contents(&mut volume);
        let mut expected: Vec<String> =
            seen.keys().filter(|name| *name != "now").cloned().collect();
        let mut open = None;
        for line in &said {
            match line.split_once(' ') {
                Some(step) => {
                    // Killed or not: what is not done may have happened, or not.
                    open = Some(step);
                    match step {
                        ("take", number) => expected.push(number.to_owned()),
                        ("delete", number) => expected.retain(|name| name != number),
                        _ => {}
                    }
                }
                None => open = None,
            }
        }
        for name in &expected {
            let undone = open == Some(("take", name));
            assert!(undone || found.contains_key(name), "{name} is lost: {said:?}");
        }
        for name in found.keys().filter(|name| *name != "now") {
            let undone = open == Some(("delete", name));
            assert!(undone || expected.contains(name), "{name} is there again: {said:?}");
        }
        for (name, content) in &found {
            if name != "now" {
                if let Some(before) = seen.get(name) {
                    assert!(before == content, "{name} has changed: {said:?}");
                }
                // Each was taken right after its cell was written, as a whole.
                let number: u64 = name.parse().expect("a number");
                let start = (number % 16 * CELL) as usize;
                let cell = &content[start..start + CELL as usize];
                assert!(cell.iter().all(|byte| u64::from(*byte) == number % 251), "{name}");
            }
        }
        seen = found;
        volume.merge().expect("merged");
        let layers = fs::read_dir(world.folder()).expect("listed").flatten();
        let layers = layers.filter(|entry| entry.file_name().to_string_lossy().ends_with("qcow2"));
        // Each snapshot, now, and one below each fork.
        assert!(layers.count() <= 2 * seen.len(), "leftovers: {:?}", world.files());
    }
}

/// The process that is killed while it makes and deletes volumes.
#[test]
fn restless() {
    let Ok(data) = std::env::var(DATA) else { return };
    let volumes = Volumes::at(&std::path::Path::new(&data).join("data"));
    let world = std::path::Path::new(&data);
    let key = casemate_config::KeySource::Age(world.join("keys/home.age"));
    let identity = world.join("config/identity.txt");
    let unlock = casemate_volume::Unlock { passphrase: None, identity: &identity };
    loop {
        volumes.create(&banking(), &home(1, key.clone()), &unlock).expect("created");
        volumes.delete(&banking(), &name()).expect("deleted");
    }
}

#[test]
fn volumes_are_whole_or_gone_after_a_kill_at_any_moment() {
    let Some(world) = world(AGE) else { return };
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "restless"])
            .env(DATA, world.directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        std::thread::sleep(Duration::from_millis(100 + round * 53 % 170));
        child.kill().expect("killed");
        child.wait().expect("ended");
        world.volumes.sweep().expect("swept");
        let whole = world.volumes.list(&world.identity).expect("listed");
        let files = world.files();
        let left = |path: &String| path.contains("/.new-") || path.contains("/.deleted-");
        assert!(!files.iter().any(left), "leftovers: {files:?}");
        if whole.is_empty() {
            continue;
        }
        let volume = world.lock();
        volume.open_key(&world.age(), &world.unlock(None)).expect("opened");
        drop(volume);
        world.volumes.delete(&banking(), &name()).expect("deleted");
        assert_eq!(world.files(), [""; 0]);
    }
}
