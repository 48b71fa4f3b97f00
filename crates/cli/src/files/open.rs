//! `casemate open`: a file or an address, shown by another compartment. A file that was changed there
//! comes back into its place.

use std::path::Path;

use casemate_audit::Event;
use casemate_files::{Original, Replaced, url};
use casemate_supervise::prepare::{Target, World};
use casemate_wire::Service;
use casemate_wire::text::harmless_line;

use super::taker::{Taker, What};
use super::{confirm, frames, prepare, send, service, session};
use crate::arguments::Open;
use crate::failure::Problem;
use crate::{audit, run};

/// `casemate open --in NAME FILE`.
pub(crate) fn open(world: &World, arguments: &Open, verbose: bool) -> Result<u8, Problem> {
    let compartment = world.compartment(&arguments.name)?;
    let target = match compartment.disposable_template {
        true => run::fresh(world, &arguments.name)?,
        false => Target::Declared(arguments.name.clone()),
    };
    match arguments.what.split_once("://") {
        Some(_) if !Path::new(&arguments.what).exists() => {
            open_address(world, &target, &arguments.what, verbose)
        }
        _ => open_file(world, &target, arguments, verbose),
    }
}

fn open_address(world: &World, target: &Target, text: &str, verbose: bool) -> Result<u8, Problem> {
    let address = url::check(text).map_err(|error| Problem {
        code: 2,
        ..Problem::new(format!("could not open {}", harmless_line(text, 200))).because(&error)
    })?;
    let name = target.name();
    let wanted = service("casemate.OpenURL", "", &name);
    let socket = session::open(world, target, &wanted, verbose)?;
    frames::send(&socket, casemate_wire::Kind::Stdin, address.as_bytes())?;
    let taker = Taker::start(&What::Reply, &socket, None)?;
    frames::send(&socket, casemate_wire::Kind::Stdin, &[])?;
    drop(socket);
    let done = taker.done();
    audit::note(world, Event::of(&name, "open").with("what", "address"));
    let done = done?;
    if done.code == Some(0) {
        return Ok(0);
    }
    let mut problem = Problem::new(format!("`{name}` did not open the address"));
    let said = [done.said.trim_end().to_owned(), done.problem.unwrap_or_default()];
    let said = said.into_iter().find(|text| !text.is_empty());
    problem.causes.extend(said.map(|text| harmless_line(&text, 1024)));
    Err(problem)
}

fn open_file(
    world: &World,
    target: &Target,
    arguments: &Open,
    verbose: bool,
) -> Result<u8, Problem> {
    let name = target.name();
    let path = Path::new(&arguments.what);
    let failed = |error: std::io::Error| {
        Problem::new(format!("could not open {}", path.display())).because(&error)
    };
    let mut original = Original::open(path).map_err(failed)?;
    let sender = prepare(&[path.to_path_buf()], false)?;
    let bytes = sender.survey().bytes;
    let argument = if arguments.view_only { "view-only" } else { "" };
    let wanted = service("casemate.OpenInVM", argument, &name);
    let socket = session::open(world, target, &wanted, verbose)?;
    let temporary = original.temporary().map_err(failed)?;
    let file = temporary.try_clone().map_err(failed)?;
    let what = What::Single { bytes: original.limit() };
    let mut taker = Taker::start(&what, &socket, Some(file))?;
    let heard = send(sender, &socket, &mut taker);
    let confirmed = confirm(&name, heard.0, heard.1);
    let event = Event::of(&name, "open").with("what", "file").with("bytes", bytes);
    if let Err(problem) = confirmed {
        audit::note(world, event.with("opened", false));
        return Err(problem);
    }
    // Until whoever shows it has ended.
    let done = taker.done();
    let back = !arguments.view_only && done.as_ref().is_ok_and(|done| done.came);
    audit::note(
        world,
        event.with("from", Service::HOST).with("opened", true).with("returned", back),
    );
    let done = done?;
    if let Some(why) = done.problem {
        let problem =
            Problem::new(format!("`{name}` did not open the file, or lost what became of it"));
        let causes = [why, done.said].map(|text| harmless_line(text.trim_end(), 1024));
        let causes = causes.into_iter().filter(|text| !text.is_empty()).collect();
        return Err(Problem { causes, ..problem });
    }
    if back {
        let replaced = original.replace(&temporary).map_err(|error| {
            Problem::new(format!("could not put what `{name}` made of {} there", path.display()))
                .because(&error)
        })?;
        match replaced {
            Replaced::Original => eprintln!("note: {} was changed in `{name}`", path.display()),
            Replaced::Beside(other) => eprintln!(
                "note: {} was changed here, too; what `{name}` made of it is `{other}` beside it",
                path.display()
            ),
        }
    }
    Ok(0)
}
