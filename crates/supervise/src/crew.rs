//! The processes of one launch: the plan's steps that connect and start them, applied in order;
//! watched; killed together; undone in reverse.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use casemate_host::launch::{Ended, Launched};
use casemate_host::linux::LinuxHost;
use casemate_host::step::{Applied, StepError, is_effect};
use casemate_plan::network::FromKeeper;
use casemate_plan::process::{Channel, Role};
use casemate_plan::switch::Port;
use casemate_plan::{Plan, Step};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::control::ProcessStatus;

/// Why the processes of a compartment could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrewError {
    /// A step failed; those before it were undone.
    #[error("could not {step}")]
    Step {
        /// What it was to do.
        step: String,
        /// Why it could not.
        #[source]
        source: StepError,
    },
    /// The supervisor's own ends of the sockets.
    #[error("could not listen to the processes of the compartment")]
    Ends(#[source] io::Error),
}

/// The processes of a compartment, on the host they run on.
#[derive(Debug)]
pub(crate) struct Crew<'h> {
    host: &'h mut LinuxHost,
    launched: Applied,
    /// The connection that keeps a link of the root helper, where there is one.
    helper: Option<OwnedFd>,
}

/// The supervisor's ends of the channels.
#[derive(Debug)]
pub(crate) struct Ends {
    /// To the link process.
    pub(crate) orders: AsyncFd<OwnedFd>,
    /// To QMP.
    pub(crate) monitor: UnixStream,
    /// To what reads the memory that the guest goes on from, where it does.
    pub(crate) memory: Option<OwnedFd>,
    /// To the switches of its ports, each with what keeps it.
    pub(crate) ports: Vec<(Port, AsyncFd<OwnedFd>)>,
    /// To what keeps the network, if there is one.
    pub(crate) network: Option<AsyncFd<OwnedFd>>,
}

impl<'h> Crew<'h> {
    /// Nobody yet.
    pub(crate) fn new(host: &'h mut LinuxHost) -> Self {
        Self { host, launched: Applied::default(), helper: None }
    }

    /// Starts every process of the plan. `exits` is told the role and `launch` number of each one
    /// that ends.
    ///
    /// # Errors
    /// [`CrewError`]; those already started are killed.
    pub(crate) fn start(
        &mut self,
        plan: &Plan,
        output: File,
        launch_number: u32,
        exits: &mpsc::UnboundedSender<(u32, Role)>,
    ) -> Result<Ends, CrewError> {
        self.host.assign(plan.processes.clone(), plan.ports.clone(), output.into());
        let result = self.apply(plan, launch_number, exits);
        if result.is_err() {
            self.stop();
        }
        result
    }

    fn apply(
        &mut self,
        plan: &Plan,
        launch_number: u32,
        exits: &mpsc::UnboundedSender<(u32, Role)>,
    ) -> Result<Ends, CrewError> {
        for step in &plan.steps {
            if !is_effect(step) || matches!(step, Step::RunDirectory { .. }) {
                continue;
            }
            self.launched
                .apply(self.host, step)
                .map_err(|source| CrewError::Step { step: step.describe(), source })?;
            if let Step::Start { role } = step
                && let Some(launched) = self.host.running(*role)
            {
                watch(launched, launch_number, *role, exits.clone()).map_err(CrewError::Ends)?;
            }
        }
        let ends = self.ends(plan).map_err(CrewError::Ends)?;
        if plan.steps.iter().any(|step| matches!(step, Step::AskHelper { .. }))
            && let Some(network) = &ends.network
        {
            let connection = network.get_ref().try_clone().map_err(CrewError::Ends)?;
            watch_helper(&connection, launch_number, exits.clone()).map_err(CrewError::Ends)?;
            self.helper = Some(connection);
        }
        Ok(ends)
    }

    fn ends(&mut self, plan: &Plan) -> io::Result<Ends> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let mut end = |channel| {
            let end = self.host.take_channel(channel);
            end.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
        };
        let orders = end(Channel::Orders)?;
        let monitor = std::os::unix::net::UnixStream::from(end(Channel::Monitor)?);
        let network = self.host.take_channel(Channel::Network);
        fcntl(&orders, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        monitor.set_nonblocking(true)?;
        let memory = self.host.take_channel(Channel::Memory);
        let mut ports = Vec::new();
        for port in &plan.ports {
            if let Some(connection) = self.host.take_port(&port.network) {
                ports.push((port.clone(), register(connection, Interest::READABLE)?));
            }
        }
        Ok(Ends {
            ports,
            memory,
            orders: register(orders, Interest::READABLE | Interest::WRITABLE)?,
            monitor: UnixStream::from_std(monitor)?,
            network: match network {
                Some(network) => {
                    fcntl(&network, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                    Some(register(network, Interest::READABLE)?)
                }
                None => None,
            },
        })
    }

    /// How the process ended, in words, if it did.
    pub(crate) fn exit_of(&mut self, role: Role) -> Option<String> {
        if role == Role::Network
            && let Some(connection) = &self.helper
        {
            return Some(last_words(connection));
        }
        let ended = self.host.running(role)?.try_wait().ok()??;
        Some(match ended {
            Ended::Exited(code) => format!("ended with code {code}"),
            Ended::Killed(signal) => format!("was ended by signal {signal} ({})", name(signal)),
            Ended::NotBuilt => "could not be confined".into(),
        })
    }

    /// Kills all of them. Their ends are reported as any other.
    pub(crate) fn kill(&self) {
        for (_, launched) in self.host.all_running() {
            // One that has ended needs no signal.
            let _ = launched.kill();
        }
        self.leave_helper();
    }

    /// Lets the link of the root helper go. Its end is reported as that of a process.
    fn leave_helper(&self) {
        if let Some(connection) = &self.helper {
            // A helper that is gone needs no word.
            let _ = shutdown(connection.as_raw_fd(), Shutdown::Both);
        }
    }

    /// Undoes the launch: kills and reaps what still runs.
    pub(crate) fn stop(&mut self) {
        self.leave_helper();
        self.helper = None;
        for error in std::mem::take(&mut self.launched).undo(self.host) {
            tracing::warn!("{}", crate::chain(&error));
        }
    }

    /// The program that builds jails.
    pub(crate) fn jail_program(&self) -> &Path {
        self.host.jail_program()
    }

    /// Process ids, by role.
    pub(crate) fn status(&self) -> Vec<ProcessStatus> {
        let status = |(role, launched): (Role, &Launched)| ProcessStatus {
            role: role.name().into(),
            pid: launched.pid(),
        };
        self.host.all_running().map(status).collect()
    }
}

/// Reports the end of a process.
fn watch(
    launched: &Launched,
    launch_number: u32,
    role: Role,
    exits: mpsc::UnboundedSender<(u32, Role)>,
) -> io::Result<()> {
    let descriptor = launched.as_fd().try_clone_to_owned()?;
    let descriptor = register(descriptor, Interest::READABLE)?;
    tokio::task::spawn_local(async move {
        let _ = descriptor.readable().await;
        // Nobody listens any more when the supervisor itself ends.
        let _ = exits.send((launch_number, role));
    });
    Ok(())
}

/// Reports the end of the connection to the root helper as that of what keeps the network.
fn watch_helper(
    connection: &OwnedFd,
    launch_number: u32,
    exits: mpsc::UnboundedSender<(u32, Role)>,
) -> io::Result<()> {
    let connection = register(connection.try_clone()?, Interest::READABLE)?;
    tokio::task::spawn_local(async move {
        while let Ok(mut guard) = connection.readable().await {
            if guard.ready().is_read_closed() {
                break;
            }
            // An answer, which somebody else reads.
            guard.clear_ready();
        }
        // Nobody listens any more when the supervisor itself ends.
        let _ = exits.send((launch_number, Role::Network));
    });
    Ok(())
}

/// Why the root helper ended a link, if it said so.
fn last_words(connection: &OwnedFd) -> String {
    match casemate_host::network::receive(connection) {
        Ok((FromKeeper::Failed { reason }, _)) => format!("ended: {reason}"),
        _ => "ended: casemate-netd is gone, and the link with it".into(),
    }
}

/// Hands a descriptor to the event loop.
#[expect(unsafe_code, reason = "tokio cannot see that an OwnedFd stays the same descriptor")]
pub(crate) fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the same descriptor and keeps it open for as long as the
    // `AsyncFd` holds it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

fn name(signal: i32) -> &'static str {
    nix::sys::signal::Signal::try_from(signal).map_or("unknown", |signal| signal.as_str())
}
