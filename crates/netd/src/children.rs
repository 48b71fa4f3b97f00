//! The helper's children: itself, executed again with another task, so that none of its descriptors
//! is theirs. They have no privilege, and end with it.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child as Process, Command, Stdio};

use casemate_netns::error::{KeeperError, While};
use casemate_netns::names::{Names, Resolver, resolve};
use casemate_netns::namespace::end_with_parent;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};

/// This very program, however it was started.
const SELF: &str = "/proc/self/exe";

/// The longest list of names, in bytes: 32 of them have some 400 each.
const LONGEST: usize = 64 * 1024;

/// A child, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child(Process);

impl Child {
    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that has ended needs no signal.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(words: &[&str], input: Stdio, output: Stdio) -> Result<Child, KeeperError> {
    let parent = std::process::id().to_string();
    let (task, rest) = words.split_first().unwrap_or((&"", &[]));
    let child = Command::new(SELF)
        .arg(task)
        .arg(parent)
        .args(rest)
        .env_clear()
        .current_dir("/")
        .stdin(input)
        .stdout(output)
        .spawn();
    child.map(Child).map_err(|source| KeeperError::Start { program: SELF.into(), source })
}

/// Starts what answers a guest's questions for names on these two sockets, UDP and TCP.
///
/// # Errors
/// See [`KeeperError`].
pub(crate) fn questions(
    udp: OwnedFd,
    tcp: OwnedFd,
    server: Ipv4Addr,
) -> Result<Child, KeeperError> {
    start(&["questions", &server.to_string()], udp.into(), tcp.into())
}

/// Starts what resolves the names of rules.
///
/// # Errors
/// See [`KeeperError`].
pub(crate) fn names(names: &Names) -> Result<(Resolver, Child), KeeperError> {
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (own, other) =
        socketpair(AddressFamily::Unix, kind, None, flags).while_("make a socket")?;
    let text = serde_json::to_vec(names).map_err(KeeperError::Order)?;
    setsockopt(&own, sockopt::SndBuf, &(2 * LONGEST)).while_("make room for names")?;
    send(own.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL).while_("hand names over")?;
    let child = start(&["names"], other.into(), Stdio::null())?;
    Ok((own.into(), child))
}

/// The life of the child that resolves names.
///
/// # Errors
/// See [`KeeperError`].
pub(crate) fn names_main(parent: i32) -> Result<(), KeeperError> {
    end_with_parent(parent)?;
    let socket = std::io::stdin();
    let socket = std::os::fd::AsFd::as_fd(&socket);
    let socket = socket.try_clone_to_owned().while_("use the socket of the helper")?;
    let mut text = vec![0; LONGEST];
    let length = recv(socket.as_raw_fd(), &mut text, MsgFlags::empty()).while_("hear of names")?;
    let names: Names = serde_json::from_slice(&text[..length]).map_err(KeeperError::Order)?;
    resolve(&names, &socket)
}
