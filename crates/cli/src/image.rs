//! `casemate image`, and building an image that a start needs.

use casemate_audit::Event;
use casemate_image::{BuildError, Image as Built, ImageName, Recipe, RootfsError};
use casemate_supervise::prepare::{Target, World};

use crate::arguments::Image;
use crate::audit;
use crate::failure::Problem;
use crate::show::{mebibytes, short, size_of};

mod display;
mod exchange;
mod store;

use display::Display;

/// `casemate image …`.
pub(crate) fn image(world: &World, command: &Image) -> Result<u8, Problem> {
    match command {
        Image::Build { force, name } => {
            let (name, recipe) = declared(world, name)?;
            build_if_needed(world, &name, &recipe, *force, true)?;
            Ok(0)
        }
        Image::List(form) => store::list(world, *form),
        Image::Show(arguments) => store::show(world, arguments),
        Image::Verify { names } => store::verify(world, names),
        Image::Update { name } => update(world, name),
        Image::Rollback { to, name } => store::go_back(world, name, *to),
        Image::Gc { keep, dry_run } => store::collect(world, *keep, *dry_run),
        Image::Export { name, file } => exchange::export(world, name, file),
        Image::Import { rollback, file, name } => exchange::import(world, name, file, *rollback),
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
    let image = build(world, name, recipe)?;
    let built = Event::general("image-built").with("image", name.to_string());
    audit::note(world, built.with("digest", image.digest.to_string()));
    eprintln!(
        "image `{name}` is built: {} ({})",
        short(&image.digest.to_string()),
        mebibytes(size_of(&image.root()))
    );
    Ok(())
}

/// Builds with whatever packages there are today.
fn update(world: &World, name: &str) -> Result<u8, Problem> {
    let (name, recipe) = declared(world, name)?;
    let before = world.store()?.current(&name).ok().flatten();
    let image = build(world, &name, &recipe)?;
    if before.is_some_and(|before| before.digest == image.digest) {
        eprintln!("image `{name}` has nothing new: {}", short(&image.digest.to_string()));
    } else {
        eprintln!("image `{name}` is updated: {}", short(&image.digest.to_string()));
    }
    Ok(0)
}

fn build(world: &World, name: &ImageName, recipe: &Recipe) -> Result<Built, Problem> {
    let store = world.store()?;
    let build_once = || {
        let mut display = Display::new(name.as_str());
        let built = store.build(name, recipe, &mut |step| display.show(&step));
        display.end();
        built
    };
    let mut built = build_once();
    // What has no kernel borrows that of the usual image, which is built now that it is needed.
    if let Err(BuildError::Rootfs(RootfsError::NoKernel { image, .. })) = built
        && name.as_str() != image
    {
        let (lender, recipe) = declared(world, image)?;
        build_if_needed(world, &lender, &recipe, false, false)?;
        built = build_once();
    }
    built.map_err(|error| {
        let problem = Problem::new(format!("could not build the image `{name}`")).because(&error);
        if error.is_disk_full() {
            problem.hint("make room on the file system of the image store, then run it again")
        } else if error.is_imported() {
            problem.hint(format!("run: casemate image import FILE {name}"))
        } else {
            problem
        }
    })
}
