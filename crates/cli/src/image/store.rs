//! Looking at the store of images, and changing what its names point to.

use casemate_audit::Event;
use casemate_image::{Generation, Image, ImageName, Store, StoreError};
use casemate_supervise::prepare::World;
use serde::Serialize;

use crate::arguments::{Json, NameJson};
use crate::audit;
use crate::failure::Problem;
use crate::print_json;
use crate::show::{mebibytes, short, size_of};

/// A generation in a list.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    name: String,
    generation: Option<u32>,
    digest: Option<String>,
    current: bool,
    /// `current`, `kept`, `not built`, `outdated`: the recipe was changed since; `damaged`.
    state: &'static str,
    /// Seconds since 1970.
    created: Option<u64>,
    root_bytes: Option<u64>,
}

/// An image's name, as the user gave it.
pub(super) fn named(name: &str) -> Result<ImageName, Problem> {
    ImageName::new(name)
        .map_err(|error| Problem::new("could not look for the image").because(&error))
}

fn failed(name: &ImageName) -> impl Fn(StoreError) -> Problem {
    let what = format!("could not look at the image `{name}`");
    move |error| Problem::new(what.clone()).because(&error)
}

/// The current generation of an image.
pub(super) fn current(store: &Store, name: &ImageName) -> Result<Image, Problem> {
    store.current(name).map_err(failed(name))?.ok_or_else(|| {
        Problem::new(format!("the image `{name}` is not built"))
            .hint(format!("run: casemate image build {name}"))
    })
}

pub(super) fn list(world: &World, form: Json) -> Result<u8, Problem> {
    let store = world.store()?;
    let mut names = store
        .all_names()
        .map_err(|error| Problem::new("could not list the images").because(&error))?;
    names.extend(
        world.settings().images.keys().filter_map(|name| ImageName::new(name.as_str()).ok()),
    );
    names.sort_unstable();
    names.dedup();
    let mut rows = Vec::new();
    for name in &names {
        rows.extend(rows_of(world, &store, name)?);
    }
    if form.json {
        return print_json(&rows);
    }
    outln!(
        "{:<28}  {:>3}  {:<16}  {:<10}  {:>10}  {:>6}",
        "NAME",
        "GEN",
        "DIGEST",
        "STATE",
        "SIZE",
        "AGE"
    );
    for row in rows {
        outln!(
            "{:<28}  {:>3}  {:<16}  {:<10}  {:>10}  {:>6}",
            row.name,
            row.generation.map_or_else(|| "-".into(), |number| number.to_string()),
            row.digest.as_deref().map_or("-", short),
            row.state,
            row.root_bytes.map_or_else(String::new, mebibytes),
            row.created.map_or_else(String::new, age),
        );
    }
    Ok(0)
}

fn rows_of(world: &World, store: &Store, name: &ImageName) -> Result<Vec<Row>, Problem> {
    let generations = store.generations(name).map_err(failed(name))?;
    let used = store.current_generation(name).map_err(failed(name))?;
    // A name that is not declared belongs to a compartment with `programs`, or to nobody.
    let outdated = world
        .image_recipe(name.as_str())
        .is_ok_and(|(name, recipe)| matches!(store.current_for(&name, &recipe), Ok(None)));
    if generations.is_empty() {
        return Ok(vec![Row {
            name: name.to_string(),
            generation: None,
            digest: None,
            current: false,
            state: "not built",
            created: None,
            root_bytes: None,
        }]);
    }
    let row = |generation: Generation| {
        let image = store.get(generation.image).ok().flatten();
        let current = used == Some(generation.number);
        Row {
            name: name.to_string(),
            generation: Some(generation.number),
            digest: Some(generation.image.to_string()),
            current,
            state: match (&image, current, outdated) {
                (None, _, _) => "damaged",
                (_, true, false) => "current",
                (_, true, true) => "outdated",
                (_, false, _) => "kept",
            },
            created: Some(generation.created),
            root_bytes: image.map(|image| size_of(&image.root())),
        }
    };
    Ok(generations.into_iter().map(row).collect())
}

/// Time since then, in its largest unit.
fn age(created: u64) -> String {
    let now = casemate_host::clock::now_ns() / 1_000_000_000;
    match now.saturating_sub(created) {
        seconds if seconds < 60 => format!("{seconds}s"),
        seconds if seconds < 3600 => format!("{}m", seconds / 60),
        seconds if seconds < 86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

pub(super) fn show(world: &World, arguments: &NameJson) -> Result<u8, Problem> {
    let name = named(&arguments.name)?;
    if let Err(unknown) = world.image_recipe(name.as_str())
        && world.store()?.generations(&name).map_err(failed(&name))?.is_empty()
    {
        return Err(unknown.into());
    }
    let image = current(&world.store()?, &name)?;
    let signed = image.signature().is_file();
    if arguments.json {
        let parts: Vec<_> = image
            .manifest
            .all_parts()
            .map(|part| {
                serde_json::json!({
                    "file": part.file,
                    "size": part.size,
                    "sha256": part.sha256.to_string(),
                })
            })
            .collect();
        return print_json(&serde_json::json!({
            "name": name.to_string(),
            "digest": image.digest.to_string(),
            "directory": image.directory,
            "parts": parts,
            "signed": signed,
            "manifest": image.manifest,
        }));
    }
    let manifest = &image.manifest;
    outln!("{name}");
    outln!("  digest     {}", image.digest);
    outln!("  directory  {}", image.directory.display());
    outln!("  root       {}", mebibytes(size_of(&image.root())));
    outln!("  root hash  {}", manifest.verity.root_hash);
    outln!("  kernel     {} ({})", manifest.kernel_release, mebibytes(size_of(&image.kernel())));
    outln!("  packages   {}", manifest.packages.len());
    outln!("  serial     {}", manifest.serial);
    outln!("  signed     {}", if signed { "yes" } else { "no" });
    Ok(0)
}

pub(super) fn verify(world: &World, names: &[String]) -> Result<u8, Problem> {
    let store = world.store()?;
    let names: Vec<ImageName> = match names {
        [] => store
            .all_names()
            .map_err(|error| Problem::new("could not list the images").because(&error))?,
        names => names.iter().map(|name| named(name)).collect::<Result<_, _>>()?,
    };
    let mut bad = 0;
    for name in &names {
        let generations = store.generations(name).map_err(failed(name))?;
        if generations.is_empty() {
            current(&store, name)?;
        }
        for generation in generations {
            let short = short(&generation.image.to_string()).to_owned();
            match check(world, &store, name, &generation) {
                Ok(signed) => outln!("{name} {} ({short}): good{signed}", generation.number),
                Err(problem) => {
                    bad += 1;
                    outln!("{name} {} ({short}): BAD", generation.number);
                    eprint!("{problem}");
                }
            }
        }
    }
    Ok(if bad == 0 { 0 } else { 1 })
}

/// Checks all bytes of a generation, and its signature where one is asked for.
fn check(
    world: &World,
    store: &Store,
    name: &ImageName,
    generation: &Generation,
) -> Result<&'static str, Problem> {
    let problem = || {
        Problem::new(format!("the image `{name}`, generation {}, is damaged", generation.number))
            .hint(format!(
                "build it anew: casemate image build --force {name}; or go back: casemate image \
                 rollback {name}"
            ))
    };
    let image = store.get(generation.image).map_err(|error| problem().because(&error))?;
    let image =
        image.ok_or_else(|| problem().because(&std::io::Error::other("it is not there")))?;
    image.check_all_parts().map_err(|error| problem().because(&error))?;
    match world.key_of_image(name.as_str()) {
        Some(key) => image.check_signature(key).map(|()| ", signed").map_err(|error| {
            Problem::new(format!("nobody vouches for the image `{name}`")).because(&error)
        }),
        None => Ok(""),
    }
}

pub(super) fn go_back(world: &World, name: &str, to: Option<u32>) -> Result<u8, Problem> {
    let name = named(name)?;
    let generation = world.store()?.go_back(&name, to).map_err(|error| {
        Problem::new(format!("could not go back to another generation of `{name}`"))
            .because(&error)
            .hint("casemate image list shows the generations there are")
    })?;
    let gone_back = Event::general("image-rolled-back").with("image", name.to_string());
    audit::note(world, gone_back.with("digest", generation.image.to_string()));
    outln!(
        "image `{name}` is generation {} now: {}",
        generation.number,
        short(&generation.image.to_string())
    );
    Ok(0)
}

pub(super) fn collect(world: &World, keep: Option<usize>, dry_run: bool) -> Result<u8, Problem> {
    let collected = world
        .store()?
        .collect(keep, dry_run)
        .map_err(|error| Problem::new("could not remove what is not needed").because(&error))?;
    let would = if dry_run { "would be " } else { "" };
    for (name, generation) in &collected.generations {
        outln!("generation {} of `{name}` {would}forgotten", generation.number);
    }
    for digest in &collected.images {
        outln!("image {} {would}removed", short(&digest.to_string()));
    }
    for digest in &collected.in_use {
        outln!("image {} is in use and stays", short(&digest.to_string()));
    }
    outln!("{} {would}freed", mebibytes(collected.bytes));
    Ok(0)
}
