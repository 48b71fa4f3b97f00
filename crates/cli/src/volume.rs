//! `casemate volume`: encrypted disks, while no compartment runs with them.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::str::FromStr;

use casemate_config::{CompartmentName, Volume as Declared, VolumeName};
use casemate_supervise::prepare::World;
use casemate_volume::{Listed, Secret, Summary, Unlock, VolumeError};

use crate::arguments::{Json, Volume};
use crate::failure::Problem;
use crate::show::{mebibytes, size_of};
use crate::{audit, passphrase, print_json};

/// Stands for standard input or output.
const STANDARD: &str = "-";

/// `casemate volume …`.
pub(crate) fn volume(world: &World, command: &Volume) -> Result<u8, Problem> {
    match command {
        Volume::List(form) => list(world, *form),
        Volume::Create { volume } => create(world, volume),
        Volume::Resize { volume } => resize(world, volume),
        Volume::Delete { yes, volume } => delete(world, volume, *yes),
        Volume::Export { volume, file } => export(world, volume, file),
        Volume::Import { file, volume } => import(world, file, volume),
    }
}

/// Both parts of COMPARTMENT/VOLUME.
fn named(text: &str) -> Result<(CompartmentName, VolumeName), Problem> {
    of_compartment(text, "volume")
}

/// Both parts of the name of a volume or a secret.
pub(crate) fn of_compartment<T: FromStr>(
    text: &str,
    kind: &str,
) -> Result<(CompartmentName, T), Problem> {
    let parts = text
        .split_once('/')
        .and_then(|(compartment, name)| Some((compartment.parse().ok()?, name.parse().ok()?)));
    parts.ok_or_else(|| {
        let form = kind.to_uppercase();
        Problem::new(format!("`{text}` is no name of a {kind}"))
            .hint(format!("give COMPARTMENT/{form}; `casemate {kind} list` shows them"))
    })
}

/// What the configuration says of a volume.
fn declared<'w>(
    world: &'w World,
    (compartment, volume): &(CompartmentName, VolumeName),
) -> Result<&'w Declared, Problem> {
    let volumes = &world.compartment(compartment.as_str())?.volumes;
    volumes.iter().find(|declared| declared.name == *volume).ok_or_else(|| {
        Problem::new(format!("compartment `{compartment}` declares no volume `{volume}`"))
            .hint(format!("add it as [[compartment.{compartment}.volumes]]"))
    })
}

fn failed(what: String) -> impl Fn(VolumeError) -> Problem {
    move |error| Problem::new(what.clone()).because(&error)
}

fn list(world: &World, form: Json) -> Result<u8, Problem> {
    let found = world
        .volumes()?
        .list(&world.identity()?)
        .map_err(failed("could not list the volumes".into()))?;
    let missing: Vec<String> = world
        .settings()
        .compartments
        .values()
        .flat_map(|compartment| {
            compartment.volumes.iter().map(move |volume| (&compartment.name, volume))
        })
        .filter(|(name, volume)| {
            !found.iter().any(|one| one.id.compartment == **name && one.id.volume == volume.name)
        })
        .map(|(name, volume)| format!("{name}/{}", volume.name))
        .collect();
    if form.json {
        let mut rows: Vec<_> = found.iter().map(row).collect();
        rows.extend(
            missing.iter().map(|id| serde_json::json!({"volume": id, "state": "not made"})),
        );
        return print_json(&rows);
    }
    outln!("{:<28}  {:>10}  {:>10}  {:<10}  SNAPSHOTS", "VOLUME", "SIZE", "ON DISK", "STATE");
    let mut warnings = Vec::new();
    for Listed { id, state } in &found {
        match state {
            Ok(summary) => {
                outln!(
                    "{:<28}  {:>10}  {:>10}  {:<10}  {}",
                    id.to_string(),
                    mebibytes(summary.size),
                    mebibytes(summary.allocated),
                    state_of(summary),
                    summary.snapshots.len()
                );
                let warning = summary.protection.and_then(|protection| protection.warning());
                warnings.extend(warning.map(|warning| format!("{id}: {warning}")));
            }
            Err(error) => {
                outln!("{:<28}  {:>10}  {:>10}  {:<10}", id.to_string(), "", "", "damaged");
                warnings.push(format!("{id}: {error}"));
            }
        }
    }
    for id in missing {
        outln!("{id:<28}  {:>10}  {:>10}  {:<10}", "", "", "not made");
    }
    crate::say_notes(&warnings);
    Ok(0)
}

fn state_of(summary: &Summary) -> &'static str {
    if summary.holder.is_some() { "in use" } else { "free" }
}

fn row(listed: &Listed) -> serde_json::Value {
    let volume = listed.id.to_string();
    match &listed.state {
        Ok(summary) => serde_json::json!({
            "volume": volume,
            "state": state_of(summary),
            "size": summary.size,
            "allocated": summary.allocated,
            "created": summary.created,
            "holder": summary.holder.map(|holder| holder.pid),
            "warning": summary.protection.and_then(|protection| protection.warning()),
            "snapshots": summary.snapshots.len(),
        }),
        Err(error) => serde_json::json!({
            "volume": volume,
            "state": "damaged",
            "reason": error.to_string(),
        }),
    }
}

fn create(world: &World, text: &str) -> Result<u8, Problem> {
    let id = named(text)?;
    let declared = declared(world, &id)?;
    let typed = (declared.key == casemate_config::KeySource::Passphrase)
        .then(|| passphrase::passphrase(text, true))
        .transpose()?
        .map(|typed| Secret::new(typed.into_bytes()));
    let identity = world.identity()?;
    let unlock = Unlock { passphrase: typed.as_ref(), identity: &identity };
    let made = world.volumes()?.create(&id.0, declared, &unlock);
    made.map_err(failed(format!("could not make the volume {text}")))?;
    audit::note(world, audit::of_volume(&id, "volume-created"));
    outln!("volume {text} is made");
    Ok(0)
}

fn resize(world: &World, text: &str) -> Result<u8, Problem> {
    let id = named(text)?;
    let size = declared(world, &id)?.size;
    let problem = failed(format!("could not grow the volume {text}"));
    let mut locked = world.volumes()?.lock(&id.0, &id.1).map_err(&problem)?;
    let before = locked.size();
    locked.resize(size).map_err(&problem)?;
    if before == locked.size() {
        outln!("volume {text} has that size already: {}", mebibytes(before));
    } else {
        audit::note(world, audit::of_volume(&id, "volume-resized").with("bytes", locked.size()));
        outln!(
            "volume {text} has {} now; its file system grows at the next start",
            mebibytes(locked.size())
        );
    }
    Ok(0)
}

fn delete(world: &World, text: &str, yes: bool) -> Result<u8, Problem> {
    let id = named(text)?;
    if !yes {
        if !io::stdin().is_terminal() {
            return Err(Problem::new(format!("deleting {text} cannot be undone"))
                .hint("give --yes if that is what you want"));
        }
        eprint!("Delete the volume {text} with its snapshots? Nothing brings it back. [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            outln!("nothing was deleted");
            return Ok(1);
        }
    }
    let deleted = world.volumes()?.delete(&id.0, &id.1);
    deleted.map_err(failed(format!("could not delete the volume {text}")))?;
    audit::note(world, audit::of_volume(&id, "volume-deleted"));
    outln!("volume {text} is deleted");
    Ok(0)
}

fn export(world: &World, text: &str, file: &Path) -> Result<u8, Problem> {
    let id = named(text)?;
    let problem = failed(format!("could not export the volume {text}"));
    let locked = world.volumes()?.lock(&id.0, &id.1).map_err(&problem)?;
    if file == Path::new(STANDARD) {
        if io::stdout().is_terminal() {
            return Err(Problem::new("standard output is a terminal, the archive is binary")
                .hint("name a file, or redirect the output"));
        }
        locked.export(io::stdout().lock()).map_err(&problem)?;
        return Ok(0);
    }
    let out = File::create_new(file).map_err(|error| {
        Problem::new(format!("could not make {}", file.display()))
            .because(&error)
            .hint("name a file that is not there yet")
    })?;
    let mut buffered = BufWriter::new(&out);
    let written = locked.export(&mut buffered).map_err(&problem).and_then(|()| {
        buffered.flush()?;
        Ok(out.sync_all()?)
    });
    if written.is_err() {
        // The first error says more.
        let _ = fs::remove_file(file);
    }
    written?;
    eprintln!("volume {text} is in {} ({})", file.display(), mebibytes(size_of(file)));
    Ok(0)
}

fn import(world: &World, file: &Path, text: &str) -> Result<u8, Problem> {
    let id = named(text)?;
    let key = &declared(world, &id)?.key;
    let volumes = world.volumes()?;
    let imported = if file == Path::new(STANDARD) {
        volumes.import(&id.0, &id.1, key, io::stdin().lock())
    } else {
        let archive = File::open(file).map_err(|error| {
            Problem::new(format!("could not open {}", file.display())).because(&error)
        })?;
        volumes.import(&id.0, &id.1, key, BufReader::new(archive))
    };
    imported.map_err(failed(format!("could not import the volume {text}")))?;
    audit::note(world, audit::of_volume(&id, "volume-imported"));
    outln!("volume {text} is imported");
    Ok(0)
}
