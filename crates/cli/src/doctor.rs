//! `casemate doctor`: what is wrong with this machine, or with a running guest.
//!
//! Gathers what `casemate_doctor` judges. A guest is asked by a session of its own, as root, that
//! only reads.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use casemate_config::Compartment;
use casemate_doctor::host::{self, Machine, Volumes};
use casemate_doctor::{Report, guest};
use casemate_host::facts::{self, Sources};
use casemate_host::{machine, programs};
use casemate_image::{ImageName, Store};
use casemate_supervise::control::{Request, Run, Status};
use casemate_supervise::prepare::World;
use casemate_volume::Listed;

use crate::arguments::Doctor;
use crate::failure::Problem;
use crate::{event_loop, print_json, running, session};

/// Longest silence of a guest that is asked.
const PATIENCE: Duration = Duration::from_secs(20);

/// `casemate doctor`.
pub(crate) fn doctor(world: &World, arguments: &Doctor) -> Result<u8, Problem> {
    let (subject, report) = match &arguments.guest {
        Some(name) => (format!("the guest of `{name}`"), of_guest(world, name)?),
        None => ("this machine".to_owned(), host::examine(&of_machine(world))),
    };
    if arguments.json {
        let mut value = serde_json::to_value(&report).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("guest".into(), serde_json::json!(arguments.guest));
        }
        print_json(&value)?;
    } else {
        out!("{}", report.print(&subject));
    }
    Ok(if report.has_errors() { 1 } else { 0 })
}

fn of_guest(world: &World, name: &str) -> Result<Report, Problem> {
    let answer = event_loop()?.block_on(async {
        let Some(mut supervisor) = running::supervisor(world, name)? else {
            // A name nobody has is said to be unknown, with a hint.
            world.compartment(name)?;
            return Err(Problem::new(format!("compartment `{name}` is not running"))
                .hint(format!("run: casemate start {name}")));
        };
        let status = supervisor.ask::<Status>(&Request::Status).await?;
        if status.state != "running" {
            let what = format!("could not ask the guest: compartment `{name}` is {}", status.state);
            return Err(Problem::new(what).hint("try again when it is running"));
        }
        let compartment = declared(world, name)?;
        let asked = guest::Asked::by(compartment);
        let (ours, theirs) = UnixStream::pair()?;
        let run = Run {
            argv: guest::question(&asked),
            argv_bytes: None,
            environment: vec![],
            cwd: Some("/".into()),
            user: Some("root".into()),
            terminal: None,
            detach: false,
            service: None,
            display: None,
        };
        let request = Request::Run(Box::new(run));
        supervisor.send(&request, vec![OwnedFd::from(theirs)], true).await?;
        let answer = session::collect(ours, guest::LONGEST_ANSWER, PATIENCE);
        Ok((asked, answer))
    });
    let (asked, answer) = answer?;
    let no_answer = || {
        Problem::new(format!("could not ask the guest of `{name}`: it gave no answer in time"))
            .hint("see what it does: casemate status, casemate logs --console")
    };
    guest::examine(&asked, &answer.ok_or_else(no_answer)?).map_err(|error| {
        Problem::new(format!("could not look at the guest of `{name}`"))
            .because(&error)
            .hint("its image needs /bin/sh; a guest whose root is hostile can answer anything")
    })
}

/// The compartment a running one is, or was made from.
fn declared<'w>(world: &'w World, name: &str) -> Result<&'w Compartment, Problem> {
    let template = name.rsplit_once("-d").filter(|(_, number)| number.parse::<u32>().is_ok());
    match (world.compartment(name), template) {
        (Err(_), Some((template, _))) => Ok(world.compartment(template)?),
        (found, _) => Ok(found?),
    }
}

/// Everything known about the machine.
fn of_machine(world: &World) -> Machine {
    let engine = world.engine(casemate_config::EngineKind::Qemu);
    let mut facts = facts::gather(&Sources {
        qemu: engine.binary.as_ref().map(|program| program.as_path().to_owned()),
        ..Sources::current(&world.places)
    });
    facts.network.helper = casemate_host::network::ask_helper();
    let settings = world.settings();
    let autostart: Vec<String> = settings
        .compartments
        .values()
        .filter(|compartment| compartment.autostart)
        .map(|compartment| compartment.name.to_string())
        .collect();
    // casemate's folder lies in the user's, which is where systemd's lies too.
    let own = world.places.configuration().ok().and_then(|folder| folder.parent());
    let units_folder = own.filter(|_| !world.places.is_system());
    let mut space = Vec::new();
    let kept = [
        ("images and volumes", world.places.data()),
        ("logs", world.places.state()),
        ("running compartments", Ok(world.places.runtime())),
    ];
    for (what, place) in kept {
        match place {
            Ok(path) => {
                space.push((what, path.display().to_string(), machine::free_space(path)));
            }
            Err(error) => space.push((what, what.to_owned(), Err(sentence(&error)))),
        }
    }
    let diagnostics = world.loaded.diagnostics.iter().filter(|one| one.is_error());
    Machine {
        files: machine::kernel_files(),
        vulnerabilities: machine::vulnerabilities(),
        swaps: machine::swaps(),
        space,
        programs: programs::check(&facts.programs)
            .and_then(|()| match world.settings().networks.is_empty() {
                true => Ok(()),
                false => programs::check_switch(&facts.programs),
            })
            .map_err(|error| sentence(&error)),
        missing_allocators: machine::missing_allocators(&facts.programs),
        configuration: diagnostics.map(|one| one.message.clone()).collect(),
        damaged_images: damaged_images(world),
        volumes: volumes(world),
        units: machine::units(units_folder, &facts.programs, &autostart),
        facts,
    }
}

/// Images of declared compartments whose current generation cannot be read; their bytes are not
/// hashed here.
fn damaged_images(world: &World) -> Result<Vec<String>, String> {
    let data = world.places.data().map_err(|error| sentence(&error))?;
    let store = Store::at(data);
    let compartments = world.settings().compartments.values();
    let names: BTreeSet<ImageName> =
        compartments.filter_map(|compartment| Some(world.image_of(compartment).ok()?.0)).collect();
    let damaged = |name: &ImageName| {
        store.current(name).err().map(|error| format!("{name}: {}", sentence(&error)))
    };
    Ok(names.iter().filter_map(damaged).collect())
}

/// Volumes there is something to say about.
fn volumes(world: &World) -> Result<Volumes, String> {
    let data = world.places.data().map_err(|error| sentence(&error))?;
    if !data.exists() {
        return Ok(Volumes::default());
    }
    let identity = world.identity().map_err(|error| sentence(&error))?;
    let listed = casemate_volume::Volumes::at(data);
    let listed = listed.list(&identity).map_err(|error| sentence(&error))?;
    let mut volumes = Volumes::default();
    for Listed { id, state } in listed {
        match state {
            Ok(summary) => {
                let warning = summary.protection.and_then(|protection| protection.warning());
                volumes.weak.extend(warning.map(|warning| format!("{id}: {warning}")));
            }
            Err(error) => volumes.damaged.push(format!("{id}: {}", sentence(&error))),
        }
    }
    Ok(volumes)
}

/// An error and its causes in one line.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
