//! What links to the host are made with, and the TAP device that comes of it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate_config::ipnet::{IpNet, Ipv4Net};
use casemate_plan::facts::NetworkFacts;
use casemate_plan::helper::{self, HelperFacts, Order, ToHelper};
use casemate_plan::network::{FromKeeper, LONGEST_MESSAGE};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::sockets;
use crate::versions::{is_program, search};

/// Where nft is, which an ordinary user's `PATH` may lack.
const SYSTEM_PROGRAMS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

const TUN: &str = "/dev/net/tun";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why the network is not there.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// What makes it said why not.
    #[error("could not make the network: {0}")]
    Failed(String),
    /// What makes it ended without a word.
    #[error("could not make the network: its keeper has ended (the log of processes says more)")]
    Ended,
    /// It took too long.
    #[error("could not make the network within {0} s")]
    Late(u64),
    /// The root helper cannot be reached.
    #[error("could not reach casemate-netd at {}", .path.display())]
    NoHelper {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its words make no sense.
    #[error("could not understand the keeper of the network")]
    Malformed,
    /// The socket to it.
    #[error("could not hear the keeper of the network")]
    Socket(#[source] io::Error),
}

/// What there is to make links with.
pub fn facts(search_path: &OsStr) -> NetworkFacts {
    let find = |name: &str| {
        let system = SYSTEM_PROGRAMS.map(|folder| Path::new(folder).join(name));
        search(search_path, Path::new(name)).chain(system).find(is_program)
    };
    let resolv_conf = fs::canonicalize(RESOLV_CONF).ok();
    let text = resolv_conf.as_ref().and_then(|path| fs::read_to_string(path).ok());
    NetworkFacts {
        pasta: find("pasta"),
        nft: find("nft"),
        tun: tun(Path::new(TUN)),
        helper: HelperFacts::Absent,
        resolvers: text.as_deref().map(resolvers).unwrap_or_default(),
        resolv_conf,
    }
}

/// A process of a user of its own opens it, so everybody must be able to.
fn tun(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} does not exist"),
        _ => format!("could not look at {shown}: {error}"),
    })?;
    if !metadata.file_type().is_char_device() {
        return Err(format!("{shown} is no device"));
    }
    match metadata.mode() & 0o006 {
        0o006 => Ok(()),
        _ => Err(format!("{shown} is not open to everybody (mode {:o})", metadata.mode() & 0o777)),
    }
}

/// The name servers in the text of a resolv.conf(5).
pub fn resolvers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // A link-local address may name its interface.
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

/// The addresses of this machine's interfaces, and its loopback network.
pub fn own_addresses() -> Vec<IpNet> {
    let mut found = vec![IpNet::from(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8))];
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        for address in [interface.address, interface.broadcast].into_iter().flatten() {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
            let v6 = address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip()));
            found.extend(v4.or(v6).map(IpNet::from));
        }
    }
    found
}

/// Where the root helper's socket is: `CASEMATE_NETD`, or where its unit puts it.
pub fn helper_socket() -> PathBuf {
    let named = std::env::var_os("CASEMATE_NETD").map(PathBuf::from);
    named.filter(|path| path.is_absolute()).unwrap_or_else(|| helper::SOCKET.into())
}

/// How long the helper may take to say what it gives: it may have to be started.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the root helper gives this user.
pub fn ask_helper() -> HelperFacts {
    let socket = helper_socket();
    if fs::metadata(&socket).is_err() {
        return HelperFacts::Absent;
    }
    let answer = connect_helper(&socket).and_then(|connection| {
        tell_helper(&connection, &ToHelper::Terms)?;
        await_answer(&connection, PATIENCE)
    });
    match answer {
        Ok((FromKeeper::Terms { terms }, _)) => HelperFacts::Ready { socket, terms },
        Ok((FromKeeper::Failed { reason }, _)) => HelperFacts::Refuses { reason },
        Ok(_) => HelperFacts::Refuses { reason: NetworkError::Malformed.to_string() },
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            HelperFacts::Refuses { reason: format!("{error}{}", cause.unwrap_or_default()) }
        }
    }
}

/// Asks the root helper what it mended when it began. None when it is not set up.
///
/// # Errors
/// See [`NetworkError`].
pub fn ask_repair() -> Result<Option<Vec<String>>, NetworkError> {
    let socket = helper_socket();
    if fs::metadata(&socket).is_err() {
        return Ok(None);
    }
    let connection = connect_helper(&socket)?;
    tell_helper(&connection, &ToHelper::Repair)?;
    match await_answer(&connection, PATIENCE)?.0 {
        FromKeeper::Repaired { what } => Ok(Some(what)),
        FromKeeper::Failed { reason } => Err(NetworkError::Failed(reason)),
        _ => Err(NetworkError::Malformed),
    }
}

/// Asks the root helper for a link: the TAP device, and the connection that keeps it.
///
/// # Errors
/// See [`NetworkError`].
pub fn ask_link(
    socket: &Path,
    order: &Order,
    patience: Duration,
) -> Result<(OwnedFd, OwnedFd), NetworkError> {
    let connection = connect_helper(socket)?;
    tell_helper(&connection, &ToHelper::Link(Box::new(order.clone())))?;
    let tap = receive_tap(&connection, patience)?;
    Ok((tap, connection))
}

fn connect_helper(path: &Path) -> Result<OwnedFd, NetworkError> {
    let connect = || -> std::io::Result<OwnedFd> {
        let connection = sockets::packet_socket()?;
        // A helper whose queue is full does not hold up whoever only wants to know of it.
        setsockopt(&connection, sockopt::SendTimeout, &TimeVal::seconds(5))?;
        sockets::connect_packets(&connection, path)?;
        Ok(connection)
    };
    connect().map_err(|source| NetworkError::NoHelper { path: path.into(), source })
}

fn tell_helper(connection: &OwnedFd, message: &ToHelper) -> Result<(), NetworkError> {
    let text = serde_json::to_vec(message).map_err(|_| NetworkError::Malformed)?;
    send(connection.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL)
        .map(drop)
        .map_err(|error| NetworkError::Socket(error.into()))
}

/// Waits for the TAP device.
///
/// # Errors
/// See [`NetworkError`].
pub fn receive_tap(keeper: &OwnedFd, patience: Duration) -> Result<OwnedFd, NetworkError> {
    match await_answer(keeper, patience)? {
        (FromKeeper::Ready, Some(tap)) => Ok(tap),
        (FromKeeper::Failed { reason }, _) => Err(NetworkError::Failed(reason)),
        _ => Err(NetworkError::Malformed),
    }
}

/// The next message, within the time.
fn await_answer(
    keeper: &OwnedFd,
    patience: Duration,
) -> Result<(FromKeeper, Option<OwnedFd>), NetworkError> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(keeper.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, timeout) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(NetworkError::Socket(error.into())),
            Ok(0) => return Err(NetworkError::Late(patience.as_secs())),
            Ok(_) => break,
        }
    }
    receive(keeper)
}

/// The next message of the keeper, with the descriptor that came with it.
///
/// # Errors
/// See [`NetworkError`].
pub fn receive(keeper: &OwnedFd) -> Result<(FromKeeper, Option<OwnedFd>), NetworkError> {
    let mut buffer = vec![0; LONGEST_MESSAGE];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let (length, descriptor) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(keeper.as_raw_fd(), &mut parts, Some(&mut space), flags)
            .map_err(|error| NetworkError::Socket(error.into()))?;
        let mut descriptor = None;
        for message in received.cmsgs().map_err(|error| NetworkError::Socket(error.into()))? {
            if let ControlMessageOwned::ScmRights(numbers) = message {
                for number in numbers {
                    // SAFETY: the kernel has just made this descriptor for this process.
                    descriptor = Some(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
        }
        (received.bytes, descriptor)
    };
    if length == 0 {
        return Err(NetworkError::Ended);
    }
    let message = serde_json::from_slice(&buffer[..length]).map_err(|_| NetworkError::Malformed)?;
    Ok((message, descriptor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_and_nothing_else() {
        let text = "# nameserver 1.1.1.1\nsearch home\nnameserver 127.0.0.53\noptions edns0\n\
                    nameserver fe80::1%eth0\nnameserver\nnameserver nobody\n";
        let found: Vec<String> = resolvers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53", "fe80::1"]);
    }

    #[test]
    fn node_that_others_cannot_open_is_told_so() {
        assert_eq!(tun(Path::new("/dev/null")), Ok(()));
        let missing = tun(Path::new("/dev/net/none")).expect_err("not there");
        assert_eq!(missing, "/dev/net/none does not exist");
        assert!(tun(Path::new("/")).expect_err("a folder").contains("is no device"));
    }
}
