//! The listening socket: handed over as systemd does it (sd_listen_fds(3)), or made here.

// UNSAFETY: taking a descriptor over by its number has no safe way.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use casemate_netns::error::While;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
    socket, sockopt,
};

use crate::NetdError;

/// `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// Connections that may wait to be accepted.
const WAITING: i32 = 64;

/// The socket to accept connections from.
///
/// # Errors
/// There is none, or it cannot be made.
pub(crate) fn listener(path: Option<&Path>) -> Result<OwnedFd, NetdError> {
    match path {
        Some(path) => make(path),
        None => handed_over(),
    }
}

fn handed_over() -> Result<OwnedFd, NetdError> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS") != Some(1) {
        let usage = "systemd has handed no socket over; name one with --listen, or see --help";
        return Err(NetdError::Usage(usage.into()));
    }
    // SAFETY: the number was said to be this process's, once, and nothing else was opened yet that
    // could have it. When it is not open the next call says so.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
    if let Err(error) = fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        std::mem::forget(socket);
        return Err(error).while_("use the socket that was handed over")?;
    }
    let kind = getsockopt(&socket, sockopt::SockType).while_("look at the socket")?;
    if kind != SockType::SeqPacket {
        let usage = "the socket that was handed over is not of sequenced packets";
        return Err(NetdError::Usage(usage.into()));
    }
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).while_("use the socket")?;
    Ok(socket)
}

fn listens(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let tried = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
        .and_then(|own| connect(own.as_raw_fd(), &UnixAddr::new(path)?));
    // One whose queue is full listens, too.
    matches!(tried, Ok(()) | Err(Errno::EAGAIN))
}

fn make(path: &Path) -> Result<OwnedFd, NetdError> {
    let failed = |source| NetdError::Place { path: path.into(), source };
    match fs::symlink_metadata(path) {
        // Of a predecessor, unless somebody listens.
        Ok(found) if found.file_type().is_socket() && listens(path) => {
            return Err(NetdError::Another);
        }
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(failed(std::io::ErrorKind::AlreadyExists.into())),
        Err(_) => {}
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made =
        socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).while_("make the socket")?;
    let address = UnixAddr::new(path).while_("name the socket")?;
    bind(made.as_raw_fd(), &address).while_("name the socket")?;
    // Anybody may ask; who gets something is decided by the configuration.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
    let backlog = Backlog::new(WAITING).while_("listen")?;
    listen(&made, backlog).while_("listen")?;
    Ok(made)
}
