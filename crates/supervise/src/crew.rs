//! The processes of one launch: started in order, watched, killed together.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use casemate_host::launch::{Ended, LaunchError, Launched, launch};
use casemate_plan::Plan;
use casemate_plan::process::{Channel, Role};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::channels::Channels;
use crate::control::ProcessStatus;

/// Why the processes of a compartment could not be started.
#[derive(Debug, thiserror::Error)]
pub enum CrewError {
    /// One of them.
    #[error("could not start {}", .role.describe())]
    Launch {
        /// Which.
        role: Role,
        /// Why.
        #[source]
        source: LaunchError,
    },
    /// The sockets between them.
    #[error("could not connect the processes of the compartment")]
    Channels(#[source] io::Error),
}

/// Running processes.
#[derive(Debug)]
pub struct Crew {
    members: BTreeMap<Role, Launched>,
}

/// The supervisor's ends of the channels.
#[derive(Debug)]
pub struct Ends {
    /// To the link process.
    pub orders: AsyncFd<OwnedFd>,
    /// To QMP.
    pub monitor: UnixStream,
}

impl Crew {
    /// Starts every process of the plan. `exits` is told the role and `launch` number of each one
    /// that ends.
    ///
    /// # Errors
    /// [`CrewError`]; those already started are killed.
    pub fn start(
        plan: &Plan,
        jail: &Path,
        output: &File,
        launch_number: u32,
        exits: &mpsc::UnboundedSender<(u32, Role)>,
    ) -> Result<(Self, Ends), CrewError> {
        let mut channels = Channels::of(plan).map_err(CrewError::Channels)?;
        let mut members = BTreeMap::new();
        for process in &plan.processes {
            let role = process.role;
            let output = output.try_clone().map_err(CrewError::Channels)?;
            let launched = launch(process, jail, channels.for_process(process), output.into())
                .map_err(|source| CrewError::Launch { role, source })?;
            watch(&launched, launch_number, role, exits.clone()).map_err(CrewError::Channels)?;
            members.insert(role, launched);
        }
        let ends = ends(&mut channels).map_err(CrewError::Channels)?;
        Ok((Self { members }, ends))
    }

    /// How the process ended, in words, if it did.
    pub fn exit_of(&mut self, role: Role) -> Option<String> {
        let ended = self.members.get_mut(&role)?.try_wait().ok()??;
        self.members.remove(&role);
        Some(match ended {
            Ended::Exited(code) => format!("ended with code {code}"),
            Ended::Killed(signal) => format!("was ended by signal {signal} ({})", name(signal)),
            Ended::NotBuilt => "could not be confined".into(),
        })
    }

    /// Kills all of them. Their ends are reported as any other.
    pub fn kill(&self) {
        for launched in self.members.values() {
            // One that has ended needs no signal.
            let _ = launched.kill();
        }
    }

    /// Process ids, by role.
    pub fn status(&self) -> Vec<ProcessStatus> {
        let status = |(role, launched): (&Role, &Launched)| ProcessStatus {
            role: role.name().into(),
            pid: launched.pid(),
        };
        self.members.iter().map(status).collect()
    }
}

fn ends(channels: &mut Channels) -> io::Result<Ends> {
    let end = |channels: &mut Channels, channel| {
        channels.take(channel).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    };
    let orders = end(channels, Channel::Orders)?;
    let monitor = std::os::unix::net::UnixStream::from(end(channels, Channel::Monitor)?);
    nonblocking(&orders)?;
    monitor.set_nonblocking(true)?;
    Ok(Ends { orders: AsyncFd::new(orders)?, monitor: UnixStream::from_std(monitor)? })
}

fn nonblocking(descriptor: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reports the end of a process.
fn watch(
    launched: &Launched,
    launch_number: u32,
    role: Role,
    exits: mpsc::UnboundedSender<(u32, Role)>,
) -> io::Result<()> {
    let descriptor = launched.as_fd().try_clone_to_owned()?;
    let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
    tokio::task::spawn_local(async move {
        let _ = descriptor.readable().await;
        // Nobody listens any more when the supervisor itself ends.
        let _ = exits.send((launch_number, role));
    });
    Ok(())
}

fn name(signal: i32) -> &'static str {
    nix::sys::signal::Signal::try_from(signal).map_or("unknown", |signal| signal.as_str())
}
