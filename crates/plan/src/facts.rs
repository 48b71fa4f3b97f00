//! What is known about the machine, as one value.
//!
//! `host::facts` gathers it; the plan and doctor read it. Nothing in this crate looks anything up,
//! so the same facts and settings always give the same plan.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::helper::HelperFacts;

/// Facts about the machine and the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostFacts {
    /// Machine architecture as uname(2) names it, such as `x86_64`.
    pub architecture: String,
    /// Logical processors that may be used.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Who asks.
    pub caller: Caller,
    /// The QEMU that would be used, when there is one.
    pub qemu: Option<QemuFacts>,
    /// The virtiofsd that would be used, when there is one: the first that is new enough, else the
    /// first.
    pub virtiofsd: Option<VirtiofsdFacts>,
    /// Whether KVM works.
    pub kvm: KvmFacts,
    /// Frequency of the time stamp counter in kHz, where it was measured.
    pub tsc_khz: Option<u32>,
    /// Landlock ABI of the kernel; 0 is none.
    pub landlock_abi: u32,
    /// Why user namespaces cannot be had; none when they can.
    pub user_namespaces: Result<(), String>,
    /// `newuidmap` and `newgidmap` are installed.
    pub newidmap: bool,
    /// Where casemate's own programs are.
    pub programs: OwnPrograms,
    /// Top-level system directories with programs and libraries that exist here
    /// (`/usr`, `/lib`, `/lib64`, `/nix/store`, …).
    pub system_directories: Vec<PathBuf>,
    /// What links to the host are made with.
    pub network: NetworkFacts,
}

/// What links to the host are made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NetworkFacts {
    /// pasta, of the package passt.
    pub pasta: Option<PathBuf>,
    /// nft, of the package nftables.
    pub nft: Option<PathBuf>,
    /// Why a process of another user cannot make a TAP device; none when it can.
    pub tun: Result<(), String>,
    /// `/etc/resolv.conf` without links.
    pub resolv_conf: Option<PathBuf>,
    /// The name servers in it.
    pub resolvers: Vec<IpAddr>,
    /// The root helper, where a compartment may have use for it.
    #[serde(default)]
    pub helper: HelperFacts,
}

/// The user on whose behalf the plan is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Login name.
    pub name: String,
    /// The longest range in `/etc/subuid` for this user: first id and count.
    pub subordinate_uids: Option<(u32, u32)>,
    /// The same in `/etc/subgid`.
    pub subordinate_gids: Option<(u32, u32)>,
}

/// The QEMU found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct QemuFacts {
    /// The program, absolute.
    pub path: PathBuf,
    /// Version, as `(7, 2, 22)`.
    pub version: (u32, u32, u32),
    /// Directories with its firmware and option ROMs that exist here.
    pub data_directories: Vec<PathBuf>,
}

/// The virtiofsd found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VirtiofsdFacts {
    /// The program, absolute.
    pub path: PathBuf,
    /// Version; none of the one in C that QEMU had before 8.0.
    pub version: Option<(u32, u32, u32)>,
}

impl VirtiofsdFacts {
    /// The oldest that can be used: the first that translates ids itself (`--translate-uid`).
    pub const OLDEST: (u32, u32, u32) = (1, 13, 0);

    /// New enough.
    pub fn is_usable(&self) -> bool {
        self.version.is_some_and(|version| version >= Self::OLDEST)
    }
}

/// What the probe of KVM said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum KvmFacts {
    /// A virtual machine was made and ran instructions.
    Works {
        /// How a process of another user can get at the node.
        node: KvmNode,
    },
    /// It does not, for this reason (one plain clause, such as "/dev/kvm does not exist").
    Unusable {
        /// The reason.
        reason: String,
    },
}

/// Who may open `/dev/kvm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmNode {
    /// Everybody (mode 0666).
    World,
    /// A supplementary group of the caller.
    Group,
    /// Only the caller himself (owner or an access-control list).
    Caller,
}

/// casemate's own companions of the `casemate` program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OwnPrograms {
    /// `casemate-supervisor`.
    pub supervisor: PathBuf,
    /// `casemate-link`, static.
    pub link: PathBuf,
    /// `casemate-jail`, static.
    pub jail: PathBuf,
    /// `casemate-agent`, static, for the guest.
    pub agent: PathBuf,
    /// `casemate-netns`, static.
    pub netns: PathBuf,
    /// `casemate-switch`, static.
    pub switch: PathBuf,
    /// `casemate-wayland`, static.
    #[serde(default)]
    pub wayland: PathBuf,
}

impl HostFacts {
    /// The same machine, had KVM turned out not to work.
    pub fn without_kvm(mut self) -> Self {
        let reason = "a guest said nothing under it".into();
        self.kvm = KvmFacts::Unusable { reason };
        self
    }
}
