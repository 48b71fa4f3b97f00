//! `casemate snapshot`: states of a compartment's volumes, all of them together. Taken also while
//! it runs: then by its supervisor, which has the volumes.

use std::collections::BTreeMap;

use casemate_config::Compartment;
use casemate_host::clock;
use casemate_supervise::prepare::World;
use casemate_volume::{LockedVolume, SnapshotName, VolumeError, take_together};

use crate::arguments::{NameJson, Snapshot};
use crate::failure::Problem;
use crate::show::mebibytes;
use crate::{event_loop, lifecycle, print_json, running};

/// `casemate snapshot …`.
pub(crate) fn snapshot(world: &World, command: &Snapshot) -> Result<u8, Problem> {
    match command {
        Snapshot::Create { name, memory: true, .. } => {
            let problem = Problem::new(not_kept(name))
                .hint("without --memory its volumes are kept, all at one moment");
            let cause = "this version cannot keep the memory of a guest".into();
            Err(Problem { causes: vec![cause], ..problem })
        }
        Snapshot::Create { name, snapshot, .. } => create(world, name, snapshot.as_deref()),
        Snapshot::List(arguments) => list(world, arguments),
        Snapshot::Revert { name, snapshot } => revert(world, name, snapshot),
        Snapshot::Delete { name, snapshot } => delete(world, name, snapshot),
        Snapshot::DiffSize { name, snapshot } => diff_size(world, name, snapshot),
    }
}

fn named(text: &str) -> Result<SnapshotName, Problem> {
    text.parse().map_err(|error| Problem::new("could not use the snapshot").because(&error))
}

/// The volumes of a compartment, taken. One that was never made has no state to keep.
fn take(world: &World, name: &str) -> Result<Vec<LockedVolume>, Problem> {
    let compartment = world.compartment(name)?;
    let volumes = world.volumes()?;
    let mut taken = Vec::new();
    for volume in &compartment.volumes {
        match volumes.lock(&compartment.name, &volume.name) {
            Ok(locked) => taken.push(locked),
            Err(VolumeError::NotThere(_)) => {}
            Err(error) => return Err(in_use(compartment, error)),
        }
    }
    if taken.is_empty() {
        return Err(Problem::new(format!("compartment `{name}` has no volumes yet"))
            .hint("they are made at its first start, where its file declares any"));
    }
    Ok(taken)
}

fn in_use(compartment: &Compartment, error: VolumeError) -> Problem {
    let name = &compartment.name;
    let problem = Problem::new(format!("could not take the volumes of `{name}`")).because(&error);
    match error {
        VolumeError::InUse { .. } => problem.hint(format!("run: casemate stop {name}")),
        _ => problem,
    }
}

fn create(world: &World, name: &str, snapshot: Option<&str>) -> Result<u8, Problem> {
    let snapshot = match snapshot {
        Some(text) => named(text)?,
        None => named(&clock::stamp(clock::now_ns() / 1_000_000_000))?,
    };
    world.compartment(name)?;
    if let Some(notes) = event_loop()?.block_on(lifecycle::snapshot(world, name, &snapshot))? {
        crate::say_notes(&notes);
        outln!("snapshot {snapshot} of `{name}` is taken");
        return Ok(0);
    }
    let mut volumes = take(world, name)?;
    take_together(&mut volumes.iter_mut().collect::<Vec<_>>(), &snapshot, false)
        .map_err(failed(not_kept(name)))?;
    outln!("snapshot {snapshot} of `{name}` is taken");
    Ok(0)
}

fn list(world: &World, arguments: &NameJson) -> Result<u8, Problem> {
    let name = &arguments.name;
    let compartment = world.compartment(name)?;
    let listed = world
        .volumes()?
        .list(&world.identity()?)
        .map_err(|error| Problem::new("could not list the volumes").because(&error))?;
    // By snapshot, so that one of all volumes is one line.
    let mut found: BTreeMap<(u64, String), Vec<String>> = BTreeMap::new();
    for volume in listed.iter().filter(|volume| volume.id.compartment == compartment.name) {
        for snapshot in volume.state.iter().flat_map(|summary| &summary.snapshots) {
            let key = (snapshot.taken, snapshot.name.to_string());
            found.entry(key).or_default().push(volume.id.volume.to_string());
        }
    }
    if arguments.json {
        let rows: Vec<_> = found
            .iter()
            .map(|((taken, name), volumes)| {
                serde_json::json!({ "snapshot": name, "taken": taken, "volumes": volumes })
            })
            .collect();
        return print_json(&rows);
    }
    outln!("{:<28}  {:>8}  VOLUMES", "SNAPSHOT", "AGE");
    let now = clock::now_ns() / 1_000_000_000;
    for ((taken, name), volumes) in found {
        let age = now.saturating_sub(taken);
        outln!("{name:<28}  {:>7}s  {}", age, volumes.join(", "));
    }
    Ok(0)
}

fn revert(world: &World, name: &str, snapshot: &str) -> Result<u8, Problem> {
    let snapshot = named(snapshot)?;
    world.compartment(name)?;
    if running::is_known(world, name) {
        eprintln!("note: compartment `{name}` is running; it is stopped first");
        event_loop()?.block_on(lifecycle::stop_one(world, name, false))?;
    }
    let mut volumes = with_snapshot(take(world, name)?, name, &snapshot)?;
    for volume in &mut volumes {
        volume.revert(&snapshot).map_err(failed(format!("could not go back to {snapshot}")))?;
    }
    outln!("compartment `{name}` is back at {snapshot}");
    Ok(0)
}

fn delete(world: &World, name: &str, snapshot: &str) -> Result<u8, Problem> {
    let snapshot = named(snapshot)?;
    for volume in &mut with_snapshot(take(world, name)?, name, &snapshot)? {
        let deleted = volume.delete_snapshot(&snapshot);
        deleted.map_err(failed(format!("could not delete the snapshot {snapshot}")))?;
    }
    outln!("snapshot {snapshot} of `{name}` is deleted");
    Ok(0)
}

fn diff_size(world: &World, name: &str, snapshot: &str) -> Result<u8, Problem> {
    let snapshot = named(snapshot)?;
    for volume in &with_snapshot(take(world, name)?, name, &snapshot)? {
        let bytes = volume.diff_size(&snapshot).map_err(failed("could not look".into()))?;
        outln!("{:<28}  {}", volume.id().to_string(), mebibytes(bytes));
    }
    Ok(0)
}

/// What a snapshot that was not taken is called.
pub(crate) fn not_kept(name: &str) -> String {
    format!("could not keep the state of `{name}`")
}

/// Those volumes that have the snapshot; a volume declared later has none.
fn with_snapshot(
    volumes: Vec<LockedVolume>,
    name: &str,
    snapshot: &SnapshotName,
) -> Result<Vec<LockedVolume>, Problem> {
    let has = |volume: &LockedVolume| volume.snapshots().iter().any(|one| one.name == *snapshot);
    let found: Vec<LockedVolume> = volumes.into_iter().filter(has).collect();
    if found.is_empty() {
        return Err(Problem::new(format!("compartment `{name}` has no snapshot `{snapshot}`"))
            .hint(format!("casemate snapshot list {name} shows those there are")));
    }
    Ok(found)
}

fn failed(what: String) -> impl Fn(VolumeError) -> Problem {
    move |error| Problem::new(what.clone()).because(&error)
}
