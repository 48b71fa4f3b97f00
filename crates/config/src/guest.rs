//! Valid settings of what happens inside of a guest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::value::choice::{Allocator, GuestInit, Hardening};
use crate::value::name::{
    Argument, AuthorizedKey, GroupName, Hostname, SysctlName, Timezone, UnitName, UserName,
    VariableName,
};
use crate::value::path::{FileMode, GuestPath};
use crate::value::size::Size;

/// The `guest` table, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSettings {
    /// Host name; the compartment's name unless set.
    pub hostname: Hostname,
    /// Users that exist beside root and the image's own; always holds `user` unless that is root.
    pub users: Vec<GuestUser>,
    /// Whom sessions run as when nothing else is asked for.
    pub user: UserName,
    /// Keys that open an ssh session as `user`.
    pub authorized_keys: Vec<AuthorizedKey>,
    /// Who is process 1.
    pub init: GuestInit,
    /// How strictly kernel and services are set.
    pub hardening: Hardening,
    /// Memory allocator of programs.
    pub allocator: Allocator,
    /// Largest size of the tmpfs above the root, which takes what is written there; half the
    /// memory when `None`.
    pub overlay_size: Option<Size>,
    /// Units that systemd starts; empty when `init` is the agent.
    pub services: BTreeSet<UnitName>,
    /// Files written before anything starts.
    pub files: BTreeMap<GuestPath, GuestFile>,
    /// Kernel settings, applied after those of `hardening`.
    pub sysctls: BTreeMap<SysctlName, Argument>,
    /// Time zone; the image's when `None`.
    pub timezone: Option<Timezone>,
    /// Environment of every session.
    pub env: BTreeMap<VariableName, Argument>,
}

/// A user of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestUser {
    /// Login name, unique and never root.
    pub name: UserName,
    /// User id, 1 to 65533 and unique.
    pub uid: u32,
    /// Groups beside the user's own.
    pub groups: BTreeSet<GroupName>,
    /// Login shell; the image's default when `None`.
    pub shell: Option<GuestPath>,
    /// Whether becoming root within the guest asks for no password.
    pub password_less: bool,
}

/// A file written into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFile {
    /// Where its bytes come from.
    pub content: FileContent,
    /// Permission bits.
    pub mode: FileMode,
    /// Who owns it.
    pub owner: UserName,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// This text.
    Text(String),
    /// A file of the host.
    Source(PathBuf),
}
