//! A valid compartment: every setting in its final form.
//!
//! Nothing here refers to a template any more, holds a relative path, or is out of range. What the
//! machine can do with it is the plan's question.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use crate::guest::GuestSettings;
use crate::source::{Origin, Span};
use crate::value::choice::{
    DiskFormat, EngineKind, Filesystem, FirewallAction, LogLevel, Machine, RestartPolicy,
    WindowRight,
};
use crate::value::color::Color;
use crate::value::firewall::FirewallRule;
use crate::value::id::CompartmentId;
use crate::value::mac::MacAddr;
use crate::value::name::{
    Argument, CompartmentName, CompartmentType, DeviceIdentifier, DeviceModel, ImageName,
    KernelParam, Label, NetworkName, PackageName, SecretName, ShareTag, SnapshotRule, Tag,
    TemplateName, UserName, VolumeName,
};
use crate::value::path::{FileMode, MountPoint};
use crate::value::pci::Bdf;
use crate::value::size::{MemorySize, Size};

/// One compartment, valid and with everything inherited already in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compartment {
    /// Its name.
    pub name: CompartmentName,
    /// Whose configuration declares it.
    pub origin: Origin,
    /// Where its name stands in the sources.
    pub declared: Span,
    /// The template it names; for display, as its settings are already in place.
    pub template: Option<TemplateName>,
    /// The id the user fixed; the one in use is in `AssignedIds`.
    pub id: Option<CompartmentId>,
    /// What runs it.
    pub engine: EngineKind,
    /// The image it starts from.
    pub image: ImageName,
    /// Its memory.
    pub memory: MemorySize,
    /// Virtual processors.
    pub cpus: NonZeroU8,
    /// Machine model, where it differs from the engine's.
    pub machine: Option<Machine>,
    /// Whether it has a /31 link to the host and NAT.
    pub host_networking: bool,
    /// First matching rule decides.
    pub firewall: Vec<FirewallRule>,
    /// What happens to packets that no rule matches.
    pub firewall_default: FirewallAction,
    /// Policy tags.
    pub tags: BTreeSet<Tag>,
    /// Policy type.
    pub compartment_type: CompartmentType,
    /// Left out of the choices that a policy question offers.
    pub internal: bool,
    /// What `@dispvm` means for requests of this compartment; declared, but possibly broken.
    pub default_disposable: Option<CompartmentName>,
    /// Whether fresh disposables may be made from it.
    pub disposable_template: bool,
    /// Who may use it.
    pub users: BTreeSet<UserName>,
    /// Whether it ends itself when idle and forgets everything.
    pub disposable: bool,
    /// How long a disposable waits for a next session; whole seconds.
    pub idle_timeout: Duration,
    /// Encrypted disks that last.
    pub volumes: Vec<Volume>,
    /// Which of the snapshots taken at each stop are kept; none is taken when `None`.
    pub keep_snapshots: Option<SnapshotRule>,
    /// Disks handed in as they are.
    pub additional_disks: Vec<AdditionalDisk>,
    /// Replaces the root disk of the image.
    pub root_disk: Option<PathBuf>,
    /// Whether the root disk is protected from writing.
    pub root_disk_readonly: bool,
    /// Replaces the kernel of the image.
    pub kernel: Option<PathBuf>,
    /// Replaces the initial RAM filesystem of the image.
    pub initramfs: Option<PathBuf>,
    /// Appended to the kernel's command line.
    pub kernel_params: Vec<KernelParam>,
    /// Host folders seen in the guest.
    pub shares: Vec<Share>,
    /// Accelerated graphics.
    pub gpu: Gpu,
    /// Sound.
    pub sound: Sound,
    /// PCI devices handed to the guest; all of them isolated, none used by another compartment.
    pub pci_devices: Vec<Bdf>,
    /// Virtual networks it is a member of.
    pub networks: BTreeMap<NetworkName, NetworkMembership>,
    /// Interfaces on somebody else's switches; `None`: only those its `networks` need.
    pub vhost_user_net: Option<Vec<VhostUserNet>>,
    /// Packages added to its image.
    pub programs: BTreeSet<PackageName>,
    /// Settings inside of the guest.
    pub guest: GuestSettings,
    /// Secrets it is given at run time.
    pub secrets: BTreeMap<SecretName, Secret>,
    /// What opens them; the user's own age identity when `None`.
    pub secrets_identity: Option<PathBuf>,
    /// Colour of its window borders.
    pub color: Color,
    /// Text on its window borders.
    pub label: Label,
    /// What its windows may do beyond the usual.
    pub window_rights: BTreeSet<WindowRight>,
    /// Whether it starts with the machine (system) or the login (user).
    pub autostart: bool,
    /// Whether it is started again when it ended.
    pub restart: RestartPolicy,
    /// How it is found out whether what it is for works.
    pub health_check: Option<HealthCheck>,
    /// Log level of its engine, where it differs from `[engine.*]`.
    pub log_level: Option<LogLevel>,
    /// Arguments appended to the engine's, after those of `[engine.*]`.
    pub extra_args: Vec<Argument>,
}

/// A command run in the guest again and again: all is well while it ends with 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Program and arguments; at least the program.
    pub command: Vec<Argument>,
    /// Whom it runs as; the guest's `user` when `None`.
    pub user: Option<UserName>,
    /// From the end of one check to the next; whole seconds.
    pub interval: Duration,
    /// A check that takes longer has failed; whole seconds.
    pub timeout: Duration,
    /// So many failures one after the other make it unhealthy; at least 1.
    pub retries: u32,
    /// How long failures do not count after the start, before the first success; whole seconds.
    pub start_period: Duration,
}

/// An encrypted disk of one compartment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Unique within the compartment.
    pub name: VolumeName,
    /// Space offered to the guest.
    pub size: Size,
    /// Where the guest mounts it; unique among volumes and shares.
    pub mount_point: MountPoint,
    /// How it is formatted at first use.
    pub filesystem: Filesystem,
    /// What opens it.
    pub key: KeySource,
}

/// What opens a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Asked for when the compartment starts.
    Passphrase,
    /// Sealed by the machine's TPM 2.0.
    Tpm2,
    /// A file holding the key, encrypted with age.
    Age(PathBuf),
}

/// A disk image or block device handed in as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdditionalDisk {
    /// Image file or block device of the host.
    pub path: PathBuf,
    /// Its format; never probed.
    pub format: DiskFormat,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// Whether freed blocks are given back to the host.
    pub enable_discard: bool,
    /// Logical block size in bytes.
    pub block_size: BlockSize,
    /// Serial the guest finds it by; unique within the compartment.
    pub dev_identifier: Option<DeviceIdentifier>,
    /// Whether the host's page cache is avoided (O_DIRECT).
    pub use_direct: bool,
}

/// Logical block size of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes.
    B4096,
}

impl BlockSize {
    /// In bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

/// A host folder seen in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Folder of the host.
    pub source: PathBuf,
    /// Where the guest mounts it; unique among volumes and shares.
    pub mount_point: MountPoint,
    /// virtio-fs tag, unique within the compartment.
    pub tag: ShareTag,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// Accelerated graphics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpu {
    /// Whatever the engine does by itself.
    EngineDefault,
    /// None.
    Off,
    /// This model, in the engine's words.
    Model(DeviceModel),
}

/// Sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sound {
    /// None.
    Off,
    /// The engine's default device.
    On,
    /// This device, in the engine's words.
    Model(DeviceModel),
}

/// How a compartment takes part in a virtual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkMembership {
    /// Whether it is the network's only router.
    pub router: bool,
    /// The address the user fixed; the one in use is in `AssignedIds`.
    pub mac_address: Option<MacAddr>,
}

/// An interface whose other end is somebody else's switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostUserNet {
    /// Unix socket of the vhost-user back-end.
    pub socket: PathBuf,
}

/// A secret: encrypted at rest, a file in the guest's tmpfs at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// File of the host, encrypted with age.
    pub file: PathBuf,
    /// Who owns it in the guest.
    pub owner: UserName,
    /// Permission bits in the guest.
    pub mode: FileMode,
}
