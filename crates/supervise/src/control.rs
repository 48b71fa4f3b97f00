//! The control socket's interface: what clients may ask of a supervisor.
//!
//! Varlink, described in `casemate.Compartment.varlink`. A session's data does not pass here:
//! `Run` brings one end of a socket pair, which goes to the link process; the connection itself
//! then tells how the session fares, so a client also learns why a session could not go on.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use casemate_wire::TerminalSize;

/// Name of the interface.
pub const INTERFACE: &str = "casemate.Compartment";

/// Its description in the varlink language.
pub const DESCRIPTION: &str = include_str!("casemate.Compartment.varlink");

/// A method call or reply error as it travels: a name and parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Fully qualified method.
    pub method: String,
    /// Its parameters, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

/// A request, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// How is it?
    Status,
    /// Tell me when it is ready.
    Start,
    /// Run a command.
    Run(Box<Run>),
    /// End it.
    Stop(Stop),
    /// Stop executing guest code.
    Pause,
    /// Go on.
    Resume,
    /// Show the serial console.
    View(View),
    /// Signal one session's command.
    Signal(Signal),
    /// End one session.
    HangUp(HangUp),
    /// Take a snapshot of the volumes, and of the memory if that is asked for.
    Snapshot(Snapshot),
    /// What does it reach, and how often did it?
    Network,
}

/// Parameters of `Run`. Comes with one descriptor: the session's socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Program and arguments; empty for the user's login shell.
    #[serde(default)]
    pub argv: Vec<String>,
    /// In place of `argv` when an argument is not UTF-8: the bytes of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv_bytes: Option<Vec<Vec<u8>>>,
    /// `NAME=value`, added to the guest's environment.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Working directory in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Give it a terminal of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Size>,
    /// Outlive the client; output goes to a log.
    #[serde(default)]
    pub detach: bool,
    /// Run a service in place of `argv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// The socket of the client's Wayland compositor, an absolute path. Heard only from the
    /// supervisor's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
}

/// A service that somebody was allowed to call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its argument, without the `+`; empty when it has none.
    #[serde(default)]
    pub argument: String,
    /// Who calls.
    pub source: String,
    /// What the caller asked for as its target.
    pub target: String,
}

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl From<Size> for TerminalSize {
    fn from(size: Size) -> Self {
        Self { rows: size.rows, columns: size.columns }
    }
}

/// Parameters of `Stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Do not ask the guest.
    #[serde(default)]
    pub force: bool,
}

/// Parameters of `View`. Comes with one descriptor: the viewer's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Raw bytes both ways; else lines made harmless, to read only.
    #[serde(default)]
    pub interactive: bool,
}

/// Parameters of `Signal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The session's number.
    pub session: u32,
    /// Signal number, 1 to 64.
    pub signal: u8,
}

/// Parameters of `HangUp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HangUp {
    /// The session's number.
    pub session: u32,
}

/// Parameters of `Snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The snapshot's name.
    pub name: String,
    /// Keep the memory of the guest too.
    #[serde(default)]
    pub memory: bool,
}

/// What a supervisor says of its compartment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of the compartment.
    pub name: String,
    /// `booting`, `running`, `paused`, `stopping`, `waiting` (to be started again).
    pub state: String,
    /// Seconds since the supervisor started.
    pub uptime: u64,
    /// `kvm` or `tcg`.
    pub acceleration: String,
    /// Process id of the supervisor.
    pub supervisor_pid: u32,
    /// Process ids of its processes, by role.
    pub processes: Vec<ProcessStatus>,
    /// Image digest.
    pub image: String,
    /// Version of the agent, once it said Hello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Kernel release of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Running sessions.
    pub sessions: Vec<SessionStatus>,
    /// Things the user should know.
    pub notes: Vec<String>,
    /// `starting`, `healthy` or `unhealthy`, where a health check is declared and the guest runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// How often it was started again by itself.
    #[serde(default)]
    pub restarts: u32,
    /// Why it ended the last time, if it was started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
}

/// What a supervisor says of its compartment's link to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Ethernet address of the guest.
    pub mac: String,
    /// Its address.
    pub address: String,
    /// The other end of its link.
    pub gateway: String,
    /// What it asks for names.
    pub resolver: String,
    /// `accept` or `drop`: what happens to what no rule matches.
    pub default: String,
    /// The rules, in order.
    pub rules: Vec<String>,
    /// `rootless`, or `tap`: how it is made.
    pub way: String,
    /// The TAP device; of the host, or of the compartment's own namespace.
    pub device: String,
    /// Packets so far, by what decided: `rule0`, `default`, `protected`, `spoofed-mac`, ….
    pub counters: Vec<Counter>,
}

/// How many packets met one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// A process of a compartment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its role.
    pub role: String,
    /// Process id of its monitor on the host.
    pub pid: u32,
}

/// A running session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// Its number.
    pub session: u32,
    /// What runs, made harmless and cut.
    pub command: String,
    /// User in the guest; the default user when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Process id in the guest, once it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// It has no client.
    pub detached: bool,
    /// Seconds since it was asked for.
    pub age: u64,
}

/// A reply of `Start`, `Run` and `Stop`; several when the call said `more`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// State of the compartment: as in [`Status`], and `stopped`.
    pub state: String,
    /// Number of the session, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// Things the user should know about this start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Something that did not work while the session went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<Warning>,
}

/// Something that did not work and ends nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// What the user can do.
    pub hint: String,
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The compartment could not be started, or ended in the meantime.
    Ended {
        /// What happened.
        reason: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// It is about to end; ask again when it is gone.
    Stopping,
    /// As many sessions as are allowed.
    TooManySessions,
    /// Not in this state.
    WrongState {
        /// The state it is in.
        state: String,
    },
    /// There is no such session.
    NoSuchSession,
    /// The descriptor that belongs to the call is missing.
    NoDescriptor,
    /// Not a method of the interface.
    MethodNotFound {
        /// What was called.
        method: String,
    },
    /// Parameters that do not fit.
    InvalidParameter {
        /// What is wrong.
        parameter: String,
    },
    /// Not for this user.
    PermissionDenied,
    /// The compartment goes on, but this was not done.
    Failed {
        /// What happened.
        reason: String,
        /// What the user can do.
        hint: Option<String>,
    },
}

/// A failure as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorReply {
    /// Fully qualified name.
    pub error: String,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

impl Failure {
    /// The reply that says so.
    pub fn to_reply(&self) -> ErrorReply {
        let own = |name: &str| format!("{INTERFACE}.{name}");
        let service = |name: &str| format!("org.varlink.service.{name}");
        let (error, parameters) = match self {
            Self::Ended { reason, hint } => {
                (own("Ended"), Some(serde_json::json!({ "reason": reason, "hint": hint })))
            }
            Self::Stopping => (own("Stopping"), None),
            Self::TooManySessions => (own("TooManySessions"), None),
            Self::WrongState { state } => {
                (own("WrongState"), Some(serde_json::json!({ "state": state })))
            }
            Self::NoSuchSession => (own("NoSuchSession"), None),
            Self::NoDescriptor => (own("NoDescriptor"), None),
            Self::MethodNotFound { method } => {
                (service("MethodNotFound"), Some(serde_json::json!({ "method": method })))
            }
            Self::InvalidParameter { parameter } => {
                (service("InvalidParameter"), Some(serde_json::json!({ "parameter": parameter })))
            }
            Self::PermissionDenied => (service("PermissionDenied"), None),
            Self::Failed { reason, hint } => {
                (own("Failed"), Some(serde_json::json!({ "reason": reason, "hint": hint })))
            }
        };
        ErrorReply { error, parameters }
    }

    /// The failure a reply speaks of; one that is not known becomes [`Failure::Ended`] in its own
    /// words.
    pub fn from_reply(reply: &ErrorReply) -> Self {
        let text = |key: &str| reply.parameters.as_ref()?.get(key)?.as_str().map(str::to_owned);
        match reply.error.rsplit('.').next().unwrap_or_default() {
            "Ended" => {
                Self::Ended { reason: text("reason").unwrap_or_default(), hint: text("hint") }
            }
            "Stopping" => Self::Stopping,
            "TooManySessions" => Self::TooManySessions,
            "WrongState" => Self::WrongState { state: text("state").unwrap_or_default() },
            "NoSuchSession" => Self::NoSuchSession,
            "NoDescriptor" => Self::NoDescriptor,
            "PermissionDenied" => Self::PermissionDenied,
            "Failed" => {
                Self::Failed { reason: text("reason").unwrap_or_default(), hint: text("hint") }
            }
            _ => Self::Ended { reason: format!("the supervisor said {}", reply.error), hint: None },
        }
    }
}

impl Request {
    /// Understands a call.
    pub fn from_message(message: Message) -> Result<Self, Failure> {
        fn parameters<T: serde::de::DeserializeOwned>(value: Option<Value>) -> Result<T, Failure> {
            let value = value.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
            serde_json::from_value(value)
                .map_err(|error| Failure::InvalidParameter { parameter: error.to_string() })
        }
        let Some(method) = message.method.strip_prefix(INTERFACE).and_then(|m| m.strip_prefix('.'))
        else {
            return Err(Failure::MethodNotFound { method: message.method });
        };
        Ok(match method {
            "Status" => Self::Status,
            "Start" => Self::Start,
            "Run" => Self::Run(Box::new(parameters(message.parameters)?)),
            "Stop" => Self::Stop(parameters(message.parameters)?),
            "Pause" => Self::Pause,
            "Resume" => Self::Resume,
            "View" => Self::View(parameters(message.parameters)?),
            "Signal" => Self::Signal(parameters(message.parameters)?),
            "HangUp" => Self::HangUp(parameters(message.parameters)?),
            "Snapshot" => Self::Snapshot(parameters(message.parameters)?),
            "Network" => Self::Network,
            _ => return Err(Failure::MethodNotFound { method: message.method }),
        })
    }

    /// The call that asks for this.
    pub fn to_message(&self) -> Message {
        let value = |result: serde_json::Result<Value>| result.ok();
        let (name, parameters) = match self {
            Self::Status => ("Status", None),
            Self::Start => ("Start", None),
            Self::Run(run) => ("Run", value(serde_json::to_value(run))),
            Self::Stop(stop) => ("Stop", value(serde_json::to_value(stop))),
            Self::Pause => ("Pause", None),
            Self::Resume => ("Resume", None),
            Self::View(view) => ("View", value(serde_json::to_value(view))),
            Self::Signal(signal) => ("Signal", value(serde_json::to_value(signal))),
            Self::HangUp(hang_up) => ("HangUp", value(serde_json::to_value(hang_up))),
            Self::Snapshot(snapshot) => ("Snapshot", value(serde_json::to_value(snapshot))),
            Self::Network => ("Network", None),
        };
        Message { method: format!("{INTERFACE}.{name}"), parameters }
    }
}
