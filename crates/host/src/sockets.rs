//! Unix sockets: the connected pairs between the processes of a compartment, and listening and
//! connecting at paths of any length.
//!
//! A socket address holds 107 bytes of path (unix(7)). A longer one is reached through a descriptor
//! of its directory, as `/proc/self/fd/N/name`.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use casemate_plan::process::Channel;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, socket, socketpair,
};

/// The longest path a socket address holds, in bytes: `sun_path` less its NUL, unix(7).
const LONGEST_PATH: usize = 107;

/// Both ends of a channel, close-on-exec: sequenced packets for [`Channel::Orders`] and
/// [`Channel::Network`], whose messages carry descriptors and must not merge, a byte stream for the others.
///
/// # Errors
/// No descriptor is left.
pub fn channel_pair(channel: Channel) -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = match channel {
        Channel::Orders | Channel::Network => SockType::SeqPacket,
        Channel::Display | Channel::Clipboard | Channel::Compositor => SockType::Stream,
        Channel::Agent
        | Channel::Console
        | Channel::Monitor
        | Channel::Share(_)
        | Channel::Memory => SockType::Stream,
    };
    Ok(socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A listening socket and one that is connected to it and not accepted yet, close-on-exec, for a
/// server that wants to accept. Nobody else can connect: the path, which must be in a private
/// directory, is gone again.
///
/// # Errors
/// As [`listen`] and [`connect`].
pub fn listening_pair(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let listener = listen(path)?;
    let connected = connect(path);
    fs::remove_file(path)?;
    Ok((listener.into(), connected?.into()))
}

/// Listens at a path where nothing is yet, for the owner of the directory alone (mode 0600).
///
/// # Errors
/// There is something at the path, the directory does not exist, or its last component is too long.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = at(path, |path| UnixListener::bind(path))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A packet socket (`SOCK_SEQPACKET`), close-on-exec, that is neither bound nor connected.
///
/// # Errors
/// No descriptor is left.
pub fn packet_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A packet socket that listens at a path where nothing is yet, for the owner of the directory alone
/// (mode 0600), with so many connections that may wait.
///
/// # Errors
/// As [`listen`].
pub fn listen_packets(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let listener = packet_socket()?;
    at(path, |path| Ok(bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    nix::sys::socket::listen(&listener, Backlog::new(backlog)?)?;
    Ok(listener)
}

/// Connects a packet socket to the one at a path.
///
/// # Errors
/// As [`connect`].
pub fn connect_packets(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    let connect =
        |path: &Path| Ok(nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?);
    at(path, connect)
}

/// Connects to the socket at a path.
///
/// # Errors
/// There is none, nobody listens, or the caller may not.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    at(path, |path| UnixStream::connect(path))
}

/// Connects without waiting, not even for a server whose queue is full. The socket does not block.
///
/// # Errors
/// As connect(2); `WouldBlock` when the queue is full.
pub fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    use nix::sys::socket::{UnixAddr, connect, socket};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    at(path, |path| Ok(connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?))?;
    Ok(socket.into())
}

/// Does something at a path that may be too long for a socket address.
fn at<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= LONGEST_PATH {
        return act(path);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let directory: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(directory)?;
    let short: PathBuf = ["/proc/self/fd", &directory.as_raw_fd().to_string()].iter().collect();
    act(&short.join(name))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn listening_pair_is_connected_and_nowhere_to_be_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let (listener, connected) = listening_pair(&path).expect("a pair");
        assert!(!path.exists());
        let (mut server, _) = UnixListener::from(listener).accept().expect("accepted");
        UnixStream::from(connected).write_all(b"x").expect("written");
        server.read_exact(&mut [0]).expect("read");
    }

    #[test]
    fn socket_at_a_long_path_is_found_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("d".repeat(150));
        fs::create_dir(&deep).expect("made");
        let path = deep.join("control");
        let listener = listen(&path).expect("listening");
        let mut client = connect(&path).expect("connected");
        client.write_all(b"x").expect("written");
        let (mut server, _) = listener.accept().expect("accepted");
        server.read_exact(&mut [0]).expect("read");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(listen(&path).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
