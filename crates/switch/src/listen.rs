//! Sockets that others connect to.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, umask};

use crate::arguments::Socket;
use crate::descriptor;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {}", path.display())]
pub struct ListenError {
    path: PathBuf,
    source: io::Error,
}

/// Connections that wait for their turn.
const BACKLOG: i32 = 8;

/// The socket that front-ends of a port connect to. Only its owner can.
///
/// # Errors
/// The path is taken, or cannot be used.
pub fn for_front_ends(from: &Socket) -> Result<OwnedFd, ListenError> {
    at(from, |path| UnixListener::bind(path).map(OwnedFd::from))
}

/// The socket that supervisors connect to: it keeps messages apart. Only its owner can.
///
/// # Errors
/// As for [`for_front_ends`].
pub fn for_supervisors(from: &Socket) -> Result<OwnedFd, ListenError> {
    at(from, |path| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let made = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&made), &UnixAddr::new(path)?)?;
        listen(&made, Backlog::new(BACKLOG)?)?;
        Ok(made)
    })
}

fn at(from: &Socket, make: impl Fn(&Path) -> io::Result<OwnedFd>) -> Result<OwnedFd, ListenError> {
    let path = match from {
        Socket::Descriptor(number) => return Ok(descriptor::inherited(*number)),
        Socket::Path(path) => path,
    };
    // A switch that was killed has left its socket; one that lives answers.
    if let Err(error) = UnixStream::connect(path)
        && error.kind() == io::ErrorKind::ConnectionRefused
    {
        let _ = std::fs::remove_file(path);
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let made = make(path);
    umask(before);
    made.map_err(|source| ListenError { path: path.clone(), source })
}
