//! Confinement as data: what one process may see and do.
//!
//! A [`Jail`] stands beside the process it confines in the plan, is printed with it, and is carried
//! out by `casemate-jail`, which reads it from a descriptor. Nothing here does anything.
//!
//! Always true and therefore not written down: `no_new_privs` is set, no capability is kept, all
//! namespaces are new (user, mount, PID, network, IPC, UTS, cgroup), core dumps are off, the
//! environment is empty but for what the process lists, no descriptor is open but the listed ones,
//! and the process is killed when its parent ends.
//!
//! **Invariant:** a jail has no network but with [`Reach::HostNetwork`]. What else needs one gets a
//! descriptor of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a process may see and do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Jail {
    /// The user the process runs as.
    pub identity: Identity,
    /// The whole of its file system: an otherwise empty, read-only tmpfs. Also the Landlock rules,
    /// where the kernel has Landlock.
    pub files: Vec<VisibleFile>,
    /// Resource limits.
    pub limits: Limits,
    /// What else of the host is in reach.
    #[serde(default)]
    pub reach: Reach,
}

/// What of the host a process reaches beside its files and descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Nothing: a network namespace of its own with nothing in it.
    #[default]
    Nothing,
    /// The caller's network. Such a process may go on to make namespaces and mounts of its own,
    /// which rules of Landlock for files would forbid: of Landlock it has only the scopes.
    HostNetwork,
}

/// The user and group of a process: subordinate ones that exist only for it, or, for what works on
/// the caller's own files, the caller himself or the owner of those files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    /// User id outside, mostly from the caller's range in `/etc/subuid`.
    pub uid: u32,
    /// Group id outside, mostly from the caller's range in `/etc/subgid`.
    pub gid: u32,
    /// How the id map is written.
    pub map: IdMapMethod,
    /// Keep the caller's supplementary groups: only where a device node (`/dev/kvm`) is open to
    /// one of them and the program cannot take it as a descriptor, or where the kernel lets nobody
    /// drop them ([`IdMapMethod::Caller`]).
    pub keep_groups: bool,
}

/// Who writes the id map of the user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdMapMethod {
    /// `newuidmap` and `newgidmap` (package uidmap), for an ordinary user.
    Newidmap,
    /// Written directly, by root.
    Direct,
    /// Written by the caller, of himself and his group alone, which needs no privilege. The kernel
    /// then forbids setgroups(2) (user_namespaces(7)), so his supplementary groups stay.
    Caller,
}

/// One path of the host that exists in the jail too, at the same place unless said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VisibleFile {
    /// Where it is on the host. A symbolic link is recreated as a link.
    pub source: PathBuf,
    /// Where the process sees it.
    pub target: PathBuf,
    /// What it may do there.
    pub access: Access,
    /// A missing source is no error (it differs between distributions).
    pub optional: bool,
    /// What must be found at the source: what was looked at before, and nothing that has taken its
    /// place since.
    pub inode: Option<Inode>,
}

/// What identifies a file for as long as somebody has it open, inode(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inode {
    /// Device of its file system.
    pub device: u64,
    /// Number in it.
    pub number: u64,
}

/// What a process may do below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read files and list directories.
    Read,
    /// Read, and execute programs and libraries.
    Execute,
    /// Read and write an existing file or device node; create nothing.
    Write,
    /// Read, write, create, rename and remove everything below a folder; execute nothing, and give
    /// no file the set-user-id or set-group-id bit.
    Change,
    /// Nothing: an empty folder, whatever the host has there.
    Empty,
    /// Make, use and remove sockets in a folder, and nothing else; what it makes is open to everybody
    /// who gets into the folder. Such a process may make no socket of another kind, and none of the
    /// system calls that programs rarely need and attackers like.
    Sockets,
}

/// Resource limits of a process (setrlimit(2)). The soft and the hard limit are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// RLIMIT_NOFILE: open descriptors.
    pub open_files: u64,
    /// RLIMIT_AS in bytes, where the need is known beforehand.
    pub address_space: Option<u64>,
    /// RLIMIT_FSIZE in bytes: how long a file may become by the process's writes.
    pub file_size: u64,
    /// RLIMIT_NPROC: processes and threads of the subordinate user.
    pub processes: u64,
}

impl VisibleFile {
    /// `path` at the same place, readable and executable.
    pub fn execute(path: impl Into<PathBuf>) -> Self {
        Self::same(path.into(), Access::Execute)
    }

    /// `path` at the same place, readable.
    pub fn read(path: impl Into<PathBuf>) -> Self {
        Self::same(path.into(), Access::Read)
    }

    /// `path` at the same place, an existing file or node that may be written.
    pub fn write(path: impl Into<PathBuf>) -> Self {
        Self::same(path.into(), Access::Write)
    }

    /// An empty folder at `path`, which need not exist on the host.
    pub fn empty(path: impl Into<PathBuf>) -> Self {
        Self::same(path.into(), Access::Empty)
    }

    /// Makes the absence of the source no error.
    pub fn if_there(mut self) -> Self {
        self.optional = true;
        self
    }

    fn same(path: PathBuf, access: Access) -> Self {
        Self { source: path.clone(), target: path, access, optional: false, inode: None }
    }
}
