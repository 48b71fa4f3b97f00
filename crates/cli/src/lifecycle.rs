//! `start`, `stop`, `restart`, `pause`, `resume`.

use std::time::Duration;

use casemate_supervise::control::{self, Failure, Progress as State, Request};
use casemate_supervise::prepare::{Target, World};
use casemate_volume::SnapshotName;

use crate::arguments::{Start, Stop};
use crate::connect::{Answer, Supervisor};
use crate::failure::Problem;
use crate::progress::Progress;
use crate::snapshot::not_kept;
use crate::{console, event_loop, running, say_notes};

/// Times a supervisor that ends without an answer is replaced.
pub(crate) const ATTEMPTS: u32 = 2;

/// Starts compartments; the first that fails is reported after the others were tried.
pub(crate) fn start(world: &World, arguments: &Start, verbose: bool) -> Result<u8, Problem> {
    let autostart = || {
        let all = world.settings().compartments.values();
        all.filter(|one| one.autostart).map(|one| one.name.to_string()).collect()
    };
    let names = if arguments.autostart { autostart() } else { arguments.names.clone() };
    each(&names, |name| {
        world.compartment(name)?;
        event_loop()?.block_on(start_one(world, name, verbose, ATTEMPTS))
    })
}

/// Starts one compartment and waits until it is ready. `again` is how often a supervisor that ends
/// without an answer is replaced.
pub(crate) async fn start_one(
    world: &World,
    name: &str,
    verbose: bool,
    again: u32,
) -> Result<(), Problem> {
    let target = Target::Declared(name.into());
    let mut progress = Progress::new(format!("starting `{name}`"));
    let mut attempts = 0;
    loop {
        let mut supervisor = Supervisor::of(world, &target).await?;
        say_notes(&supervisor.notes);
        let _console = if verbose { console::show(world, name).await.ok() } else { None };
        let mut state = String::new();
        match supervisor.send(&Request::Start, vec![], true).await {
            Err(problem) if attempts >= again => return Err(problem),
            Err(_) => {
                attempts += 1;
                continue;
            }
            Ok(()) => {}
        }
        loop {
            let answer = tokio::select! {
                answer = supervisor.receive::<State>() => match answer {
                    // It was just ending, or was killed: once more.
                    Err(_) if attempts < again => {
                        attempts += 1;
                        break;
                    }
                    other => other?,
                },
                () = tokio::time::sleep(Duration::from_millis(500)) => {
                    progress.tick(&state);
                    continue;
                }
            };
            match answer {
                Ok(Answer { value, more: true }) => state = value.state,
                Ok(Answer { more: false, .. }) => return Ok(()),
                Err(Failure::Stopping) if again > 0 => {
                    supervisor.closed().await;
                    break;
                }
                Err(failure) => return Err(Problem::answered(name, failure)),
            }
        }
    }
}

/// Stops compartments. One that is not running is no error.
pub(crate) fn stop(world: &World, arguments: &Stop) -> Result<u8, Problem> {
    let names = if arguments.all { running::names(world)? } else { arguments.names.clone() };
    each(&names, |name| {
        if !running::is_known(world, name) {
            world.compartment(name)?;
        }
        event_loop()?.block_on(stop_one(world, name, arguments.force))?;
        say_who_is_behind(world, name);
        Ok(())
    })
}

/// Clients of a router that was stopped run on, and reach nothing until it runs again.
fn say_who_is_behind(world: &World, name: &str) {
    let networks = world.settings().networks.values();
    for network in networks.filter(|network| network.router.as_str() == name) {
        let clients = network.clients.iter().map(|client| client.as_str());
        let running: Vec<&str> =
            clients.filter(|client| running::is_known(world, client)).collect();
        if !running.is_empty() {
            let running = running.join(", ");
            eprintln!(
                "note: `{name}` was the router of the network `{}`; until it runs again these reach \
                 nothing there: {running}",
                network.name
            );
        }
    }
}

/// Stops one compartment and waits until nothing is left of it.
pub(crate) async fn stop_one(world: &World, name: &str, force: bool) -> Result<(), Problem> {
    let Some(mut supervisor) = running::supervisor(world, name)? else { return Ok(()) };
    let mut progress = Progress::new(format!("stopping `{name}`"));
    supervisor.send(&Request::Stop(control::Stop { force }), vec![], true).await?;
    loop {
        match supervisor.news::<State>(&mut progress, "").await {
            Ok(Ok(Answer { more: true, .. })) => {}
            Ok(Ok(_)) => break,
            Ok(Err(failure)) => return Err(Problem::answered(name, failure)),
            // It ended without a last word, which is what was wanted.
            Err(_) => break,
        }
    }
    gone(world, name, &mut supervisor).await;
    Ok(())
}

/// Waits until a supervisor that is about to end has ended. The run directory goes last.
async fn gone(world: &World, name: &str, supervisor: &mut Supervisor) {
    supervisor.closed().await;
    for _ in 0..200 {
        if !world.run_directory(name).exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Stops compartments and starts them again.
pub(crate) fn restart(world: &World, names: &[String], verbose: bool) -> Result<u8, Problem> {
    each(names, |name| {
        world.compartment(name)?;
        event_loop()?.block_on(async {
            stop_one(world, name, false).await?;
            start_one(world, name, verbose, ATTEMPTS).await
        })
    })
}

/// Pauses or resumes a running compartment.
pub(crate) fn execute(world: &World, name: &str, resume: bool) -> Result<u8, Problem> {
    if !running::is_known(world, name) {
        world.compartment(name)?;
    }
    event_loop()?.block_on(async {
        let Some(mut supervisor) = running::supervisor(world, name)? else {
            return Err(Problem::new(format!("compartment `{name}` is not running"))
                .hint(format!("run: casemate start {name}")));
        };
        let request = if resume { Request::Resume } else { Request::Pause };
        supervisor.ask::<State>(&request).await?;
        Ok(0)
    })
}

/// Has the supervisor of a running compartment take a snapshot, once it is ready; returns what it
/// has to say of it. None when the compartment does not run.
pub(crate) async fn snapshot(
    world: &World,
    name: &str,
    snapshot: &SnapshotName,
    memory: bool,
) -> Result<Option<Vec<String>>, Problem> {
    loop {
        let Some(mut supervisor) = running::supervisor(world, name)? else { return Ok(None) };
        let request = Request::Snapshot(control::Snapshot { name: snapshot.to_string(), memory });
        let mut answer = Ok(State::default());
        for request in [Request::Start, request] {
            supervisor.send(&request, vec![], false).await?;
            answer = supervisor.receive::<State>().await?.map(|answer| answer.value);
            if answer.is_err() {
                break;
            }
        }
        match answer {
            Ok(taken) => return Ok(Some(taken.notes)),
            // When it is gone, the volumes can be taken here.
            Err(Failure::Stopping) => gone(world, name, &mut supervisor).await,
            Err(Failure::Failed { reason, hint }) => {
                let problem = Problem::new(not_kept(name));
                return Err(Problem { causes: vec![reason], hint, ..problem });
            }
            Err(failure) => return Err(Problem::answered(name, failure)),
        }
    }
}

/// Does something for each name; reports every failure and returns the last.
pub(crate) fn each(
    names: &[String],
    act: impl Fn(&str) -> Result<(), Problem>,
) -> Result<u8, Problem> {
    let mut failed: Option<Problem> = None;
    for name in names {
        if let Err(problem) = act(name)
            && let Some(earlier) = failed.replace(problem)
        {
            eprint!("{earlier}");
        }
    }
    failed.map_or(Ok(0), Err)
}
