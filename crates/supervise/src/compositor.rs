//! Connections to the user's compositor, for the proxy, which may open none: it asks with a byte, and
//! gets a byte and a connection back (`casemate-wayland --help`, `--upstream-fd`).
//!
//! **Invariant:** of what the proxy says only that it said something is looked at.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use casemate_host::sockets;
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::crew::register;

/// There is a connection, as a descriptor.
const HERE: u8 = b'+';
/// There is none.
const NONE: u8 = b'-';

/// Where the compositor is, as far as it is known; it may be another later.
pub(crate) type Display = Rc<RefCell<Option<PathBuf>>>;

/// Answers until the proxy has gone.
///
/// # Errors
/// The socket cannot be watched.
pub(crate) fn serve(socket: OwnedFd, display: Display) -> io::Result<()> {
    let socket = register(socket, Interest::READABLE)?;
    tokio::task::spawn_local(
        async move { while let Ok(true) = answer(&socket, &display).await {} },
    );
    Ok(())
}

/// One answer. False at the end.
async fn answer(socket: &AsyncFd<OwnedFd>, display: &Display) -> io::Result<bool> {
    let mut guard = socket.readable().await?;
    let mut byte = [0];
    let raw = socket.get_ref().as_raw_fd();
    match recv(raw, &mut byte, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => {
            guard.clear_ready();
            return Ok(true);
        }
        Err(error) => return Err(error.into()),
    }
    let path = display.borrow().clone();
    let connected = match path.as_deref().map(sockets::connect_at_once) {
        Some(Ok(connected)) => Some(connected),
        Some(Err(error)) => {
            tracing::warn!("could not connect to the compositor: {error}");
            None
        }
        None => None,
    };
    let fds: Vec<_> = connected.iter().map(|stream| stream.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let (byte, rights) = if fds.is_empty() { (NONE, &rights[..0]) } else { (HERE, &rights[..]) };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    // A proxy that does not take its answers is given up.
    sendmsg::<()>(raw, &[IoSlice::new(&[byte])], rights, flags, None)?;
    Ok(true)
}
