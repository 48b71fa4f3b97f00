//! Calls of the guest's programs: taken from their socket, put to the host, and answered.
//!
//! ```text
//! casemate-call ══ request, two pipes ══▶ Calls ── Call ──▶ host
//!               ◀══ refused ═════════════        ◀── Refuse
//!                                                ◀── Connect: the pipes become a session
//! ```
//!
//! Any program of the guest may call: who may do what is the host's to decide, which knows a guest
//! as a whole. What is kept of a call that waits is bounded.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use casemate_wire::limits::{MAX_CALL_NAME, MAX_CALLS};
use casemate_wire::{ExitStatus, FromGuest};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4,
    bind, listen, recvmsg, sendmsg, socket,
};

use crate::events::{Epoll, Token};
use crate::outbox::Outbox;
use crate::session::spawn::set_nonblocking;

/// Where programs call.
pub(crate) const SOCKET: &str = "/run/casemate/call";

/// The agent's own program, for the guest's programs.
pub(crate) const PROGRAM: &str = "/run/casemate/agent";

/// By which names programs find it: the second for scripts that were written for Qubes.
const NAMES: [&str; 2] = ["/usr/bin/casemate-call", "/usr/bin/qrexec-client-vm"];

/// Exit code of whoever called when it is nobody's fault but ours.
pub(crate) const TROUBLE: u8 = 125;

/// Longest datagram on a caller's socket, in bytes.
pub(crate) const MAX_DATAGRAM: usize = 2 * MAX_CALL_NAME + 64;

/// Descriptors in one message at most, unix(7).
const SCM_MAX_FD: usize = 253;

/// The calls that wait for the host.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    listener: Option<OwnedFd>,
    waiting: BTreeMap<u32, Caller>,
    last: u32,
}

/// Somebody who calls.
#[derive(Debug)]
struct Caller {
    socket: OwnedFd,
    /// What was asked for, once it was.
    pipes: Option<Pipes>,
}

/// The caller's ends of what will be a session.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// What the caller says comes from here.
    pub(crate) input: OwnedFd,
    /// What the service says goes there.
    pub(crate) output: OwnedFd,
}

impl Calls {
    /// Lets programs call, and find the program that does.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn open(&mut self, epoll: &Epoll) -> io::Result<()> {
        let path = Path::new(SOCKET);
        let folder = path.parent().unwrap_or(Path::new("/run"));
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        let _ = fs::remove_file(path);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        listen(&listener, Backlog::MAXCONN)?;
        self.listener = Some(listener);
        self.watch(epoll)?;
        install_program()
    }

    /// Watches with another epoll instance (after a fork).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        self.listener.as_ref().map_or(Ok(()), |listener| epoll.add_read(listener, Token::CALLS))
    }

    /// Somebody may have come.
    pub(crate) fn accept(&mut self, epoll: &Epoll) {
        let Some(listener) = &self.listener else { return };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        while let Ok(raw) = accept4(listener.as_raw_fd(), flags) {
            // SAFETY: accept4 has just made it.
            let socket = unsafe { OwnedFd::from_raw_fd(raw) };
            if self.waiting.len() >= MAX_CALLS {
                say(&socket, TROUBLE, "too many calls wait for an answer");
                continue;
            }
            self.last = self.last.wrapping_add(1);
            if self.waiting.contains_key(&self.last)
                || epoll.add_read(&socket, Token::caller(self.last)).is_err()
            {
                say(&socket, TROUBLE, "the agent could not take the call");
                continue;
            }
            self.waiting.insert(self.last, Caller { socket, pipes: None });
        }
    }

    /// A caller says something, or has gone. `outbox` is none while there is no host to ask.
    pub(crate) fn hear(&mut self, call: u32, outbox: Option<&mut Outbox>) {
        let Some(caller) = self.waiting.get_mut(&call) else { return };
        let asked = caller.pipes.is_some();
        let request = match receive(&caller.socket) {
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Ok(Some(request)) if !asked => request,
            // It has gone, or says what nobody asked for.
            Ok(_) | Err(_) => {
                self.waiting.remove(&call);
                if let (true, Some(outbox)) = (asked, outbox) {
                    outbox.message(&FromGuest::CallGone { call });
                }
                return;
            }
        };
        let Some(outbox) = outbox else {
            say(&caller.socket, TROUBLE, "there is no connection to the host");
            self.waiting.remove(&call);
            return;
        };
        caller.pipes = Some(request.pipes);
        let (target, service) = (request.target, request.service);
        outbox.message(&FromGuest::Call { call, target, service });
    }

    /// The host lets a call through: its caller's socket and pipes.
    pub(crate) fn connect(&mut self, call: u32) -> Option<(OwnedFd, Pipes)> {
        let Caller { socket, pipes } = self.waiting.remove(&call)?;
        Some((socket, pipes?))
    }

    /// The host refuses.
    pub(crate) fn refused(&mut self, call: u32, code: u8, reason: &str) {
        if let Some(caller) = self.waiting.remove(&call) {
            say(&caller.socket, code, reason);
        }
    }

    /// The connection to the host is lost.
    pub(crate) fn abandon(&mut self) {
        for (_, caller) in std::mem::take(&mut self.waiting) {
            say(&caller.socket, TROUBLE, "the connection to the host was lost");
        }
    }
}

/// What a program asks for.
#[derive(Debug)]
struct Request {
    target: String,
    service: String,
    pipes: Pipes,
}

/// The next datagram of a caller; none when it has gone or sent something else.
fn receive(socket: &OwnedFd) -> Result<Option<Request>, Errno> {
    let mut buffer = [0; MAX_DATAGRAM];
    // As many as one message can carry: those of one that is cut off would stay open here.
    let mut control = nix::cmsg_space!([RawFd; SCM_MAX_FD]);
    let mut pieces = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: recvmsg has just made them.
            descriptors.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    let text = buffer.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let (Some((target, service)), Ok([input, output])) =
        (text.and_then(|text| text.split_once('\0')), <[OwnedFd; 2]>::try_from(descriptors))
    else {
        return Ok(None);
    };
    let names_fit = target.len() <= MAX_CALL_NAME && service.len() <= MAX_CALL_NAME;
    // Anything else could hold the agent up.
    let are_pipes = is_pipe(&input) && is_pipe(&output);
    if !names_fit || !are_pipes || set_nonblocking(&input).and(set_nonblocking(&output)).is_err() {
        return Ok(None);
    }
    let pipes = Pipes { input, output };
    Ok(Some(Request { target: target.to_owned(), service: service.to_owned(), pipes }))
}

fn is_pipe(fd: impl AsFd) -> bool {
    use nix::sys::stat::{SFlag, fstat};
    fstat(fd)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}

/// Tells a caller how its service ended.
pub(crate) fn tell_end(socket: &OwnedFd, status: &ExitStatus) {
    let reason = match status {
        ExitStatus::Code(_) | ExitStatus::Signal(_) => "",
        ExitStatus::NotFound { reason }
        | ExitStatus::NotExecutable { reason }
        | ExitStatus::AgentFailed { reason } => reason,
    };
    say(socket, status.code(), reason);
}

/// Tells a caller its exit code, and why.
fn say(socket: &OwnedFd, code: u8, reason: &str) {
    let pieces = [
        IoSlice::new(std::slice::from_ref(&code)),
        IoSlice::new(&reason.as_bytes()[..reason.len().min(MAX_DATAGRAM - 1)]),
    ];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    // Whoever does not take it sees the socket close.
    let _ = sendmsg::<()>(socket.as_raw_fd(), &pieces, &[], flags, None);
}

/// Makes the agent's own program one of the guest: it comes from the host's initrd, whatever is in
/// the image.
fn install_program() -> io::Result<()> {
    fs::write(PROGRAM, [])?;
    let bind = MsFlags::MS_BIND;
    mount(Some("/proc/self/exe"), PROGRAM, None::<&str>, bind, None::<&str>)?;
    for name in NAMES {
        // One of the image's own stays; a root that is read-only has none, and /run/casemate has.
        let _ = symlink(PROGRAM, name);
    }
    Ok(())
}
