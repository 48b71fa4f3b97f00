//! Switches of networks between compartments: taking a port of one, which is started by whoever needs
//! it first, and asking it things.
//!
//! ```text
//! connect ─ somebody listens ─────────────────────▶ add our port ─▶ the connection keeps it
//!    │                                                   │ it ended meanwhile
//!    └ nobody ─▶ take the lock ─ ours ─▶ start it ───────┘▶ from the beginning
//!                     └ theirs: it starts, or ends ─▶ from the beginning
//! ```
//!
//! The lock is handed to the switch, which has it for as long as it lives: there is never a second one.
//! What a switch answers is casemate's own words, unless a guest has taken it over: answers have a limit,
//! and texts in them are made [`plain`].

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate_plan::process::{DescriptorSource, SharedPart};
use casemate_plan::switch::{PATIENCE_SECONDS, Port, Switch};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, recv, sendmsg, setsockopt, sockopt::ReceiveTimeout,
    sockopt::SendTimeout,
};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::launch::{LaunchError, launch_detached};
use crate::lock::{Lock, Taking};
use crate::sockets;

/// Longest answer, in bytes: 256 ports of some 500 each.
const LONGEST_ANSWER: usize = 256 * 1024;

/// Until it is looked again whether somebody else has started it.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a switch may take to end.
const LEAVING: Duration = Duration::from_millis(200);

/// How a switch refuses a port whose Ethernet address another has.
const TAKEN: &str = "its MAC address is taken";

/// Until a port is free whose last holder has gone.
const HANDOVER: Duration = Duration::from_secs(1);

/// Times that one is started which ends at once.
const STARTS: u32 = 3;

/// Connections that wait for a switch: as many as it has ports, when it is started anew.
const BACKLOG: i32 = 256;

/// Why there is no port, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// A file or folder.
    #[error("could not {verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// On which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The switch was started and did not stay.
    #[error("could not start the switch of the network `{network}`: it ends at once{said}")]
    Ended {
        /// The network.
        network: String,
        /// What it has said last.
        said: String,
    },
    /// It could not be started.
    #[error("could not start the switch of the network `{network}`")]
    Launch {
        /// The network.
        network: String,
        /// Why not.
        #[source]
        source: LaunchError,
    },
    /// Somebody holds its lock and does not listen.
    #[error(
        "could not reach the switch of the network `{0}`: it has held its lock for \
         {PATIENCE_SECONDS} s without listening"
    )]
    Silent(String),
    /// Another disposable is there.
    #[error(
        "the compartment's address there is taken: one of its disposables can be in a network at a time"
    )]
    Taken,
    /// It answers that it will not.
    #[error("the switch refuses: {0}")]
    Refused(String),
    /// It has gone.
    #[error("the switch has ended")]
    Gone,
    /// The socket to it.
    #[error("could not talk to the switch")]
    Socket(#[source] io::Error),
    /// It answers what nobody has asked.
    #[error("could not understand the switch")]
    Malformed,
}

/// A connection to a switch.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Connects to the switch that listens there; none when there is none.
    ///
    /// # Errors
    /// There is one that cannot be connected to.
    pub fn connect(path: &Path) -> Result<Option<Self>, SwitchError> {
        let socket = sockets::packet_socket().map_err(SwitchError::Socket)?;
        // Both for what it is asked; the first also for connecting.
        let patience = TimeVal::new(PATIENCE_SECONDS.into(), 0);
        setsockopt(&socket, SendTimeout, &patience)
            .and_then(|()| setsockopt(&socket, ReceiveTimeout, &patience))
            .map_err(|error| SwitchError::Socket(error.into()))?;
        match sockets::connect_packets(&socket, path) {
            Ok(()) => Ok(Some(Self(socket))),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(SwitchError::Socket(error)),
            },
        }
    }

    /// Asks something, with a descriptor beside it, and waits for the answer.
    ///
    /// # Errors
    /// It is refused, or the switch has gone.
    pub fn ask(
        &self,
        request: &Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, SwitchError> {
        let text = request.to_string();
        let numbers: Vec<i32> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &[] } else { &rights[..] };
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(lost)?;
        let mut answer = vec![0; LONGEST_ANSWER];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()).map_err(lost)?;
        if length == 0 {
            return Err(SwitchError::Gone);
        }
        let answer: Value =
            serde_json::from_slice(&answer[..length]).map_err(|_| SwitchError::Malformed)?;
        match answer.get("error").and_then(Value::as_str) {
            Some(reason) => Err(SwitchError::Refused(plain(reason))),
            None => Ok(answer),
        }
    }
}

/// Longest text of a switch that is shown.
const LONGEST_TEXT: usize = 256;

/// A switch that a guest has taken over may say anything: nothing of it moves a terminal's cursor.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect()
}

fn lost(error: Errno) -> SwitchError {
    match error {
        Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => SwitchError::Gone,
        other => SwitchError::Socket(other.into()),
    }
}

/// Takes the port, of a switch that is started if there is none. The port lasts as long as what is
/// returned is open; it becomes readable when the switch ends.
///
/// # Errors
/// See [`SwitchError`].
pub fn join(port: &Port, jail_program: &Path) -> Result<OwnedFd, SwitchError> {
    let request = json!({ "add": {
        "name": port.name,
        "role": if port.router { "router" } else { "client" },
        "mac": port.mac.to_string(),
        "ip": [port.address],
        "not-from": port.not_from.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "held": true,
    }});
    let begin = Instant::now();
    let mut starts = 0;
    loop {
        let connection = match Control::connect(&port.switch.control)? {
            Some(connection) => Some(connection),
            None if starts == STARTS => {
                let (network, said) = (port.network.clone(), last_line(&port.switch.log));
                return Err(SwitchError::Ended { network, said });
            }
            None => {
                let started = start(&port.switch, &port.network, jail_program)?;
                starts += u32::from(started.is_some());
                started
            }
        };
        // Not before: a VMM that connects waits for an answer, and can do nothing else meanwhile.
        let asked = match connection {
            Some(connection) => {
                let listener = listen(&port.socket)?;
                let asked = connection.ask(&request, Some(listener.as_fd()));
                Some(asked.map(|_| connection.0))
            }
            None => None,
        };
        match asked {
            Some(Ok(socket)) => return Ok(socket),
            // It was about to end.
            Some(Err(SwitchError::Gone)) | None => {}
            // Whoever had it before us may have gone a moment ago.
            Some(Err(SwitchError::Refused(reason)))
                if reason.ends_with("taken") && begin.elapsed() < HANDOVER => {}
            Some(Err(SwitchError::Refused(reason))) if reason.ends_with(TAKEN) => {
                return Err(SwitchError::Taken);
            }
            Some(Err(error)) => return Err(error),
        }
        if begin.elapsed().as_secs() >= PATIENCE_SECONDS.into() {
            return Err(SwitchError::Silent(port.network.clone()));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Removes what the switch of a network has left, if it has ended, or does so just now. For whoever has
/// given up the last port; nothing is lost when it stays.
pub fn tidy(switch: &Switch) {
    let begin = Instant::now();
    while begin.elapsed() < LEAVING {
        match Lock::take(&switch.lock) {
            Ok(Taking::Ours(lock)) => {
                let _ = remove(&switch.control).and_then(|()| remove(&switch.lock));
                return drop(lock);
            }
            Ok(Taking::Theirs(_)) if !has_ports(switch) => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
}

/// Somebody has a port of it; who has just gone may count for a moment.
fn has_ports(switch: &Switch) -> bool {
    let Ok(Some(control)) = Control::connect(&switch.control) else { return false };
    let stats = control.ask(&json!({ "stats": {} }), None);
    stats.is_ok_and(|stats| stats["ports"].as_array().is_some_and(|ports| !ports.is_empty()))
}

/// Listens for the VMM, which is another user, in a folder that it sees alone.
fn listen(path: &Path) -> Result<OwnedFd, SwitchError> {
    let failed = |verb| move |source| SwitchError::File { verb, path: path.into(), source };
    if let Some(folder) = path.parent() {
        make_folder(folder, 0o711).map_err(failed("make the folder of"))?;
    }
    remove(path).map_err(failed("remove"))?;
    let listener = sockets::listen(path).map_err(failed("listen at"))?;
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed("open"))?;
    Ok(listener.into())
}

/// Starts the switch and returns a connection to it, which waits for it already; none when somebody
/// else has just done so, or when the last one is about to end.
fn start(
    switch: &Switch,
    network: &str,
    jail_program: &Path,
) -> Result<Option<Control>, SwitchError> {
    let failed = |verb, path: &Path| {
        let path = path.to_owned();
        move |source| SwitchError::File { verb, path, source }
    };
    for path in [&switch.control, &switch.log] {
        if let Some(folder) = path.parent() {
            make_folder(folder, 0o700).map_err(failed("make", folder))?;
        }
    }
    let lock = match Lock::take(&switch.lock).map_err(failed("lock", &switch.lock))? {
        Taking::Ours(lock) => lock,
        Taking::Theirs(_) => return Ok(None),
    };
    remove(&switch.control).map_err(failed("remove", &switch.control))?;
    let listener = sockets::listen_packets(&switch.control, BACKLOG)
        .map_err(failed("listen at", &switch.control))?;
    // Were this process killed now, the switch would find that its only client has gone, and end.
    let connection = Control::connect(&switch.control)?.ok_or(SwitchError::Gone)?;
    let log = begin_log(&switch.log).map_err(failed("make", &switch.log))?;
    let lock = lock.hand_over().map_err(failed("hand over", &switch.lock))?;
    let (mut listener, mut lock) = (Some(listener), Some(lock));
    let shared = switch.process.descriptors.iter().filter_map(|descriptor| {
        let DescriptorSource::Shared { part } = descriptor.what else { return None };
        let end = match part {
            SharedPart::Control => listener.take(),
            SharedPart::Lock => lock.take(),
        };
        Some((descriptor.number, end?))
    });
    launch_detached(&switch.process, jail_program, shared.collect(), log)
        .map_err(|source| SwitchError::Launch { network: network.into(), source })?
        .leave();
    Ok(Some(connection))
}

/// A new log; what the last switch of the network has said is kept beside it.
fn begin_log(path: &Path) -> io::Result<OwnedFd> {
    match fs::rename(path, path.with_extension("log.1")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    Ok(log.into())
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // Whatever the umask says.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().map_or_else(String::new, |line| format!(" ({line})"))
}
