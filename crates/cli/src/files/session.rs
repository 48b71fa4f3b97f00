//! Opening a session whose socket stays here: for commands that speak with a service themselves.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use casemate_supervise::control::{self, Failure, Request};
use casemate_supervise::prepare::{Target, World};

use crate::connect::{Answer, Supervisor};
use crate::failure::Problem;
use crate::progress::Progress;
use crate::{console, run, running, say_notes};

/// Starts the compartment if it is down, and opens the session.
///
/// # Errors
/// Neither could be done.
pub(crate) fn open(
    world: &World,
    target: &Target,
    wanted: &control::Run,
    verbose: bool,
) -> Result<UnixStream, Problem> {
    crate::event_loop()?.block_on(async {
        for _ in 0..run::ATTEMPTS {
            if let Some(socket) = attempt(world, target, wanted, verbose).await? {
                return Ok(socket);
            }
        }
        Err(Problem::answered(&target.name(), Failure::Stopping))
    })
}

/// The same for a compartment that runs, or is just starting. None when it does not.
///
/// # Errors
/// It could not be opened.
pub(crate) fn open_if_running(
    world: &World,
    target: &Target,
    wanted: &control::Run,
) -> Result<Option<UnixStream>, Problem> {
    let name = target.name();
    crate::event_loop()?.block_on(async {
        match running::supervisor(world, &name)? {
            Some(mut supervisor) => open_at(&mut supervisor, &name, wanted).await,
            None => Ok(None),
        }
    })
}

/// None when the compartment was just ending.
async fn attempt(
    world: &World,
    target: &Target,
    wanted: &control::Run,
    verbose: bool,
) -> Result<Option<UnixStream>, Problem> {
    let name = target.name();
    let mut supervisor = Supervisor::of(world, target).await?;
    say_notes(&supervisor.notes);
    let _console = if verbose { console::show(world, &name).await.ok() } else { None };
    open_at(&mut supervisor, &name, wanted).await
}

/// None when the compartment was just ending.
async fn open_at(
    supervisor: &mut Supervisor,
    name: &str,
    wanted: &control::Run,
) -> Result<Option<UnixStream>, Problem> {
    let (ours, theirs) = UnixStream::pair()?;
    let request = Request::Run(Box::new(wanted.clone()));
    if supervisor.send(&request, vec![OwnedFd::from(theirs)], true).await.is_err() {
        return Ok(None);
    }
    let mut progress = Progress::new(format!("starting `{name}`"));
    let mut state = String::new();
    loop {
        match supervisor.news::<control::Progress>(&mut progress, &state).await? {
            Ok(Answer { value, more }) => {
                if value.session.is_some() || !more {
                    return Ok(Some(ours));
                }
                state = value.state;
            }
            Err(Failure::Stopping) => {
                supervisor.closed().await;
                return Ok(None);
            }
            Err(failure) => return Err(Problem::answered(name, failure)),
        }
    }
}
