//! What the user wrote, read and judged: TOML or JSON in, valid settings and diagnostics out.
//!
//! Three steps, each its own shape: the text becomes a neutral *tree* whose nodes know their place
//! (`parse`, `tree`); the tree is checked against one declarative *schema* (`schema`, `check`) and
//! files, templates and defaults are laid over each other (`sections`, `layers`); what remains is
//! built into *settings* whose types cannot hold an impossible value (`build`, `cross`).
//! `Settings::assign` then gives ids, addresses and MACs to what has none.
//!
//! Pure: opens no file, reads no clock and no environment. What is valid but not built yet is not
//! this crate's concern; every setting is handed on so that the plan can refuse it by name.

mod assign;
mod build;
mod check;
mod compartment;
mod cross;
mod diagnostic;
mod flaw;
mod guest;
mod inherit;
mod layers;
mod loaded;
mod parse;
mod render;
mod schema;
mod sections;
mod settings;
mod shipped;
mod source;
mod suggest;
mod tree;
mod value;

pub use assign::{AssignedCompartment, AssignedIds, AssignedMember, AssignedNetwork};
pub use build::load;
pub use compartment::{
    AdditionalDisk, BlockSize, Compartment, Gpu, HealthCheck, KeySource, NetworkMembership, Secret,
    Share, Sound, VhostUserNet, Volume,
};
pub use diagnostic::{Concern, Diagnostic, Related, Severity};
pub use flaw::Flaw;
pub use guest::{FileContent, GuestFile, GuestSettings, GuestUser};
pub use ipnet;
pub use loaded::Loaded;
pub use render::render;
pub use schema::json::json_schema;
pub use schema::markdown::reference_markdown;
pub use settings::{
    AskSettings, AuditSettings, EngineSettings, ImageSettings, ImageSource, NetworkSettings,
    Settings, SwitchSettings, SyslogSettings, VirtualNetwork,
};
pub use source::{Document, Environment, Format, Origin, Source, Span, position};
pub use suggest::nearest;
pub use value::choice::{
    Accel, Allocator, DiskFormat, EngineKind, Filesystem, FirewallAction, GuestInit, Hardening,
    ImageSourceKind, LogLevel, Machine, NetworkMode, RestartPolicy, WindowRight,
};
pub use value::color::Color;
pub use value::firewall::{Destination, FirewallRule, PortRange, RuleHost, Traffic, Transport};
pub use value::grant::{Grantee, LinkGrant};
pub use value::id::CompartmentId;
pub use value::mac::MacAddr;
pub use value::name::{
    Argument, AuthorizedKey, CompartmentName, CompartmentType, DeviceIdentifier, DeviceModel,
    GroupName, Hostname, ImageName, InterfaceName, KernelParam, Label, MinisignKey, MirrorUrl,
    NetworkName, PackageName, ReleaseName, SecretName, ShareTag, SnapshotRule, SysctlName, Tag,
    TemplateName, Timezone, UnitName, UserName, VariableName, VolumeName,
};
pub use value::net::Ipv4Cidr;
pub use value::path::{FileMode, GuestPath, MountPoint, Program};
pub use value::pci::Bdf;
pub use value::size::{MIB, MemorySize, Size};
pub use value::syslog::{SyslogServer, SyslogTransport};
