//! `casemate snapshot`: states of a compartment's volumes, all of them together. Taken also while
//! it runs: then by its supervisor, which has the volumes.

use std::collections::BTreeMap;

use casemate_config::Compartment;
use casemate_host::clock;
use casemate_supervise::prepare::World;
use casemate_volume::memory::Record;
use casemate_volume::{
    LockedVolume, Memories, Protection, SnapshotName, VolumeError, take_together,
};

use crate::arguments::{NameJson, Snapshot};
use crate::failure::Problem;
use crate::show::mebibytes;
use crate::{event_loop, lifecycle, print_json, running};

/// `casemate snapshot …`.
pub(crate) fn snapshot(world: &World, command: &Snapshot) -> Result<u8, Problem> {
    match command {
        Snapshot::Create { name, snapshot, memory } => {
            create(world, name, snapshot.as_deref(), *memory)
        }
        Snapshot::List(arguments) => list(world, arguments),
        Snapshot::Revert { name, snapshot, without_memory } => {
            revert(world, name, snapshot, !without_memory)
        }
        Snapshot::Delete { name, snapshot } => delete(world, name, snapshot),
        Snapshot::DiffSize { name, snapshot } => diff_size(world, name, snapshot),
    }
}

fn named(text: &str) -> Result<SnapshotName, Problem> {
    text.parse().map_err(|error| Problem::new("could not use the snapshot").because(&error))
}

/// The volumes of a compartment, taken; there must be one.
fn take(world: &World, name: &str) -> Result<Vec<LockedVolume>, Problem> {
    let taken = locked(world, name)?;
    if taken.is_empty() {
        return Err(Problem::new(format!("compartment `{name}` has no volumes yet"))
            .hint("they are made at its first start, where its file declares any"));
    }
    Ok(taken)
}

/// The volumes of a compartment, taken. One that was never made has no state to keep.
fn locked(world: &World, name: &str) -> Result<Vec<LockedVolume>, Problem> {
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

fn create(world: &World, name: &str, snapshot: Option<&str>, memory: bool) -> Result<u8, Problem> {
    let snapshot = match snapshot {
        Some(text) => named(text)?,
        None => named(&clock::stamp(clock::now_ns() / 1_000_000_000))?,
    };
    world.compartment(name)?;
    let taken = lifecycle::snapshot(world, name, &snapshot, memory);
    if let Some(notes) = event_loop()?.block_on(taken)? {
        crate::say_notes(&notes);
        if memory {
            warn_of_identity(world, name)?;
        }
        let what = if memory { ", with its memory" } else { "" };
        outln!("snapshot {snapshot} of `{name}` is taken{what}");
        return Ok(0);
    }
    if memory {
        let problem = Problem::new(not_kept(name)).hint(format!("run: casemate start {name}"));
        let cause = "it is not running, so it has no memory".into();
        return Err(Problem { causes: vec![cause], ..problem });
    }
    let mut volumes = take(world, name)?;
    take_together(&mut volumes.iter_mut().collect::<Vec<_>>(), &snapshot, false)
        .map_err(failed(not_kept(name)))?;
    outln!("snapshot {snapshot} of `{name}` is taken");
    Ok(0)
}

/// Says when a memory, and with it keys that a passphrase protects elsewhere, can be read by whoever has
/// the disk.
fn warn_of_identity(world: &World, name: &str) -> Result<(), Problem> {
    let memories = world.memories(world.compartment(name)?)?;
    let protection = memories.protection(&world.identity()?);
    if protection.is_ok_and(|protection| protection == Protection::DeletionOnly) {
        eprintln!(
            "note: the age identity lies unprotected on the same file system: who has the disk can \
             read the memory, and the keys of volumes in it"
        );
    }
    Ok(())
}

/// Snapshots of a compartment by time and name: the volumes that have them, and bytes of memory.
type Kept = BTreeMap<(u64, String), (Vec<String>, Option<u64>)>;

fn kept(world: &World, name: &str) -> Result<Kept, Problem> {
    let compartment = world.compartment(name)?;
    let listed = world
        .volumes()?
        .list(&world.identity()?)
        .map_err(|error| Problem::new("could not list the volumes").because(&error))?;
    // By snapshot, so that one of all volumes is one line.
    let mut found = Kept::new();
    for volume in listed.iter().filter(|volume| volume.id.compartment == compartment.name) {
        for snapshot in volume.state.iter().flat_map(|summary| &summary.snapshots) {
            let key = (snapshot.taken, snapshot.name.to_string());
            found.entry(key).or_default().0.push(volume.id.volume.to_string());
        }
    }
    let memories = world.memories(compartment)?.list().map_err(failed("could not look".into()))?;
    for (snapshot, record) in memories {
        let key = (record.taken, snapshot.to_string());
        let volumes = found.get(&key).map(|(volumes, _)| volumes.as_slice()).unwrap_or_default();
        if record.is_whole(|volume, _| volumes.iter().any(|found| found == volume)) {
            found.entry(key).or_default().1 = Some(record.bytes);
        }
    }
    Ok(found)
}

fn list(world: &World, arguments: &NameJson) -> Result<u8, Problem> {
    let name = &arguments.name;
    let found = kept(world, name)?;
    if arguments.json {
        let rows: Vec<_> = found
            .iter()
            .map(|((taken, name), (volumes, memory))| {
                serde_json::json!({
                    "snapshot": name, "taken": taken, "volumes": volumes, "memory": memory
                })
            })
            .collect();
        return print_json(&rows);
    }
    outln!("{:<28}  {:>8}  {:<10}  VOLUMES", "SNAPSHOT", "AGE", "MEMORY");
    let now = clock::now_ns() / 1_000_000_000;
    for ((taken, name), (volumes, memory)) in found {
        let age = now.saturating_sub(taken);
        let memory = memory.map_or_else(|| "-".to_owned(), mebibytes);
        outln!("{name:<28}  {:>7}s  {memory:<10}  {}", age, volumes.join(", "));
    }
    Ok(0)
}

fn revert(world: &World, name: &str, snapshot: &str, memory: bool) -> Result<u8, Problem> {
    let snapshot = named(snapshot)?;
    let memories = world.memories(world.compartment(name)?)?;
    if running::is_known(world, name) {
        // It is not stopped for nothing.
        if !kept(world, name)?.into_keys().any(|(_, one)| one == snapshot.as_str()) {
            return Err(unknown(name, &snapshot));
        }
        eprintln!("note: compartment `{name}` is running; it is stopped first");
        event_loop()?.block_on(lifecycle::stop_one(world, name, false))?;
    }
    memories.forget_wish().map_err(failed(format!("could not go back to {snapshot}")))?;
    if memory && whole_memory(world, name, &snapshot)?.is_some() {
        return go_on(world, name, &snapshot, &memories);
    }
    let mut volumes = with_snapshot(locked(world, name)?, name, &snapshot)?;
    for volume in &mut volumes {
        volume.revert(&snapshot).map_err(failed(format!("could not go back to {snapshot}")))?;
    }
    outln!("compartment `{name}` is back at {snapshot}");
    Ok(0)
}

/// Starts the compartment so that it goes back to the snapshot and on from its memory.
fn go_on(
    world: &World,
    name: &str,
    snapshot: &SnapshotName,
    memories: &Memories,
) -> Result<u8, Problem> {
    memories.want(snapshot).map_err(failed(format!("could not go back to {snapshot}")))?;
    // One that ends without an answer may have gone back already; the next would boot.
    let started = event_loop()?.block_on(lifecycle::start_one(world, name, false, 0));
    // What is asked for now is not for a later start.
    let left = memories.wanted().ok().flatten().is_some();
    memories.forget_wish().map_err(failed(format!("could not go back to {snapshot}")))?;
    started?;
    if left {
        let what =
            format!("could not go back to {snapshot}: somebody has started `{name}` meanwhile");
        return Err(Problem::new(what).hint("try again: it is stopped first"));
    }
    outln!("compartment `{name}` goes on from {snapshot}, with its memory");
    Ok(0)
}

/// The memory kept with a snapshot whose volumes are there too.
fn whole_memory(
    world: &World,
    name: &str,
    snapshot: &SnapshotName,
) -> Result<Option<Record>, Problem> {
    let found = world.memories(world.compartment(name)?)?.find(snapshot);
    let Some(record) = found.map_err(failed("could not look at its memory".into()))? else {
        return Ok(None);
    };
    if record.volumes.is_empty() {
        return Ok(Some(record));
    }
    let volumes = locked(world, name)?;
    let whole = record.is_whole_with(snapshot, &volumes.iter().collect::<Vec<_>>());
    Ok(whole.then_some(record))
}

fn delete(world: &World, name: &str, snapshot: &str) -> Result<u8, Problem> {
    let snapshot = named(snapshot)?;
    let memories = world.memories(world.compartment(name)?)?;
    let memory = memories.find(&snapshot).map_err(failed("could not look at its memory".into()))?;
    let mut volumes = match &memory {
        None => with_snapshot(locked(world, name)?, name, &snapshot)?,
        // It may be alone: the compartment has no volumes, or had others.
        Some(_) => having(locked(world, name)?, &snapshot),
    };
    // Without the volumes' snapshots it would be of no use.
    if memory.is_some() {
        let deleted = memories.delete(&snapshot);
        deleted.map_err(failed(format!("could not delete the memory of {snapshot}")))?;
    }
    for volume in &mut volumes {
        let deleted = volume.delete_snapshot(&snapshot);
        deleted.map_err(failed(format!("could not delete the snapshot {snapshot}")))?;
    }
    outln!("snapshot {snapshot} of `{name}` is deleted");
    Ok(0)
}

fn diff_size(world: &World, name: &str, snapshot: &str) -> Result<u8, Problem> {
    let snapshot = named(snapshot)?;
    let memory = whole_memory(world, name, &snapshot)?;
    if let Some(record) = &memory {
        outln!("{:<28}  {}", "(memory)", mebibytes(record.bytes));
        if record.volumes.is_empty() {
            return Ok(0);
        }
    }
    for volume in &with_snapshot(locked(world, name)?, name, &snapshot)? {
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
    let found = having(volumes, snapshot);
    if found.is_empty() {
        return Err(unknown(name, snapshot));
    }
    Ok(found)
}

fn unknown(name: &str, snapshot: &SnapshotName) -> Problem {
    Problem::new(format!("compartment `{name}` has no snapshot `{snapshot}`"))
        .hint(format!("casemate snapshot list {name} shows those there are"))
}

fn having(volumes: Vec<LockedVolume>, snapshot: &SnapshotName) -> Vec<LockedVolume> {
    let has = |volume: &LockedVolume| volume.snapshots().iter().any(|one| one.name == *snapshot);
    volumes.into_iter().filter(has).collect()
}

fn failed(what: String) -> impl Fn(VolumeError) -> Problem {
    move |error| Problem::new(what.clone()).because(&error)
}
