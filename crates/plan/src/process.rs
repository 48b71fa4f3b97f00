//! A planned process: its program, arguments, descriptors and jail.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::jail::Jail;

/// One process that a compartment needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Process {
    /// What it is in the compartment.
    pub role: Role,
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Arguments, without the program's name.
    pub arguments: Vec<String>,
    /// Environment, whole.
    pub environment: Vec<(String, String)>,
    /// Descriptors it starts with, beside 0 (`/dev/null`), 1 and 2 (the supervisor's log).
    pub descriptors: Vec<Descriptor>,
    /// What it may see and do.
    pub jail: Jail,
}

/// What a process is in its compartment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The virtual machine monitor.
    Vmm,
    /// The process that decodes what the guest sends.
    Link,
    /// The file server of one share, by its place in the configuration, from 0.
    Share(u16),
    /// What keeps the network namespace of the link to the host.
    Network,
    /// The switch of a network between compartments, which is no one compartment's; by a number that
    /// says which user it is ([`crate::identity::switch_number`]).
    Switch(u16),
    /// What draws the borders of windows, and keeps their clipboard.
    Windows,
    /// What carries windows: waypipe.
    Waypipe,
}

/// A descriptor handed to a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Descriptor {
    /// Its number in the process, 3 or more.
    pub number: i32,
    /// What it is.
    pub what: DescriptorSource,
}

/// Where a descriptor comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum DescriptorSource {
    /// One end of a connected pair of unix sockets. The other end goes to the process that names
    /// the same channel, or stays with the supervisor when none does.
    Channel {
        /// Which pair.
        channel: Channel,
    },
    /// The listening end of a channel whose other end is connected to it.
    Listener {
        /// Which.
        channel: Channel,
    },
    /// An opened file.
    File {
        /// Path on the host.
        path: PathBuf,
        /// Opened for writing too.
        writable: bool,
    },
    /// A file opened for appending, created with mode 0600.
    Log {
        /// Path on the host.
        path: PathBuf,
    },
    /// A file in memory that holds a text, at its beginning.
    Text {
        /// Its content.
        text: String,
    },
    /// The TAP device that [`Role::Network`] made.
    Tap,
    /// What whoever starts a process for others too makes beside it.
    Shared {
        /// Which.
        part: SharedPart,
    },
}

/// What a switch is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedPart {
    /// The listening control socket.
    Control,
    /// The lock that says there is one, which is held for as long as this descriptor is open.
    Lock,
}

/// The connections between the processes of a compartment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// VMM to link: the agent's virtio-serial port.
    Agent,
    /// VMM to link: the serial console.
    Console,
    /// VMM to supervisor: QMP.
    Monitor,
    /// Link to supervisor: typed messages, with descriptors of session sockets.
    Orders,
    /// VMM to the file server of a share: vhost-user. The server listens.
    Share(u16),
    /// Supervisor to VMM: the kept memory that the guest goes on from, decrypted on its way.
    Memory,
    /// What keeps the network to supervisor: typed messages, the first with the TAP device.
    Network,
    /// waypipe to what draws borders: the Wayland protocol. The latter listens.
    Display,
    /// What draws borders to supervisor: connections to the compositor are asked for.
    Compositor,
    /// The clipboard's commands to what draws borders. The latter listens.
    Clipboard,
}

impl DescriptorSource {
    /// The channel it is an end of.
    pub fn channel(&self) -> Option<Channel> {
        match self {
            Self::Channel { channel } | Self::Listener { channel } => Some(*channel),
            Self::File { .. } | Self::Log { .. } | Self::Text { .. } => None,
            Self::Tap | Self::Shared { .. } => None,
        }
    }
}

impl Role {
    /// The role in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vmm => "vmm",
            Self::Link => "link",
            Self::Share(_) => "share",
            Self::Network => "network",
            Self::Switch(_) => "switch",
            Self::Windows => "windows",
            Self::Waypipe => "waypipe",
        }
    }
}
