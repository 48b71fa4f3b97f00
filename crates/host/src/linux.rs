//! The real host: applies steps to this machine and holds what comes of them, the directory, the
//! sockets and the processes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_plan::Step;
use casemate_plan::process::{Channel, DescriptorSource, Process, Role};
use casemate_plan::switch::Port;

use crate::launch::{LaunchError, Launched, launch};
use crate::network::{self, NetworkError};
use crate::rundir::{Leftovers, RunDirectory};
use crate::sockets;
use crate::step::{Host, StepError};
use crate::switch;

/// Name of a listening socket while it is being connected to.
const LISTENER: &str = "listener";

/// This machine, and what one compartment has on it.
#[derive(Debug)]
pub struct LinuxHost {
    jail_program: PathBuf,
    processes: Vec<Process>,
    /// Where processes and jails print; known once the run directory may be written to.
    log: Option<OwnedFd>,
    run_directory: Option<RunDirectory>,
    leftovers: Option<Leftovers>,
    /// Ends of channels by the process that gets them; none is the supervisor itself.
    ends: Vec<(Option<Role>, Channel, OwnedFd)>,
    running: BTreeMap<Role, Launched>,
    /// The guest's TAP device, until its VMM has it.
    tap: Option<OwnedFd>,
    /// Ports in networks that steps are about.
    ports: Vec<Port>,
    /// What keeps those that were taken, by network, until the supervisor looks after it.
    joined: BTreeMap<String, OwnedFd>,
}

impl LinuxHost {
    /// The machine, before the first step of a plan.
    pub fn new(jail_program: PathBuf) -> Self {
        Self {
            jail_program,
            processes: Vec::new(),
            log: None,
            run_directory: None,
            leftovers: None,
            ends: Vec::new(),
            running: BTreeMap::new(),
            tap: None,
            ports: Vec::new(),
            joined: BTreeMap::new(),
        }
    }

    /// The processes that channels and starts are about from now on. What they and their jails
    /// print goes to `log`.
    pub fn assign(&mut self, processes: Vec<Process>, ports: Vec<Port>, log: OwnedFd) {
        self.processes = processes;
        self.ports = ports;
        self.log = Some(log);
    }

    /// Every process that was started and is not undone yet.
    pub fn all_running(&self) -> impl Iterator<Item = (Role, &Launched)> {
        self.running.iter().map(|(role, launched)| (*role, launched))
    }

    /// What a predecessor that was killed had left in the run directory, to be told once.
    pub fn take_leftovers(&mut self) -> Option<Leftovers> {
        self.leftovers.take()
    }

    /// The supervisor's end of a channel that only one process names.
    pub fn take_channel(&mut self, channel: Channel) -> Option<OwnedFd> {
        self.take_end(None, channel)
    }

    /// The program that builds jails.
    pub fn jail_program(&self) -> &Path {
        &self.jail_program
    }

    /// The connection that keeps the port in a network.
    pub fn take_port(&mut self, network: &str) -> Option<OwnedFd> {
        self.joined.remove(network)
    }

    fn join(&mut self, network: &str) -> Result<(), StepError> {
        let port = self.ports.iter().find(|port| port.network == network);
        let port = port.ok_or_else(|| LaunchError::NotPlanned(format!("a port of `{network}`")))?;
        let connection = switch::join(port, &self.jail_program)?;
        self.joined.insert(network.into(), connection);
        Ok(())
    }

    /// A process that was started and is not undone yet, to wait for.
    pub fn running(&mut self, role: Role) -> Option<&mut Launched> {
        self.running.get_mut(&role)
    }

    /// Makes every channel that the processes name, an end for each that names it.
    fn connect(&mut self) -> io::Result<()> {
        let mut users: BTreeMap<Channel, Vec<Role>> = BTreeMap::new();
        for process in &self.processes {
            for descriptor in &process.descriptors {
                match descriptor.what {
                    DescriptorSource::Channel { channel } => {
                        users.entry(channel).or_default().push(process.role);
                    }
                    // The first of a pair.
                    DescriptorSource::Listener { channel } => {
                        users.entry(channel).or_default().insert(0, process.role);
                    }
                    DescriptorSource::File { .. }
                    | DescriptorSource::Log { .. }
                    | DescriptorSource::Text { .. }
                    | DescriptorSource::Shared { .. }
                    | DescriptorSource::Tap => {}
                }
            }
        }
        for (channel, users) in users {
            let (one, other) = match channel {
                Channel::Share(_) => {
                    let place = self.run_directory.as_ref().ok_or(io::ErrorKind::NotFound)?;
                    sockets::listening_pair(&place.path().join(LISTENER))?
                }
                _ => sockets::channel_pair(channel)?,
            };
            self.ends.push((users.first().copied(), channel, one));
            self.ends.push((users.get(1).copied(), channel, other));
        }
        Ok(())
    }

    fn start(&mut self, role: Role) -> Result<(), LaunchError> {
        let missing = || LaunchError::NotPlanned(role.describe().into());
        let place = self.processes.iter().position(|process| process.role == role);
        let process = self.processes[place.ok_or_else(missing)?].clone();
        let mut channels = Vec::new();
        for descriptor in &process.descriptors {
            if descriptor.what == DescriptorSource::Tap {
                let tap = self.tap.take();
                let number = descriptor.number;
                channels.push((number, tap.ok_or(LaunchError::Descriptor(number))?));
            }
            if let Some(channel) = descriptor.what.channel() {
                let end = self.take_end(Some(role), channel);
                channels.push((
                    descriptor.number,
                    end.ok_or(LaunchError::Descriptor(descriptor.number))?,
                ));
            }
        }
        let log =
            self.log.as_ref().ok_or_else(missing)?.try_clone().map_err(|source| {
                LaunchError::Start { program: process.program.clone(), source }
            })?;
        let launched = launch(&process, &self.jail_program, channels, log)?;
        self.running.insert(role, launched);
        Ok(())
    }

    /// Takes the TAP device from what made it.
    fn await_network(&mut self, seconds: u32) -> Result<(), NetworkError> {
        let place = self.ends.iter().find(|end| (end.0, end.1) == (None, Channel::Network));
        let Some((_, _, end)) = place else { return Err(NetworkError::Ended) };
        self.tap = Some(network::receive_tap(end, Duration::from_secs(seconds.into()))?);
        Ok(())
    }

    fn take_end(&mut self, user: Option<Role>, channel: Channel) -> Option<OwnedFd> {
        let place = self.ends.iter().position(|end| (end.0, end.1) == (user, channel))?;
        Some(self.ends.swap_remove(place).2)
    }
}

impl Host for LinuxHost {
    fn apply(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::RunDirectory { path } => {
                let (directory, leftovers) = RunDirectory::claim(path)?;
                self.run_directory = Some(directory);
                self.leftovers = leftovers;
                Ok(())
            }
            Step::Channels => self.connect().map_err(StepError::Channels),
            Step::Start { role } => Ok(self.start(*role)?),
            Step::AwaitNetwork { seconds } => Ok(self.await_network(*seconds)?),
            Step::Join { network } => self.join(network),
            Step::AskHelper { socket, order, seconds } => {
                let patience = Duration::from_secs((*seconds).into());
                let (tap, connection) = network::ask_link(socket, order, patience)?;
                self.tap = Some(tap);
                self.ends.push((None, Channel::Network, connection));
                Ok(())
            }
            Step::BuildImage { .. }
            | Step::CheckImage { .. }
            | Step::OpenVolume { .. }
            | Step::Revert { .. }
            | Step::StartRouter { .. }
            | Step::AwaitGuest { .. } => Ok(()),
        }
    }

    fn undo(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::RunDirectory { .. } => match self.run_directory.take() {
                Some(directory) => Ok(directory.remove()?),
                None => Ok(()),
            },
            Step::Channels => {
                self.ends.clear();
                Ok(())
            }
            Step::AwaitNetwork { .. } | Step::AskHelper { .. } => {
                self.tap = None;
                Ok(())
            }
            Step::Join { network } => {
                self.joined.remove(network);
                Ok(())
            }
            Step::Start { role } => match self.running.remove(role) {
                Some(mut launched) => end(&mut launched)
                    .map_err(|source| StepError::End { process: role.describe().into(), source }),
                None => Ok(()),
            },
            Step::BuildImage { .. }
            | Step::CheckImage { .. }
            | Step::OpenVolume { .. }
            | Step::Revert { .. }
            | Step::StartRouter { .. }
            | Step::AwaitGuest { .. } => Ok(()),
        }
    }
}

/// Kills a process that has not ended and reaps it.
fn end(launched: &mut Launched) -> io::Result<()> {
    if launched.try_wait()?.is_none() {
        launched.kill()?;
        launched.wait()?;
    }
    Ok(())
}
