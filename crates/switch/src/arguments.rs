//! The command line. Parsed by hand: it has few options.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::rules::{Binding, Mac, MacError, NetworkError, Role};
use crate::switch::Behaviour;

/// What `--help` prints.
pub const HELP: &str = "\
casemate-switch: a network between virtual machines, each on a vhost-user socket

  casemate-switch --router SOCKET,mac=MAC --client SOCKET,mac=MAC ... [OPTION ...]

  --router SOCKET,mac=MAC[,ip=ADDRESS ...][,not-from=NETWORK ...][,name=NAME]
      the one port that all others exchange frames with; it forwards nothing that comes from
      NETWORK, such as that of the clients: they would reach each other through it
  --client SOCKET,mac=MAC[,ip=ADDRESS ...][,name=NAME]
      a port that exchanges frames with the router only; from ip= addresses only, if there are any
  --control SOCKET
      answers questions, adds and removes ports
  --name NAME
      said in the log, and seen in lists of processes
  --end-with-clients
      ends when the last client of the control socket has gone
  --log-level LEVEL
      error, warn (rings that were stopped, ports that were left alone) or info (also who comes and
      goes), which is the default; debug and trace say no more
  --allow-capture
      lets frames of a port be recorded, by way of the control socket
  --spin-us N
      looks for frames for N microseconds before it sleeps: less latency, more processor time
  --allow-unsealed-memory
      takes guests' memory that is not sealed against shrinking; a guest whose memory shrinks loses
      its port
  --ready-fd N
      writes a line to this descriptor when all sockets listen, and closes it

SOCKET is a path, or fd:N for a listening socket that was inherited. SIGTERM ends the switch.
";

/// Where a socket comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Socket {
    /// To be made here.
    Path(PathBuf),
    /// Inherited, and listening.
    Descriptor(RawFd),
}

/// One port.
#[derive(Clone, Debug)]
pub struct PortArgument {
    /// Its socket.
    pub socket: Socket,
    /// Its name.
    pub name: String,
    /// Its rules.
    pub binding: Binding,
}

/// All that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// Router and clients, in order.
    pub ports: Vec<PortArgument>,
    /// The control socket.
    pub control: Option<Socket>,
    /// Where to say that all sockets listen.
    pub ready: Option<RawFd>,
    /// What it is called.
    pub name: Option<String>,
    /// Events of less importance are not logged.
    pub level: Level,
    /// The rest.
    pub behaviour: Behaviour,
}

/// Why a command line is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ArgumentError {
    /// `--help`
    #[error("help was asked for")]
    Help,
    /// An option there is not.
    #[error("there is no option `{0}`")]
    Unknown(String),
    /// An option without its value.
    #[error("`{0}` needs a value")]
    Missing(&'static str),
    /// A value that is no number.
    #[error("`{0}` is no number of {1}")]
    Number(String, &'static str),
    /// A port without address.
    #[error("port `{0}` needs a MAC address: SOCKET,mac=MAC")]
    NoMac(String),
    /// A part of a port that there is not.
    #[error("`{0}` is neither mac=MAC, ip=ADDRESS nor name=NAME")]
    Part(String),
    /// A level that there is not.
    #[error("`{0}` is none of error, warn, info, debug and trace")]
    Level(String),
    /// A network that is none.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A MAC address that is none.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// An IP address that is none.
    #[error("`{0}` is no IP address")]
    Address(String),
    /// A socket without a name.
    #[error("`{0}` names no socket")]
    Socket(String),
    /// Not exactly one router, and no control socket to add it by.
    #[error("a switch needs exactly one --router, or a --control socket to add it by")]
    Router,
}

/// What is logged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, PartialOrd, Ord)]
pub enum Level {
    /// Only why it ended.
    Error,
    /// Also what guests do wrong.
    Warn,
    /// Also who comes and goes.
    #[default]
    Info,
}

/// The longest spin: ten seconds.
const LONGEST_SPIN: u64 = 10_000_000;

impl Arguments {
    /// Parses the words after the program's name.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, ArgumentError> {
        let mut arguments = Self::default();
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = |name| words.next().ok_or(ArgumentError::Missing(name));
            match word.as_str() {
                "--help" | "-h" => return Err(ArgumentError::Help),
                "--router" => {
                    arguments.ports.push(port(&value("--router")?, Role::Router)?);
                }
                "--client" => {
                    arguments.ports.push(port(&value("--client")?, Role::Client)?);
                }
                "--control" => arguments.control = Some(socket(&value("--control")?)?),
                "--name" => arguments.name = Some(value("--name")?),
                "--end-with-clients" => arguments.behaviour.end_with_clients = true,
                "--log-level" => {
                    arguments.level = match value("--log-level")?.as_str() {
                        "error" => Level::Error,
                        "warn" => Level::Warn,
                        "info" | "debug" | "trace" => Level::Info,
                        other => return Err(ArgumentError::Level(other.to_owned())),
                    };
                }
                "--allow-capture" => arguments.behaviour.allow_capture = true,
                "--allow-unsealed-memory" => arguments.behaviour.allow_unsealed = true,
                "--spin-us" => {
                    let text = value("--spin-us")?;
                    let number = text.parse().ok().filter(|&spin| spin <= LONGEST_SPIN);
                    let wrong = ArgumentError::Number(text, "microseconds up to ten seconds");
                    arguments.behaviour.spin = Duration::from_micros(number.ok_or(wrong)?);
                }
                "--ready-fd" => {
                    let text = value("--ready-fd")?;
                    let number = text.parse().ok().filter(|&number| number >= 0);
                    let wrong = ArgumentError::Number(text, "a descriptor");
                    arguments.ready = Some(number.ok_or(wrong)?);
                }
                _ => return Err(ArgumentError::Unknown(word)),
            }
        }
        let routers = arguments.ports.iter().filter(|port| port.binding.role == Role::Router);
        match (routers.count(), &arguments.control) {
            (1, _) | (0, Some(_)) => Ok(arguments),
            _ => Err(ArgumentError::Router),
        }
    }
}

fn port(text: &str, role: Role) -> Result<PortArgument, ArgumentError> {
    let mut parts = text.split(',');
    let first = parts.next().unwrap_or_default();
    let socket = socket(first)?;
    let mut name = match &socket {
        Socket::Path(path) => file_stem(path),
        Socket::Descriptor(_) => first.to_owned(),
    };
    let mut mac = None;
    let (mut addresses, mut not_from) = (Vec::new(), Vec::new());
    for part in parts {
        match part.split_once('=') {
            Some(("mac", text)) => mac = Some(text.parse::<Mac>()?),
            Some(("ip", text)) => {
                let address = text.parse::<IpAddr>();
                addresses.push(address.map_err(|_| ArgumentError::Address(text.to_owned()))?);
            }
            Some(("not-from", text)) if role == Role::Router => not_from.push(text.parse()?),
            Some(("name", text)) if !text.is_empty() => name = text.to_owned(),
            _ => return Err(ArgumentError::Part(part.to_owned())),
        }
    }
    let mac = mac.ok_or_else(|| ArgumentError::NoMac(name.clone()))?;
    Ok(PortArgument { socket, name, binding: Binding { role, mac, addresses, not_from } })
}

fn file_stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

fn socket(text: &str) -> Result<Socket, ArgumentError> {
    let wrong = || ArgumentError::Socket(text.to_owned());
    match text.strip_prefix("fd:") {
        Some(number) => {
            let number = number.parse().ok().filter(|&number| number >= 0);
            number.map(Socket::Descriptor).ok_or_else(wrong)
        }
        None if text.is_empty() || file_stem(Path::new(text)).is_empty() => Err(wrong()),
        None => Ok(Socket::Path(PathBuf::from(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentError> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_whole_command_line_is_understood() {
        let arguments = parse(
            "--router /run/r.sock,mac=52:54:00:00:00:01,not-from=10.88.0.0/24 \
             --client fd:5,mac=52:54:00:00:00:02,ip=10.88.0.5,ip=fd00::5,name=banking \
             --spin-us 50 --allow-unsealed-memory --control /run/c --log-level warn \
             --end-with-clients --name lan",
        )
        .unwrap();
        let [router, client] = &arguments.ports[..] else { panic!("two ports") };
        assert_eq!(router.name, "r");
        assert_eq!(router.binding.role, Role::Router);
        assert_eq!(router.binding.not_from, ["10.88.0.0/24".parse().unwrap()]);
        assert_eq!(client.name, "banking");
        assert_eq!(arguments.name.as_deref(), Some("lan"));
        assert_eq!(client.socket, Socket::Descriptor(5));
        assert_eq!(client.binding.addresses.len(), 2);
        assert_eq!(arguments.behaviour.spin, Duration::from_micros(50));
        assert!(arguments.behaviour.allow_unsealed && !arguments.behaviour.allow_capture);
        assert!(arguments.behaviour.end_with_clients && arguments.level == Level::Warn);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, expected) in [
            ("", "a switch needs exactly one --router, or a --control socket to add it by"),
            ("--router", "`--router` needs a value"),
            ("--router a", "port `a` needs a MAC address: SOCKET,mac=MAC"),
            ("--router a,mac=1", "`1` is no MAC address like 52:54:00:12:34:56"),
            (
                "--router a,mac=01:00:00:00:00:00",
                "`01:00:00:00:00:00` is no address of a single port",
            ),
            ("--router a,ip=1.2.3", "`1.2.3` is no IP address"),
            ("--router a,colour=red", "`colour=red` is neither mac=MAC, ip=ADDRESS nor name=NAME"),
            ("--router fd:x,mac=1", "`fd:x` names no socket"),
            ("--spin-us -1", "`-1` is no number of microseconds up to ten seconds"),
            ("--log-level loud", "`loud` is none of error, warn, info, debug and trace"),
            (
                "--router a,mac=52:54:00:00:00:01,not-from=10.88.0.1/24",
                "`10.88.0.1/24` is no network like 10.88.0.0/24",
            ),
            (
                "--client a,mac=52:54:00:00:00:01,not-from=10.88.0.0/24",
                "`not-from=10.88.0.0/24` is neither mac=MAC, ip=ADDRESS nor name=NAME",
            ),
            ("--spin", "there is no option `--spin`"),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), expected, "{line}");
        }
    }
}
