//! The command line and the specification: `casemate-jail --spec FD [--parent PID | --detached]`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, RawFd};

use casemate_plan::process::Process;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;

/// The longest specification read, in bytes. The longest ones made are below 16 KiB.
const LONGEST: u64 = 1 << 20;

/// What one invocation asks for.
pub(crate) struct Invocation {
    /// The process to start.
    pub(crate) process: Process,
    /// Who started us, so that an end before we could tie ourselves to it is noticed.
    pub(crate) parent: Option<Pid>,
    /// It outlives whoever started it: the program decides itself when it ends.
    pub(crate) detached: bool,
}

/// Why the invocation makes no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    /// Wrong arguments.
    #[error("usage: casemate-jail --spec DESCRIPTOR [--parent PID | --detached]")]
    Usage,
    /// The descriptor cannot be read.
    #[error("could not read the specification")]
    Read(#[source] io::Error),
    /// It is not a `Process`.
    #[error("could not understand the specification")]
    Parse(#[source] serde_json::Error),
    /// A descriptor is listed that cannot be handed on.
    #[error("could not hand on descriptor {0}: it is {1}")]
    Descriptor(RawFd, &'static str),
}

impl Invocation {
    /// Reads the arguments, then the specification, whose descriptor is closed.
    pub(crate) fn from_arguments(
        mut arguments: impl Iterator<Item = OsString>,
    ) -> Result<Self, crate::error::JailError> {
        let (mut descriptor, mut parent, mut detached) = (None, None, false);
        while let Some(name) = arguments.next() {
            if name == "--detached" {
                detached = true;
                continue;
            }
            let value = arguments.next().and_then(|value| value.to_str()?.parse::<i32>().ok());
            match (name.to_str(), value) {
                (Some("--spec"), Some(number)) if number >= 3 => descriptor = Some(number),
                (Some("--parent"), Some(number)) => parent = Some(Pid::from_raw(number)),
                _ => return Err(SpecError::Usage.into()),
            }
        }
        if detached && parent.is_some() {
            return Err(SpecError::Usage.into());
        }
        let process = read(descriptor.ok_or(SpecError::Usage)?)?;
        check_descriptors(&process)?;
        Ok(Self { process, parent, detached })
    }
}

fn read(descriptor: RawFd) -> Result<Process, SpecError> {
    // SAFETY: the caller says that this descriptor is ours; nothing else in the process uses it.
    // When it is not open the first read says so.
    let file = unsafe { File::from_raw_fd(descriptor) };
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).map_err(SpecError::Read)?;
    serde_json::from_slice(&text).map_err(SpecError::Parse)
}

/// Every listed descriptor must be open, above the standard ones and listed once.
fn check_descriptors(process: &Process) -> Result<(), SpecError> {
    let mut seen = Vec::new();
    for descriptor in &process.descriptors {
        let number = descriptor.number;
        if number < 3 {
            return Err(SpecError::Descriptor(number, "a standard one"));
        }
        if seen.contains(&number) {
            return Err(SpecError::Descriptor(number, "listed twice"));
        }
        // SAFETY: only borrowed for the one call, which fails cleanly when it is not open.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        if fcntl(borrowed, FcntlArg::F_GETFD).is_err() {
            return Err(SpecError::Descriptor(number, "not open"));
        }
        seen.push(number);
    }
    Ok(())
}
