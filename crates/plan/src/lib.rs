//! Decides everything, as data: settings and facts in, a [`Plan`] out.
//!
//! No I/O, no clock, no environment, no randomness: the same input gives the same bytes. Whoever
//! carries a plan out makes no decision of its own, so `casemate plan` can print it beforehand.
//!
//! ```text
//! config::Compartment ┐
//! facts::HostFacts    ├─▶ plan() ─▶ Plan { steps, processes with jails, guest, deadlines }
//! ImageParts          ┘
//! ```

mod by_helper;
pub mod facts;
pub mod firewall;
mod guest;
pub mod hardening;
pub mod helper;
pub mod identity;
pub mod jail;
pub mod network;
mod print;
pub mod process;
pub mod qemu;
pub mod qmp;
mod refusal;
pub mod service;
mod shares;
mod step;
pub mod switch;
mod unavailable;
mod vm;
pub mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use casemate_config::{
    AuditSettings, Compartment, DiskFormat, EngineSettings, NetworkSettings, SwitchSettings,
    VolumeName,
};
use serde::Serialize;

pub use print::print;
pub use refusal::Refusal;
pub use step::Step;
pub use vm::{available, module_groups, plan};

use facts::HostFacts;
use jail::Inode;
use network::{LinkParts, Network};
use process::Process;
use switch::{Port, PortParts};

/// What a plan is made from, beside the facts.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The compartment, or for a fresh disposable its template.
    pub compartment: &'a Compartment,
    /// Settings of its engine.
    pub engine: &'a EngineSettings,
    /// Settings of the audit log.
    pub audit: &'a AuditSettings,
    /// Who it will be.
    pub instance: Instance,
    /// Its image; none when it is not built yet.
    pub image: Option<ImageParts>,
    /// Name of the image, with what the compartment adds to it.
    pub image_name: String,
    /// Its volumes, in the order of the configuration; none for a fresh disposable.
    pub volumes: Vec<VolumeParts>,
    /// Its shares, in the order of the configuration.
    pub shares: Vec<ShareParts>,
    /// Contents of the host's files that `guest.files` names.
    pub file_sources: BTreeMap<PathBuf, Vec<u8>>,
    /// Those of the compartment's own disks that are block devices of the host.
    pub block_devices: BTreeSet<PathBuf>,
    /// `/etc/machine-id`: 32 hexadecimal digits, derived by the caller from name and host.
    pub machine_id: String,
    /// Directory for sockets and the lock.
    pub run_directory: PathBuf,
    /// Directory for logs.
    pub log_directory: PathBuf,
    /// The library of the allocator that the compartment asks for; empty when it asks for none.
    pub allocator: Vec<u8>,
    /// The kept memory its guest shall go on from; none when it boots.
    pub resume: Option<Resume>,
    /// Settings of links to the host.
    pub network: &'a NetworkSettings,
    /// Its own link; for a fresh disposable that of its template, as each has a network of its own.
    pub link: Option<LinkParts>,
    /// Settings of switches.
    pub switch: &'a SwitchSettings,
    /// What it was given in networks between compartments, by the networks' names; a fresh disposable
    /// has what its template has.
    pub ports: Vec<PortParts>,
    /// Directory for the control sockets and locks of switches.
    pub switches: PathBuf,
    /// Directory for their logs.
    pub switch_logs: PathBuf,
}

/// A kept memory of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Resume {
    /// The snapshot it was kept with.
    pub snapshot: String,
    /// Its file, encrypted.
    pub file: PathBuf,
}

/// One running of a compartment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Instance {
    /// Name of the running compartment.
    pub name: String,
    /// Number that no other running compartment has; see [`identity::identity`].
    pub slot: u32,
    /// A fresh disposable: ends with its first session.
    pub fresh: bool,
}

/// Files of an image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageParts {
    /// Digest of the manifest, hexadecimal.
    pub digest: String,
    /// Root file system.
    pub root: PathBuf,
    /// Its type.
    pub filesystem: String,
    /// How the guest checks its blocks; none while the image is not built.
    pub verity: Option<casemate_wire::Verity>,
    /// Kernel to boot.
    pub kernel: PathBuf,
    /// Initrd with our agent.
    pub initrd: PathBuf,
}

/// Files of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeParts {
    /// Its name.
    pub name: VolumeName,
    /// From the lowest to the one that is written to.
    pub layers: Vec<Layer>,
    /// Bytes offered to the guest.
    pub size: u64,
    /// It has to be formatted.
    pub blank: bool,
    /// Bytes encrypted as one.
    pub sector_size: u32,
}

/// A folder of the host, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareParts {
    /// Where it is, without symbolic links.
    pub folder: PathBuf,
    /// What it is.
    pub inode: Inode,
    /// Its owner and group.
    pub owner: (u32, u32),
}

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Where it is.
    pub path: PathBuf,
    /// Its format; never probed.
    pub format: DiskFormat,
}

/// Everything a start will do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Who runs.
    pub instance: Instance,
    /// How code is executed: `kvm` or `tcg`.
    pub acceleration: &'static str,
    /// Plain sentences the user should know, such as why KVM is not used.
    pub notes: Vec<String>,
    /// In order.
    pub steps: Vec<Step>,
    /// In the order of their start.
    pub processes: Vec<Process>,
    /// What the agent is told; clock and seed are filled in at the time.
    pub guest: casemate_wire::Boot,
    /// From the start of the VMM to a guest that is ready.
    pub boot_deadline: Duration,
    /// From the request to a guest that has shut down.
    pub stop_deadline: Duration,
    /// End this long after the last session; none stays.
    pub idle_timeout: Option<Duration>,
    /// When it is started again without being asked for.
    pub restart: service::Restart,
    /// How it is found out whether what it is for works.
    pub health_check: Option<service::HealthCheck>,
    /// The kept memory the guest goes on from, in place of booting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// What a machine must have in common with another to go on from its memory, by name: QEMU's
    /// version, its arguments without what differs from start to start, and the image.
    #[serde(skip)]
    pub machine: Vec<(String, String)>,
    /// Why the memory of its guest cannot be kept with a snapshot; none when it can.
    #[serde(skip)]
    pub memory_refused: Option<&'static str>,
    /// Its link to the host; none when it is offline.
    pub network: Option<Network>,
    /// Its ports in networks between compartments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
}

impl Plan {
    /// The process with this role.
    ///
    /// # Panics
    /// When the plan has none: every plan has each role once.
    pub fn process(&self, role: process::Role) -> &Process {
        self.processes.iter().find(|process| process.role == role).expect("each role is planned")
    }
}

impl Plan {
    /// The guest has folders of the host, so its memory is shared with their file servers, and a
    /// state of it cannot be saved: what it has open lives in them.
    pub fn has_shares(&self) -> bool {
        !self.guest.shares.is_empty()
    }
}

impl HostFacts {
    /// What a machine without hardware virtualization means, in one sentence.
    pub fn tcg_warning(reason: &str) -> String {
        format!(
            "KVM is not used ({reason}): the guest runs under emulation (TCG), which is slow and \
             no security boundary"
        )
    }
}
