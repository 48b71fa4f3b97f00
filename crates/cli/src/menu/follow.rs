//! Menus that follow their images by themselves: looked at when a compartment is started, whose image
//! may have been updated, rebuilt or rolled back since.
//!
//! Only what was synced once is followed. For others this costs the look for one file.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use casemate_config::Compartment;
use casemate_supervise::prepare::{Target, World};

use super::place::{Place, State};
use crate::failure::Problem;

/// A compartment that was down was started from here: if its menu is of another image, a process is
/// started that syncs it when the guest is up.
pub(crate) fn started(world: &World, target: &Target) {
    // A start does not fail for a menu.
    if matches!(is_due(world, target), Ok(true)) {
        let _ = spawn(world, target.declared());
    }
}

fn is_due(world: &World, target: &Target) -> Result<bool, Problem> {
    let name = target.declared();
    let place = Place::of(world)?;
    let Some(state) = place.state(name)? else { return Ok(false) };
    let image = current_image(world, world.compartment(name)?)?;
    let tried = matches!(target, Target::Fresh { .. }) && state.tried == image;
    // Who has the lock syncs already: it may be this process.
    let due = state.image != image && !tried && state.config == config(world)?;
    Ok(due && place.lock(name, false)?.is_some())
}

/// Whether a menu is of the image that a start would use now.
pub(super) fn is_current(world: &World, name: &str, state: &State) -> bool {
    let Ok(compartment) = world.compartment(name) else { return false };
    current_image(world, compartment).is_ok_and(|image| image == state.image)
}

/// Digest of the image that a start would use now; empty when it is not built.
pub(super) fn current_image(world: &World, compartment: &Compartment) -> Result<String, Problem> {
    let (name, recipe) = world.image_of(compartment)?;
    let image = world.store()?.current_for(&name, &recipe).map_err(|error| {
        Problem::new(format!("could not look at the image `{name}`")).because(&error)
    })?;
    Ok(image.map(|image| image.digest.to_string()).unwrap_or_default())
}

/// The configuration that was named, wherever it is called from.
pub(super) fn config(world: &World) -> Result<Option<std::path::PathBuf>, Problem> {
    Ok(world.named.as_ref().map(std::path::absolute).transpose()?)
}

fn spawn(world: &World, name: &str) -> Result<(), Problem> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("casemate");
    if let Some(config) = config(world)? {
        command.arg("--config").arg(config);
    }
    command.args(["menu", "sync", "--follow", name]).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    // Whoever stays longer than it takes its end.
    std::thread::spawn(move || child.wait());
    Ok(())
}
