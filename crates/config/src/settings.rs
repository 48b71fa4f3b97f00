//! The valid whole: what `load` hands to the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::compartment::Compartment;
use crate::source::{Origin, Span};
use crate::value::choice::{Accel, EngineKind, LogLevel, Machine, NetworkMode};
use crate::value::grant::LinkGrant;
use crate::value::name::{
    Argument, CompartmentName, ImageName, InterfaceName, MinisignKey, MirrorUrl, NetworkName,
    PackageName, ReleaseName,
};
use crate::value::net::Ipv4Cidr;
use crate::value::path::Program;
use crate::value::pci::Bdf;
use crate::value::size::Size;
use crate::value::syslog::SyslogServer;

/// Everything the configuration says that is valid, cross-checked.
///
/// A compartment with an error is not in `compartments` but in `broken`. References between what
/// is here hold, except that a router or a default disposable may name a broken compartment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Links to the host and outside.
    pub network: NetworkSettings,
    /// Devices kept away from the host's drivers.
    pub isolated_pci_devices: BTreeSet<Bdf>,
    /// Compartments that may be started.
    pub compartments: BTreeMap<CompartmentName, Compartment>,
    /// Declared compartments that may not, with the first reason.
    pub broken: BTreeMap<String, String>,
    /// Images; `debian` is always among them.
    pub images: BTreeMap<ImageName, ImageSettings>,
    /// Virtual networks that have members.
    pub networks: BTreeMap<NetworkName, VirtualNetwork>,
    /// Every engine, with defaults where nothing is written.
    pub engines: BTreeMap<EngineKind, EngineSettings>,
    /// Of the switch processes of virtual networks.
    pub switch: SwitchSettings,
    /// Of the audit log.
    pub audit: AuditSettings,
    /// Of questions about calls.
    pub ask: AskSettings,
}

/// `[network]`: links between compartments and host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Network the /31 links are cut from.
    pub cidr: Ipv4Cidr,
    /// Whether packets to the outside are masqueraded.
    pub nat_enable: bool,
    /// The only interface they leave by; any when `None`.
    pub nat_interface: Option<InterfaceName>,
    /// Whether compartments get IPv6 too.
    pub ipv6: bool,
    /// How compartments reach the outside.
    pub mode: NetworkMode,
    /// Who else than root may have links through the root helper; of the system's files only.
    pub grants: Vec<LinkGrant>,
}

/// A named virtual network with at least one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Whose members it has; never mixed.
    pub origin: Origin,
    /// The network the user fixed; the one in use is in `AssignedIds`.
    pub cidr: Option<Ipv4Cidr>,
    /// Its only router; possibly a broken compartment.
    pub router: CompartmentName,
    /// Its other members that are not broken.
    pub clients: BTreeSet<CompartmentName>,
}

/// `[image.NAME]`: how a root filesystem is obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSettings {
    /// Its name.
    pub name: ImageName,
    /// Whose configuration declares it.
    pub origin: Origin,
    /// Where its name stands; `None` for the implicit `debian`.
    pub declared: Option<Span>,
    /// Where the root filesystem comes from.
    pub source: ImageSource,
    /// Packages beside the base system; of debian and nixos images only.
    pub packages: BTreeSet<PackageName>,
    /// Key its manifests must be signed with.
    pub public_key: Option<MinisignKey>,
    /// Upper limit of the finished image.
    pub size: Option<Size>,
}

/// Where the root filesystem of an image comes from, with what only that source knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// Built from Debian packages.
    Debian {
        /// Release; the image builder's choice when `None`.
        suite: Option<ReleaseName>,
        /// Package archive; the image builder's choice when `None`.
        mirror: Option<MirrorUrl>,
        /// Archive areas; the image builder's choice when empty.
        components: Vec<ReleaseName>,
        /// Package with the kernel; the image builder's choice when `None`.
        kernel_package: Option<PackageName>,
    },
    /// An archive of a root filesystem.
    Tar {
        /// The archive.
        path: PathBuf,
    },
    /// A folder holding a root filesystem.
    Dir {
        /// The folder.
        path: PathBuf,
    },
    /// A folder in the OCI image layout.
    Oci {
        /// The folder.
        path: PathBuf,
    },
    /// A NixOS system.
    Nixos {
        /// Folder of the flake, or a built system in the Nix store.
        path: PathBuf,
        /// Output of the flake; that of the system with the image's name when `None`.
        attribute: Option<Argument>,
    },
    /// Brought by `casemate image import`.
    Imported,
}

/// `[engine.KIND]`: how an engine is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// The program; found by its usual name when `None`.
    pub binary: Option<Program>,
    /// How much it logs; the engine's own default when `None`.
    pub log_level: Option<LogLevel>,
    /// Arguments appended to its command line.
    pub extra_args: Vec<Argument>,
    /// Machine model (QEMU only).
    pub machine: Machine,
    /// How guest code is executed (QEMU only).
    pub accel: Accel,
}

/// `[switch]`: the process behind each virtual network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchSettings {
    /// How much it logs.
    pub log_level: LogLevel,
    /// Largest packet members may send, in bytes, without the Ethernet header.
    pub mtu: u16,
    /// Frames of a port may be recorded.
    pub capture: bool,
}

/// `[ask]`: how the user is asked about calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskSettings {
    /// The program that asks; what the desktop has when `None`.
    pub program: Option<Program>,
    /// Until a question that nobody answers is answered with no.
    pub timeout: Duration,
}

/// `[audit]`: the hash-chained record of decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// Whether it is written.
    pub enable: bool,
    /// Where each record is sent too.
    pub syslog: Option<SyslogSettings>,
    /// Whether each record also goes to the kernel's audit.
    pub auditd: bool,
    /// A file that grew beyond this is closed and the chain continued in the next.
    pub max_file_size: Size,
}

/// A syslog server and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogSettings {
    /// The server.
    pub server: SyslogServer,
    /// Certificates one of which must have signed its own; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// The certificate it is shown, and the key of that.
    pub identity: Option<(PathBuf, PathBuf)>,
}
