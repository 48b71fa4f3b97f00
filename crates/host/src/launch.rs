//! Starting a planned process in its jail, and what is left of it here: a descriptor.
//!
//! The process is written to a memory file, whose descriptor `casemate-jail` reads; the files that
//! it lists are opened here, as the caller; its channels are handed in. What is started dies with
//! the *thread* that called [`launch`] (PR_SET_PDEATHSIG, prctl(2)): call it from one that stays.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use casemate_plan::process::{Descriptor, DescriptorSource, Process};
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::{AccessFlags, access};

use crate::pidfd::PidFd;

/// What `casemate-jail` ends with when there was no jail to run anything in.
const NOT_BUILT: i32 = 125;

/// A process running in its jail, by its monitor. Dropping it kills the process and all it started.
#[derive(Debug)]
pub struct Launched {
    pid: u32,
    monitor: PidFd,
    ended: Option<Ended>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It never began: the jail could not be built. The line on its standard error says why.
    NotBuilt,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program that builds jails is not there or not executable.
    #[error("could not find an executable {path}")]
    NoJail {
        /// Where it should be.
        path: PathBuf,
        /// Why it is none.
        #[source]
        source: io::Error,
    },
    /// A file that the process gets as a descriptor cannot be opened.
    #[error("could not open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Descriptors and plan do not match: a fault of the caller.
    #[error("could not hand over descriptor {0}: it is missing, or there twice")]
    Descriptor(i32),
    /// The plan has no such process: a fault of the caller.
    #[error("could not start {0}: it is not planned")]
    NotPlanned(String),
    /// The process could not be described to its jail.
    #[error("could not write the specification of the process")]
    Specification(#[source] io::Error),
    /// The system has no room for another process, or no descriptor left.
    #[error("could not start {program}")]
    Start {
        /// The program in the jail.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Starts a process in its jail. Returns as soon as the jail is being built; what goes wrong later
/// is one line on `stderr` and [`Ended::NotBuilt`].
///
/// `channels` are the descriptors that the plan calls channels, with their numbers in the process.
/// Its standard output and error both go to `stderr`.
///
/// # Errors
/// See [`LaunchError`]. Nothing is running then.
pub fn launch(
    process: &Process,
    jail_program: &Path,
    channels: Vec<(i32, OwnedFd)>,
    stderr: OwnedFd,
) -> Result<Launched, LaunchError> {
    let parent = ["--parent".to_owned(), std::process::id().to_string()];
    spawn(process, jail_program, channels, stderr, &parent)
}

/// The same for a process that outlives the caller and knows itself when to end. What is returned
/// must not be dropped before the end, as that would kill it: [`Launched::leave`].
///
/// # Errors
/// See [`LaunchError`]. Nothing is running then.
pub(crate) fn launch_detached(
    process: &Process,
    jail_program: &Path,
    channels: Vec<(i32, OwnedFd)>,
    stderr: OwnedFd,
) -> Result<Launched, LaunchError> {
    spawn(process, jail_program, channels, stderr, &["--detached".to_owned()])
}

fn spawn(
    process: &Process,
    jail_program: &Path,
    channels: Vec<(i32, OwnedFd)>,
    stderr: OwnedFd,
    life: &[String],
) -> Result<Launched, LaunchError> {
    access(jail_program, AccessFlags::X_OK)
        .map_err(|error| LaunchError::NoJail { path: jail_program.into(), source: error.into() })?;
    let start = |source| LaunchError::Start { program: process.program.clone(), source };
    let mut mappings = descriptors(process, channels)?;
    let number = mappings.iter().map(|mapping| mapping.child_fd).max().unwrap_or(2) + 1;
    let specification = specification(process).map_err(LaunchError::Specification)?;
    mappings.push(FdMapping { parent_fd: specification, child_fd: number });

    let mut command = Command::new(jail_program);
    command
        .args(["--spec", &number.to_string()])
        .args(life)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(stderr.try_clone().map_err(start)?)
        .stderr(stderr);
    command.fd_mappings(mappings).map_err(|_| LaunchError::Descriptor(number))?;
    let mut child = command.spawn().map_err(start)?;
    let pid = child.id();
    match PidFd::open(pid) {
        Ok(monitor) => Ok(Launched { pid, monitor, ended: None }),
        Err(error) => {
            let _ = child.kill().and_then(|()| child.wait());
            Err(start(error))
        }
    }
}

/// Every descriptor the process lists, opened or taken from the channels, at its number.
fn descriptors(
    process: &Process,
    mut channels: Vec<(i32, OwnedFd)>,
) -> Result<Vec<FdMapping>, LaunchError> {
    let mut mappings: Vec<FdMapping> = Vec::new();
    for Descriptor { number: child_fd, what } in &process.descriptors {
        let parent_fd = match what {
            DescriptorSource::Channel { .. }
            | DescriptorSource::Listener { .. }
            | DescriptorSource::Shared { .. }
            | DescriptorSource::Tap => {
                let place = channels.iter().position(|(number, _)| number == child_fd);
                channels.swap_remove(place.ok_or(LaunchError::Descriptor(*child_fd))?).1
            }
            DescriptorSource::File { path, writable } => {
                open(path, OpenOptions::new().read(true).write(*writable))?
            }
            DescriptorSource::Log { path } => {
                open(path, OpenOptions::new().append(true).create(true).mode(0o600))?
            }
            DescriptorSource::Text { text } => {
                in_memory(text.as_bytes()).map_err(LaunchError::Specification)?
            }
        };
        if *child_fd < 3 || mappings.iter().any(|mapping| mapping.child_fd == *child_fd) {
            return Err(LaunchError::Descriptor(*child_fd));
        }
        mappings.push(FdMapping { parent_fd, child_fd: *child_fd });
    }
    match channels.first() {
        Some((number, _)) => Err(LaunchError::Descriptor(*number)),
        None => Ok(mappings),
    }
}

fn open(path: &Path, options: &OpenOptions) -> Result<OwnedFd, LaunchError> {
    let opened =
        options.open(path).map_err(|source| LaunchError::Open { path: path.into(), source });
    Ok(opened?.into())
}

/// The process as JSON in a memory file, at its beginning.
fn specification(process: &Process) -> io::Result<OwnedFd> {
    in_memory(&serde_json::to_vec(process)?)
}

fn in_memory(content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"casemate-spec", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}

impl Launched {
    /// The process id of the monitor. The program itself has another one, in the jail.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it go on without us. It is reaped as long as this process lives.
    pub(crate) fn leave(mut self) {
        std::thread::spawn(move || self.wait());
    }

    /// Asks the program to end (SIGTERM).
    ///
    /// # Errors
    /// The process has been waited for.
    pub fn terminate(&self) -> io::Result<()> {
        self.monitor.signal(Signal::SIGTERM)
    }

    /// Kills the program and everything in its jail.
    ///
    /// # Errors
    /// The process has been waited for.
    pub fn kill(&self) -> io::Result<()> {
        self.monitor.signal(Signal::SIGKILL)
    }

    /// Waits for the end and returns how it came. Poll [`AsFd`] for readability to wait beside
    /// other things, then use [`Launched::try_wait`].
    ///
    /// # Errors
    /// Somebody else has reaped it.
    pub fn wait(&mut self) -> io::Result<Ended> {
        while self.ended.is_none() {
            self.ended = ended(self.monitor.wait()?);
        }
        self.try_wait()?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Somebody else has reaped it.
    pub fn try_wait(&mut self) -> io::Result<Option<Ended>> {
        if self.ended.is_none() {
            self.ended = ended(self.monitor.try_wait()?);
        }
        Ok(self.ended)
    }
}

impl AsFd for Launched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.ended.is_none() && self.kill().is_ok() {
            let _ = self.monitor.wait();
        }
    }
}

/// The monitor ends with the program's code, or 128 + n when signal n ended the program.
fn ended(status: WaitStatus) -> Option<Ended> {
    match status {
        WaitStatus::Exited(_, NOT_BUILT) => Some(Ended::NotBuilt),
        WaitStatus::Exited(_, code) if code > 128 => Some(Ended::Killed(code - 128)),
        WaitStatus::Exited(_, code) => Some(Ended::Exited(code)),
        WaitStatus::Signaled(_, signal, _) => Some(Ended::Killed(signal as i32)),
        _ => None,
    }
}
