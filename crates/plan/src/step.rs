//! The steps of a start, in order, each with what undoes it.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::Serialize;

use crate::helper::Order;
use crate::process::Role;

/// One step of a start. Carried out in order; undone in reverse order at the end of the
/// compartment's life or when a later step fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum Step {
    /// Build an image that is declared but not there. Done by the command line beforehand, with
    /// progress; the image stays.
    BuildImage {
        /// Its name.
        image: String,
    },
    /// Make the private directory for sockets and take its lock.
    RunDirectory {
        /// Where.
        path: PathBuf,
    },
    /// Compare manifest, kernel and initrd with their digests.
    CheckImage {
        /// Digest of the image.
        digest: String,
    },
    /// Take a volume, made when it is not there, and open its key.
    OpenVolume {
        /// Its name.
        volume: String,
    },
    /// Make the connected sockets between the processes.
    Channels,
    /// Start a process in its jail.
    Start {
        /// Which.
        role: Role,
    },
    /// Go back to a snapshot: of the volumes, and of the memory that is opened then.
    Revert {
        /// Its name.
        snapshot: String,
    },
    /// Wait until the network namespace is there, and take the guest's TAP device from it.
    AwaitNetwork {
        /// Deadline from the start of what makes it.
        seconds: u32,
    },
    /// Start another compartment that this one is behind, unless it runs, and wait until it is ready.
    /// Done by the supervisor beforehand; it stays.
    StartRouter {
        /// Its name.
        router: String,
        /// The network it is the router of.
        network: String,
    },
    /// Take a port of a network's switch, which is started if nobody has started it.
    Join {
        /// The network.
        network: String,
    },
    /// Ask the root helper for the link, and take the guest's TAP device from it. The connection
    /// stays: the link is there for as long.
    AskHelper {
        /// Its socket.
        socket: PathBuf,
        /// What is asked for.
        order: Box<Order>,
        /// Deadline of the answer.
        seconds: u32,
    },
    /// Wait for the agent's Hello, set the guest up, wait until it is ready.
    AwaitGuest {
        /// Deadline from the start of the VMM.
        seconds: u32,
    },
}

impl Step {
    /// What the step does, in a few words.
    pub fn describe(&self) -> String {
        match self {
            Self::BuildImage { image } => format!("build the image `{image}`"),
            Self::RunDirectory { path } => format!("make and lock {}", path.display()),
            Self::CheckImage { digest } => {
                format!("check the boot parts of image {}", &digest[..digest.len().min(16)])
            }
            Self::OpenVolume { volume } => format!("take the volume `{volume}` and open its key"),
            Self::Channels => "connect sockets between the processes".into(),
            Self::Start { role } => format!("start {} in its jail", role.describe()),
            Self::Revert { snapshot } => format!("go back to the snapshot {snapshot}"),
            Self::AwaitNetwork { seconds } => {
                format!("wait for the network, at most {seconds} s, and take its TAP device")
            }
            Self::StartRouter { router, network } => {
                format!("start `{router}`, the router of `{network}`, unless it runs")
            }
            Self::Join { network } => {
                format!(
                    "take a port of the network `{network}` (who takes the first starts its switch)"
                )
            }
            Self::AskHelper { socket, order, seconds } => {
                format!(
                    "ask casemate-netd ({}) for link {}, at most {seconds} s, and take its TAP device",
                    socket.display(),
                    order.id
                )
            }
            Self::AwaitGuest { seconds } => {
                format!("wait for the agent, at most {seconds} s, and set the guest up")
            }
        }
    }

    /// What undoes it, in a few words; none when nothing is left of it.
    pub fn undo(&self) -> Option<&'static str> {
        match self {
            Self::BuildImage { .. }
            | Self::CheckImage { .. }
            | Self::Revert { .. }
            | Self::StartRouter { .. }
            | Self::Channels => None,
            Self::OpenVolume { .. } => Some("let go of it"),
            Self::AwaitNetwork { .. } => Some("close it"),
            Self::Join { .. } => Some("leave it; the switch ends with its last port"),
            Self::AskHelper { .. } => Some("end the connection: the helper removes the link"),
            Self::RunDirectory { .. } => Some("remove it with everything in it"),
            Self::Start { .. } => Some("kill it with its PID namespace"),
            Self::AwaitGuest { .. } => Some("ask the guest to shut down"),
        }
    }
}

impl Role {
    /// The role in words.
    pub fn describe(self) -> Cow<'static, str> {
        match self {
            Self::Vmm => "the virtual machine monitor".into(),
            Self::Link => "the link process".into(),
            Self::Share(index) => format!("the file server of share {}", index + 1).into(),
            Self::Network => "the keeper of the network".into(),
            Self::Switch(_) => "the switch".into(),
            Self::Windows => "the proxy of its windows".into(),
            Self::Waypipe => "waypipe".into(),
        }
    }
}
