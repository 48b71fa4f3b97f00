//! Making a guest out of a kernel, an initrd and a disk: everything process 1 does before the
//! first session.
//!
//! ```text
//! early        /dev, /sys, the initrd's modules        before the host has said anything
//! loopback     lo                                      while the host answers the greeting
//! set_up       randomness, clock                       from here on as `Boot` asks
//!   root       disk ▶ dm-verity ▶ read-only mount ▶ overlay ▶ switch root
//!   mounts     /proc, /dev/pts, /run, … , cgroup2
//!   network    its interfaces, the name server
//!   volumes    disk ▶ dm-crypt ▶ file system
//!   identity   names, sysctls, time zone
//!   users      accounts and homes
//!   shares     folders of the host
//!   files      what the host wants written
//!   secrets    a tmpfs with what only the guest shall read
//! ```
//!
//! Only a new or grown volume runs programs (of the image, which is verified), and nothing waits longer than a stated bound. The image is
//! verified by the host and no process of the guest runs yet, so paths can be trusted.

mod files;
pub(crate) mod identity;
mod mapper;
pub(crate) mod modules;
pub(crate) mod mounts;
mod network;
mod random;
mod root;
mod secrets;
mod shares;
mod units;
mod users;
mod volumes;

use std::io;
use std::path::PathBuf;

use casemate_wire::{Boot, Init};

use crate::log::Log;

/// What of the set-up did not work. The text is shown to the person who started the compartment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// mount(2).
    #[error("could not mount {what} at {target}")]
    Mount {
        /// File system or device.
        what: String,
        /// Where.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// No disk with that serial number appeared.
    #[error("could not find the disk {serial:?}: the guest has {present}")]
    NoDisk {
        /// Its serial number.
        serial: String,
        /// Those that are there.
        present: String,
    },
    /// dm-verity could not be set up.
    #[error("could not set up the check of the disk {serial:?} (dm-verity)")]
    Verity {
        /// The disk's serial number.
        serial: String,
        /// Why.
        source: io::Error,
    },
    /// The first blocks of the root do not verify.
    #[error("could not trust the disk {serial:?}: its blocks are not those of the image")]
    Damaged {
        /// The disk's serial number.
        serial: String,
        /// What reading them gave.
        source: Box<SetupError>,
    },
    /// None of the file systems this kernel knows.
    #[error("could not mount the disk {serial:?}: it has none of the file systems {known}")]
    NoFilesystem {
        /// The disk's serial number.
        serial: String,
        /// Those that were tried.
        known: String,
    },
    /// systemd has no such unit.
    #[error("could not start {unit:?}: the image has no such unit")]
    NoUnit {
        /// Its name.
        unit: String,
    },
    /// A file or folder.
    #[error("could not {verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A step without a file of its own.
    #[error("could not {what}")]
    Step {
        /// What was tried.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A file's owner is no account of the guest.
    #[error("could not write {path}: the guest has no user {owner:?}")]
    NoOwner {
        /// The file.
        path: String,
        /// Login name.
        owner: String,
    },
    /// A value that cannot be what it says.
    #[error("could not use {value:?}: it is no {what}")]
    Value {
        /// As the host sent it.
        value: String,
        /// What it should be.
        what: &'static str,
    },
}

impl SetupError {
    /// For `map_err` on something that happened to a file.
    pub(crate) fn file(
        verb: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { verb, path, source }
    }

    /// For `map_err` on something else.
    pub(crate) fn step<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| Self::Step { what, source: error.into() }
    }

    /// The sentence for a person: this error and its causes.
    pub(crate) fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// Whether it failed only because the file system may not be written: an image without
    /// overlay keeps the identity it came with.
    fn is_read_only(&self) -> bool {
        matches!(self, Self::File { source, .. }
            if source.kind() == io::ErrorKind::ReadOnlyFilesystem)
    }
}

/// Makes the guest as the host asks.
///
/// # Errors
/// The first step that did not work; the guest is of no use then.
pub(crate) fn set_up(boot: &Boot, log: &mut Log) -> Result<(), SetupError> {
    random::seed(&boot.seed).map_err(SetupError::step("seed the random numbers"))?;
    set_clock(boot.clock).map_err(SetupError::step("set the clock"))?;
    root::mount_root(&boot.root, boot.overlay_size, boot.restrictions.nosuid)?;
    root::switch(log)?;
    mounts::for_programs()?;
    let fresh = volumes::mount(&boot.volumes)?;
    for written in [identity::set(boot, log), users::create(boot, log)] {
        match written {
            Err(error) if !boot.root.overlay && error.is_read_only() => log.warn(error.sentence()),
            other => other?,
        }
    }
    volumes::give(&fresh, &boot.default_user)?;
    if let Some(interface) = &boot.network {
        network::set_up(interface)?;
    }
    for port in &boot.ports {
        network::set_up_port(port)?;
    }
    let servers = network::name_servers(boot);
    if boot.network.is_some() || !servers.is_empty() {
        network::write_resolv_conf(&servers, log)?;
    }
    shares::mount_all(&boot.shares)?;
    files::write(&boot.files)?;
    secrets::write(&boot.secrets, boot.init)?;
    match boot.init {
        Init::Agent => Ok(()),
        Init::Systemd => units::enable(&boot.units),
    }
}

/// Takes random numbers that no other life of this memory has had.
pub(crate) fn reseed(seed: &[u8]) -> io::Result<()> {
    random::seed(seed)?;
    random::reseed()
}

/// Sets the clock, in nanoseconds since 1970 UTC.
pub(crate) fn set_clock(nanoseconds: u64) -> io::Result<()> {
    let time = std::time::Duration::from_nanos(nanoseconds);
    let clock = nix::time::ClockId::CLOCK_REALTIME;
    Ok(nix::time::clock_settime(clock, nix::sys::time::TimeSpec::from_duration(time))?)
}
