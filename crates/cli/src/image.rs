//! `casemate image`, and building an image that a start needs.

use casemate_image::{ImageName, Phase, Progress as Step, Recipe};
use casemate_supervise::prepare::{Target, World};

use crate::arguments::{Image, Json, NameJson};
use crate::failure::Problem;
use crate::print_json;
use crate::show::{mebibytes, short, size_of};

/// `casemate image …`.
pub(crate) fn image(world: &World, command: &Image) -> Result<u8, Problem> {
    match command {
        Image::Build { force, name } => {
            let (name, recipe) = declared(world, name)?;
            build_if_needed(world, &name, &recipe, *force, true)?;
            Ok(0)
        }
        Image::List(form) => list(world, *form),
        Image::Show(arguments) => show(world, arguments),
    }
}

/// Builds the image of a compartment that is about to start, if it is not there.
pub(crate) fn ensure(world: &World, target: &Target) -> Result<(), Problem> {
    let name = match target {
        Target::Declared(name) => name,
        Target::Fresh { template, .. } => template,
    };
    let (name, recipe) = world.image_of(world.compartment(name)?)?;
    build_if_needed(world, &name, &recipe, false, false)
}

fn declared(world: &World, name: &str) -> Result<(ImageName, Recipe), Problem> {
    world.image_recipe(name).map_err(Problem::from)
}

fn build_if_needed(
    world: &World,
    name: &ImageName,
    recipe: &Recipe,
    force: bool,
    say_if_there: bool,
) -> Result<(), Problem> {
    let store = world.store()?;
    let there = store.current_for(name, recipe).map_err(|error| {
        Problem::new(format!("could not look at the image `{name}`")).because(&error)
    })?;
    if let Some(image) = there
        && !force
    {
        if say_if_there {
            outln!("image `{name}` is up to date: {}", short(&image.digest.to_string()));
        }
        return Ok(());
    }
    let mut display = Display::new(name.as_str());
    let built = store.build(name, recipe, &mut |step| display.show(&step));
    display.end();
    let image = built.map_err(|error| {
        let problem = Problem::new(format!("could not build the image `{name}`")).because(&error);
        if error.is_disk_full() {
            problem.hint("make room on the file system of the image store, then run it again")
        } else {
            problem
        }
    })?;
    eprintln!(
        "image `{name}` is built: {} ({})",
        short(&image.digest.to_string()),
        mebibytes(size_of(&image.root()))
    );
    Ok(())
}

/// Shows how a build goes: one line that changes on a terminal, one line a phase in a log.
struct Display {
    name: String,
    live: bool,
    phase: Option<Phase>,
    begin: std::time::Instant,
}

impl Display {
    fn new(name: &str) -> Self {
        use std::io::IsTerminal;
        Self {
            name: name.into(),
            live: std::io::stderr().is_terminal(),
            phase: None,
            begin: std::time::Instant::now(),
        }
    }

    fn show(&mut self, step: &Step) {
        let changed = self.phase != Some(step.phase);
        self.phase = Some(step.phase);
        let seconds = self.begin.elapsed().as_secs();
        if !self.live {
            if changed {
                eprintln!("image `{}`: {} ({seconds} s)", self.name, step.phase);
            }
            return;
        }
        let bar = step.fraction.map_or_else(String::new, |fraction| {
            let full = (fraction * 20.0).round() as usize;
            format!(" [{:<20}]", "=".repeat(full.min(20)))
        });
        let subject = step.subject.as_deref().unwrap_or_default();
        let subject: String = subject.chars().filter(|c| !c.is_control()).take(30).collect();
        eprint!("\r\x1b[Kimage `{}`: {}{bar} {subject} ({seconds} s)", self.name, step.phase);
        use std::io::Write;
        let _ = std::io::stderr().flush();
    }

    fn end(&mut self) {
        if self.live {
            eprint!("\r\x1b[K");
        }
    }
}

fn list(world: &World, form: Json) -> Result<u8, Problem> {
    let store = world.store()?;
    let mut rows = Vec::new();
    for name in world.settings().images.keys() {
        let Ok((name, recipe)) = declared(world, name.as_str()) else { continue };
        let failed = |error: casemate_image::StoreError| {
            Problem::new(format!("could not look at the image `{name}`")).because(&error)
        };
        let image = store.current(&name).map_err(failed)?;
        let current = store.current_for(&name, &recipe).map_err(failed)?.is_some();
        rows.push(serde_json::json!({
            "name": name.to_string(),
            "digest": image.as_ref().map(|image| image.digest.to_string()),
            "up-to-date": current,
            "root-bytes": image.as_ref().map(|image| size_of(&image.root())),
        }));
    }
    if form.json {
        return print_json(&rows);
    }
    outln!("{:<20}  {:<16}  {:<10}  SIZE", "NAME", "DIGEST", "STATE");
    for row in rows {
        let digest = row["digest"].as_str().map_or("-", short);
        let state = match (row["digest"].is_null(), row["up-to-date"].as_bool()) {
            (true, _) => "not built",
            (_, Some(true)) => "up to date",
            _ => "outdated",
        };
        let size = row["root-bytes"].as_u64().map_or_else(String::new, mebibytes);
        outln!("{:<20}  {digest:<16}  {state:<10}  {size}", row["name"].as_str().unwrap_or("-"));
    }
    Ok(0)
}

fn show(world: &World, arguments: &NameJson) -> Result<u8, Problem> {
    let (name, _) = declared(world, &arguments.name)?;
    let failed = |error: casemate_image::StoreError| {
        Problem::new(format!("could not look at the image `{name}`")).because(&error)
    };
    let Some(image) = world.store()?.current(&name).map_err(failed)? else {
        return Err(Problem::new(format!("the image `{name}` is not built"))
            .hint(format!("run: casemate image build {name}")));
    };
    let value = serde_json::json!({
        "name": name.to_string(),
        "digest": image.digest.to_string(),
        "directory": image.directory,
        "manifest": image.manifest,
    });
    if arguments.json {
        return print_json(&value);
    }
    outln!("{name}");
    outln!("  digest     {}", image.digest);
    outln!("  directory  {}", image.directory.display());
    outln!("  root       {}", mebibytes(size_of(&image.root())));
    outln!(
        "  kernel     {} ({})",
        image.manifest.kernel_release,
        mebibytes(size_of(&image.kernel()))
    );
    outln!("  packages   {}", image.manifest.packages.len());
    Ok(0)
}
