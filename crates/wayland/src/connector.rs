//! Connections to the compositor, one for each client.
//!
//! The process that handles clients may open no socket. It asks for connections on one that it was
//! started with: a byte there, a byte and a descriptor back. Who answers is the supervisor, or
//! this program once more, started before the first client and doing nothing else.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};

use crate::socket::pair;

/// Asks for a connection.
const ASK: u8 = b'?';
/// There is one, as a descriptor.
const HERE: u8 = b'+';
/// There is none.
const NONE: u8 = b'-';

/// The first argument of the program when it answers.
pub const ANSWER: &str = "--answer-connections";

/// Asks for connections.
#[derive(Debug)]
pub struct Connector {
    socket: OwnedFd,
    /// Clients that wait, in the order in which connections come.
    asked: VecDeque<u64>,
}

impl Connector {
    /// Asks whoever holds the other end.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, asked: VecDeque::new() }
    }

    /// Asks for a connection for this client.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub fn ask(&mut self, client: u64) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        send(&self.socket, &[ASK], flags)?;
        self.asked.push_back(client);
        Ok(())
    }

    /// The next answer: for whom, and the connection, if there is one. None when there is no answer
    /// yet.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub fn answer(&mut self) -> io::Result<Option<(u64, Option<OwnedFd>)>> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut byte)];
        let received = match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(other) => return Err(other.into()),
        };
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(self.asked.pop_front().map(|client| (client, descriptor.filter(|_| byte == [HERE]))))
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Starts this program once more to connect to `upstream` when asked. It ends when the returned
/// socket is closed.
///
/// # Errors
/// It cannot be started.
pub fn start(upstream: &Path) -> io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = pair()?;
    let child = Command::new(std::env::current_exe()?)
        .arg(ANSWER)
        .arg(upstream)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    Ok((ours, child))
}

/// Connects to `upstream` as often as is asked on `socket`, until that is closed.
///
/// # Errors
/// The socket failed.
pub fn answer(socket: impl AsFd, upstream: &Path) -> io::Result<()> {
    let mut byte = [0];
    loop {
        match rustix::net::recv(&socket, &mut byte, RecvFlags::empty()) {
            Ok((_, 0)) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(other) => return Err(other.into()),
        }
        let connected = UnixStream::connect(upstream);
        let (byte, fds) = match &connected {
            Ok(stream) => (HERE, vec![stream.as_fd()]),
            Err(_) => (NONE, Vec::new()),
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        }
        match sendmsg(&socket, &[IoSlice::new(&[byte])], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::PIPE) => return Ok(()),
            Err(other) => return Err(other.into()),
        }
    }
}

/// Where the compositor is: a path, or a name in the runtime directory (wayland.freedesktop.org,
/// `wl_display_connect`). None when a name has no directory.
pub fn place(upstream: &Path, runtime: Option<&Path>) -> Option<PathBuf> {
    match upstream.is_absolute() {
        true => Some(upstream.to_owned()),
        false => Some(runtime?.join(upstream)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_comes_for_each_question_and_none_where_nobody_listens() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("wayland-9");
        let (ours, theirs) = pair().expect("a pair");
        let place = path.clone();
        let other = std::thread::spawn(move || answer(theirs, &place));
        let mut connector = Connector::new(ours);
        let wait = |connector: &mut Connector| loop {
            if let Some(answer) = connector.answer().expect("an answer") {
                break answer;
            }
            std::thread::yield_now();
        };
        connector.ask(1).expect("asked");
        assert!(matches!(wait(&mut connector), (1, None)));
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a listener");
        connector.ask(2).expect("asked");
        assert!(matches!(wait(&mut connector), (2, Some(_))));
        listener.accept().expect("connected");
        drop(connector);
        other.join().expect("no panic").expect("ended well");
    }

    #[test]
    fn a_name_is_in_the_runtime_directory() {
        let runtime = Path::new("/run/user/1000");
        let at = |name: &str, runtime| place(Path::new(name), runtime);
        assert_eq!(at("wayland-1", Some(runtime)), Some("/run/user/1000/wayland-1".into()));
        assert_eq!(at("/a/b", None), Some("/a/b".into()));
        assert_eq!(at("wayland-1", None), None);
    }
}
