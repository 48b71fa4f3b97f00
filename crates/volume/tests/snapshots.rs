//! Snapshots against a model: what was written is there, whatever is taken, reverted and deleted.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use casemate_config::Size;
use casemate_volume::{LockedVolume, Retention, VolumeError};
use common::{AGE, World, read, snapshot, world, write};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Bytes of a cell, which is written as a whole: it lies across a cluster's end now and then.
const CELL: u64 = 48 << 10;
/// Cells of the disk.
const CELLS: u64 = 40;
/// MiB of the disk at first.
const MIB: u64 = 2;

#[derive(Debug, Clone)]
enum Op {
    Write(u64, u8),
    Take(u8),
    Revert(u8),
    Delete(u8),
    Grow,
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..CELLS, 1..=255_u8).prop_map(|(cell, byte)| Op::Write(cell, byte)),
        4 => (0..6_u8).prop_map(Op::Take),
        2 => (0..6_u8).prop_map(Op::Revert),
        3 => (0..6_u8).prop_map(Op::Delete),
        1 => Just(Op::Grow),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..18)
}

type State = BTreeMap<u64, u8>;

fn assert_state(volume: &LockedVolume, state: &State) {
    let disk = read(volume);
    assert_eq!(disk.len() as u64, volume.size());
    for (cell, bytes) in disk.chunks(CELL as usize).enumerate() {
        let expected = state.get(&(cell as u64)).copied().unwrap_or(0);
        assert!(bytes.iter().all(|byte| *byte == expected), "cell {cell} is not {expected}");
    }
}

fn follow(world: &World, ops: &[Op]) {
    let mut volume = world.made(MIB);
    let mut now = State::new();
    let mut taken: BTreeMap<u8, State> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Write(cell, byte) => {
                write(&volume, &[(cell * CELL, CELL, *byte)]);
                now.insert(*cell, *byte);
            }
            Op::Take(number) => {
                let result = volume.take_snapshot(&snapshot(&number.to_string()), false);
                assert_eq!(result.is_err(), taken.contains_key(number), "{result:?}");
                if result.is_ok() {
                    taken.insert(*number, now.clone());
                }
            }
            Op::Revert(number) => {
                let result = volume.revert(&snapshot(&number.to_string()));
                assert_eq!(result.is_ok(), taken.contains_key(number), "{result:?}");
                if let Some(state) = taken.get(number) {
                    now.clone_from(state);
                }
            }
            Op::Delete(number) => {
                let result = volume.delete_snapshot(&snapshot(&number.to_string()));
                assert_eq!(result.is_ok(), taken.remove(number).is_some(), "{result:?}");
            }
            Op::Grow => {
                let mib = volume.size() / (1 << 20) + 1;
                volume.resize(Size::from_mib(mib).expect("a size")).expect("grown");
            }
            Op::Reopen => {
                drop(volume);
                volume = world.lock();
            }
        }
        assert_state(&volume, &now);
    }
    // Every snapshot is what it was when it was taken.
    let names: Vec<_> = volume.snapshots().into_iter().map(|one| one.name.clone()).collect();
    assert_eq!(names.len(), taken.len());
    for (number, state) in &taken {
        volume.revert(&snapshot(&number.to_string())).expect("reverted");
        assert_state(&volume, state);
    }
    for name in &names {
        volume.delete_snapshot(name).expect("deleted");
    }
    assert_eq!(volume.layers().expect("layers").len(), 1, "all merged");
    assert_eq!(fs::read_dir(world.folder()).expect("listed").count(), 4);
}

#[test]
fn random_snapshots_keep_what_was_written() {
    if world(AGE).is_none() {
        return;
    }
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let config =
        Config { cases: cases.unwrap_or(12), failure_persistence: None, ..Config::default() };
    let run = |ops: Vec<Op>| {
        follow(&world(AGE).expect("as before"), &ops);
        Ok(())
    };
    TestRunner::new(config).run(&ops(), run).expect("holds");
}

#[test]
fn neighbours_of_a_deleted_snapshot_stay() {
    let Some(world) = world(AGE) else { return };
    let ops = [
        Op::Write(0, 1),
        Op::Take(0),
        Op::Write(1, 2),
        Op::Take(1),
        Op::Write(2, 3),
        Op::Take(2),
        Op::Write(0, 4),
        Op::Delete(1),
        Op::Revert(0),
        Op::Write(5, 5),
        Op::Take(3),
        Op::Delete(0),
        Op::Delete(2),
        Op::Reopen,
        Op::Write(6, 6),
    ];
    follow(&world, &ops);
}

#[test]
fn taking_and_reverting_take_no_time_and_size_is_told() {
    let Some(world) = world(AGE) else { return };
    let mut volume = world.made(1024);
    write(&volume, &[(0, 64 << 20, 1)]);
    let start = Instant::now();
    volume.take_snapshot(&snapshot("before"), false).expect("taken");
    println!("taken in {:?}", start.elapsed());
    let small = volume.diff_size(&snapshot("before")).expect("told");
    write(&volume, &[(0, 8 << 20, 2)]);
    let large = volume.diff_size(&snapshot("before")).expect("told");
    assert!(small < 1 << 20 && (8 << 20..10 << 20).contains(&large), "{small} {large}");
    let start = Instant::now();
    volume.revert(&snapshot("before")).expect("reverted");
    println!("reverted in {:?}", start.elapsed());
    assert!(volume.diff_size(&snapshot("before")).expect("told") < 1 << 20);
    assert!(matches!(volume.diff_size(&snapshot("other")), Err(VolumeError::NoSnapshot { .. })));
}

#[test]
fn a_blank_volume_is_blank_again_after_going_back() {
    let Some(world) = world(AGE) else { return };
    let mut volume = world.made(1);
    assert!(volume.is_blank());
    volume.take_snapshot(&snapshot("blank"), false).expect("taken");
    volume.set_formatted().expect("kept");
    volume.take_snapshot(&snapshot("formatted"), false).expect("taken");
    volume.revert(&snapshot("blank")).expect("reverted");
    drop(volume);
    let mut volume = world.lock();
    assert!(volume.is_blank());
    volume.revert(&snapshot("formatted")).expect("reverted");
    assert!(!volume.is_blank());
}

#[test]
fn rules_delete_only_what_rules_took() {
    let Some(world) = world(AGE) else { return };
    let mut volume = world.made(1);
    for number in 0..4 {
        volume.take_snapshot(&snapshot(&format!("auto-{number}")), true).expect("taken");
        volume.take_snapshot(&snapshot(&format!("mine-{number}")), false).expect("taken");
    }
    let rule: Retention = "1 daily".parse().expect("a rule");
    let gone = volume.expire(&rule).expect("expired");
    let gone: Vec<&str> = gone.iter().map(|name| name.as_str()).collect();
    // Unless midnight came between them.
    assert!(gone.len() >= 2 && gone.iter().all(|name| name.starts_with("auto-")), "{gone:?}");
    assert!(!gone.contains(&"auto-3"));
    assert_eq!(volume.snapshots().len(), 8 - gone.len());
}

#[test]
fn layers_a_vmm_tampered_with_are_not_opened() {
    use std::os::unix::fs::FileExt;
    let Some(world) = world(AGE) else { return };
    let mut volume = world.made(1);
    volume.take_snapshot(&snapshot("a"), false).expect("taken");
    let path = world.folder().join("1.qcow2");
    let good = fs::read(&path).expect("read");
    let backing = std::process::Command::new("qemu-img")
        .args(["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"])
        .arg(&path)
        .status();
    assert!(backing.expect("qemu-img").success());
    let spoilt = fs::read(&path).expect("read");
    let mut data_file = good.clone();
    data_file[79] |= 4;
    for bytes in [spoilt, data_file, b"short".to_vec()] {
        fs::write(&path, bytes).expect("written");
        assert!(matches!(volume.layers(), Err(VolumeError::Layer(_))));
        assert!(volume.delete_snapshot(&snapshot("a")).is_err());
        assert!(volume.resize(Size::from_mib(2).expect("a size")).is_err());
        fs::write(&path, &good).expect("written");
    }
    // A layer that is a link to somewhere else, or the raw one a qcow2 in disguise.
    fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink("/etc/passwd", &path).expect("linked");
    assert!(volume.layers().is_err());
    fs::remove_file(&path).expect("removed");
    fs::write(&path, &good).expect("written");
    let raw = fs::OpenOptions::new().write(true).open(world.folder().join("data.raw"));
    raw.expect("opened").write_all_at(&good[..512], 0).expect("written");
    volume.merge().expect("merged");
    assert_eq!(read(&volume)[..512], good[..512], "data is data");
}
