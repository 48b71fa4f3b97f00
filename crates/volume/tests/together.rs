//! Snapshots of two volumes at one moment: both have it or none, whatever was killed when, and
//! nothing that was written is lost.

mod common;

use std::path::PathBuf;

use casemate_config::{Volume, VolumeName};
use casemate_volume::{
    LockedVolume, VolumeError, drop_prepared, keep_prepared, prepare, take_together,
};
use common::{AGE, World, banking, disk_with, home, read, snapshot, world, write, write_to};

const NAMES: [&str; 2] = ["home", "mail"];

fn named(name: &str) -> VolumeName {
    name.parse().expect("a name")
}

fn lock(world: &World, name: &str) -> LockedVolume {
    world.volumes.lock(&banking(), &named(name)).expect("locked")
}

/// Two volumes of 1 MiB in which byte 0 is 1.
fn made(world: &World) -> [LockedVolume; 2] {
    NAMES.map(|name| {
        let volume = Volume { name: named(name), ..home(1, world.age()) };
        world.volumes.create(&banking(), &volume, &world.unlock(None)).expect("created");
        let volume = lock(world, name);
        write(&volume, &[(0, 4096, 1)]);
        volume
    })
}

fn both(volumes: &mut [LockedVolume; 2]) -> [&mut LockedVolume; 2] {
    let [one, other] = volumes;
    [one, other]
}

fn has(volume: &LockedVolume, name: &str) -> bool {
    volume.snapshots().iter().any(|one| one.name == snapshot(name))
}

/// What the guest has written since the snapshot was prepared, by volume.
type Written = [bool; 2];

/// Everything is killed after the guest wrote so; then the volumes are taken in this order.
fn killed(written: Written, first_kept: bool, order: [usize; 2]) {
    let Some(world) = world(AGE) else { return };
    let mut volumes = made(&world);
    let layers = prepare(&mut both(&mut volumes), &snapshot("a"), false).expect("prepared");
    let write_some = |index: usize, volume: &LockedVolume, layers: &[PathBuf]| {
        write_to(disk_with(volume, Some(&layers[index])), &[(0, 4096, 2)]);
    };
    for index in 0..2 {
        if written[index] {
            write_some(index, &volumes[index], &layers);
        }
    }
    if first_kept {
        keep_prepared(&mut [&mut volumes[0]]).expect("kept");
    }
    drop(volumes);
    let taken = first_kept || written != [false, false];
    for index in order {
        let mut volume = lock(&world, NAMES[index]);
        assert_eq!(has(&volume, "a"), taken, "{written:?} {first_kept} {index}");
        assert_eq!(read(&volume)[0], 1 + u8::from(written[index]), "nothing is lost");
        // What is written now is not of the snapshot.
        write(&volume, &[(0, 4096, 3)]);
        if taken {
            volume.revert(&snapshot("a")).expect("reverted");
            assert_eq!(read(&volume)[0], 1);
        } else {
            let files = world.files();
            let here = format!("/{}/", NAMES[index]);
            let layer = |path: &&String| path.contains(&here) && path.ends_with(".qcow2");
            assert_eq!(files.iter().filter(layer).count(), 0, "{files:?}");
        }
    }
}

#[test]
fn both_or_none_have_a_snapshot_after_a_kill_at_any_moment() {
    for written in [[false, false], [true, false], [false, true], [true, true]] {
        for first_kept in [false, true] {
            for order in [[0, 1], [1, 0]] {
                killed(written, first_kept, order);
            }
        }
    }
}

#[test]
fn a_snapshot_that_is_kept_or_dropped_leaves_nothing_prepared() {
    let Some(world) = world(AGE) else { return };
    let mut volumes = made(&world);
    prepare(&mut both(&mut volumes), &snapshot("a"), false).expect("prepared");
    let twice = prepare(&mut both(&mut volumes), &snapshot("b"), false);
    assert!(matches!(twice, Err(VolumeError::SnapshotUnfinished(_))), "{twice:?}");
    drop_prepared(&mut both(&mut volumes)).expect("dropped");
    assert!(!has(&volumes[0], "a") && !has(&volumes[1], "a"));
    take_together(&mut both(&mut volumes), &snapshot("a"), false).expect("taken");
    assert!(has(&volumes[0], "a") && has(&volumes[1], "a"));
    for volume in &volumes {
        assert_eq!(read(volume)[0], 1);
        assert_eq!(volume.layers().expect("layers").len(), 2);
    }
}

#[test]
fn a_name_one_of_them_has_makes_no_snapshot_of_any() {
    let Some(world) = world(AGE) else { return };
    let mut volumes = made(&world);
    volumes[1].take_snapshot(&snapshot("a"), false).expect("taken");
    let before = world.files();
    let refused = take_together(&mut both(&mut volumes), &snapshot("a"), false);
    assert!(matches!(refused, Err(VolumeError::SnapshotExists { .. })), "{refused:?}");
    assert!(!has(&volumes[0], "a"));
    assert_eq!(world.files(), before);
    // Nothing of it is in the way.
    take_together(&mut both(&mut volumes), &snapshot("b"), false).expect("taken");
}
