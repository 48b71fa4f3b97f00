//! What the supervisor and its link process say to each other.
//!
//! One datagram of a sequenced-packet socket is one message. What does not fit into
//! [`INLINE_LIMIT`] travels as a memory file whose descriptor comes first among those of
//! the datagram. The supervisor decodes [`Report`]s with the same distrust as guest bytes: a guest
//! that has taken the link process over gains the vocabulary below and nothing else.

use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::{Zeroize, Zeroizing};

use casemate_wire::limits::MAX_MESSAGE;
use casemate_wire::{Boot, ExitStatus, MessageError, OpenSession};

/// Longest message that travels in the datagram itself, in bytes.
pub const INLINE_LIMIT: usize = 16 * 1024;

/// Descriptors in one datagram at most: the memory file and two more.
const MAX_DESCRIPTORS: usize = 3;

const INLINE: u8 = 0;
const IN_MEMORY_FILE: u8 = 1;

/// Supervisor to link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Send the agent what it needs to set the guest up.
    Boot(Box<Boot>),
    /// Start a session. Comes with the client's socket, or for a detached session with the file
    /// its output is appended to.
    Open {
        /// Number of the stream, never used before.
        stream: u32,
        /// What to run.
        session: Box<OpenSession>,
    },
    /// End a session as if its client had gone.
    HangUp {
        /// Its stream.
        stream: u32,
    },
    /// Deliver a signal to a session's command. It comes this way and not on the session's socket
    /// so that it overtakes input that nobody reads.
    Signal {
        /// The session's stream.
        stream: u32,
        /// Signal number, 1 to 64.
        signal: u8,
    },
    /// Somebody wants to see the serial console. Comes with the viewer's socket.
    View {
        /// Bytes as they are, and the viewer may type; else text made harmless, to read only.
        interactive: bool,
    },
    /// Ask the agent for an answer.
    Ping {
        /// Comes back in [`Report::Pong`].
        id: u32,
    },
    /// Set the guest's clock.
    SetClock {
        /// Nanoseconds since 1970-01-01 UTC.
        nanoseconds: u64,
    },
    /// Ask the agent to shut the guest down.
    Shutdown,
    /// The guest opened its port anew: look for a preamble, the old sessions are gone.
    PortReopened,
    /// Ask the agent to hold up writes to the volumes.
    Freeze {
        /// Comes back in [`Report::Frozen`].
        id: u32,
        /// After so many milliseconds they go on by themselves.
        milliseconds: u32,
        /// The guest's memory is kept meanwhile. Nothing is sent behind this until [`Order::Thaw`],
        /// so that the kept memory holds no half of a frame.
        memory: bool,
    },
    /// Let them go on.
    Thaw,
    /// The guest goes on from a memory that was kept: its agent is to greet this link.
    Knock,
    /// Tell the agent so.
    Resumed {
        /// Nanoseconds since 1970-01-01 UTC.
        clock: u64,
        /// Random bytes.
        seed: Vec<u8>,
    },
    /// Let a call of the guest through. Comes with the socket of its service's session.
    Connect {
        /// Number of the stream, never used before.
        stream: u32,
        /// The number of the call.
        call: u32,
    },
    /// Refuse a call of the guest.
    Refuse {
        /// The number of the call.
        call: u32,
        /// Exit code of whoever called.
        code: u8,
        /// Why, for a person.
        reason: String,
    },
    /// Let windows of the guest through. Comes with a socket that carries them, in bytes without
    /// frames.
    ShowWindows {
        /// Number of the stream, never used before.
        stream: u32,
        /// The number of the connection.
        window: u32,
    },
    /// Refuse to show windows of the guest.
    RefuseWindows {
        /// The number of the connection.
        window: u32,
    },
}

/// Link to supervisor. All text has been made harmless and cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The agent said Hello with the right protocol version.
    Hello {
        /// Version of the agent.
        version: String,
        /// What the agent can do beyond the core.
        features: Vec<String>,
        /// The guest's kernel release.
        kernel: String,
        /// It reconnected and was set up before.
        booted: bool,
    },
    /// The guest is set up.
    Ready,
    /// The guest could not be set up.
    BootFailed {
        /// The agent's words.
        reason: String,
    },
    /// The agent says something for whoever debugs the compartment.
    GuestLog {
        /// The agent's words.
        text: String,
    },
    /// The agent answered a ping.
    Pong {
        /// The ping's number.
        id: u32,
    },
    /// The guest is shutting down.
    ShuttingDown,
    /// A block of the root file system does not verify.
    RootDamaged {
        /// Its number, of 4096 bytes each.
        block: u64,
    },
    /// A session's command runs.
    Started {
        /// The stream.
        stream: u32,
        /// Its process id in the guest.
        pid: u32,
    },
    /// A session is over and its client has everything.
    Ended {
        /// The stream.
        stream: u32,
        /// How the command ended; none when the client went first.
        status: Option<ExitStatus>,
    },
    /// The guest did what the protocol forbids. The link carries nothing any more.
    Broken {
        /// What it did.
        reason: String,
    },
    /// The VMM closed the agent's port.
    PortClosed,
    /// The agent answered a freeze.
    Frozen {
        /// The freeze's number.
        id: u32,
        /// Why nothing is frozen, in the agent's words.
        failure: Option<String>,
    },
    /// A program of the guest asks for a service: an [`Order::Connect`] or [`Order::Refuse`] follows.
    /// At most [`casemate_wire::limits::MAX_CALLS`] wait for one.
    Call {
        /// The guest's number of the call; no other that waits has it.
        call: u32,
        /// The caller's words: printable ASCII without blanks, or empty.
        target: String,
        /// The same, and not empty.
        service: String,
    },
    /// Who called does not wait any more.
    CallGone {
        /// The number of the call.
        call: u32,
    },
    /// A program of the guest wants to show windows: an [`Order::ShowWindows`] or
    /// [`Order::RefuseWindows`] follows. At most [`casemate_wire::limits::MAX_WINDOWS`] wait for one.
    Windows {
        /// The guest's number of the connection; no other that waits has it.
        window: u32,
    },
    /// A program of the guest wants to show windows, and nothing in the guest can carry them.
    NoWaypipe,
    /// An X11 program of the guest wants to show windows, and the guest has no X server.
    NoXwayland,
}

/// Why a message could not be passed.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The socket refused.
    #[error("could not use the socket between supervisor and link")]
    Socket(#[source] std::io::Error),
    /// The other end is gone.
    #[error("the other end of the socket between supervisor and link is closed")]
    Closed,
    /// The bytes are no message.
    #[error("could not understand a message between supervisor and link")]
    Malformed(#[from] MessageError),
}

impl From<nix::Error> for OrderError {
    fn from(error: nix::Error) -> Self {
        match error {
            nix::Error::EPIPE | nix::Error::ECONNRESET => Self::Closed,
            other => Self::Socket(other.into()),
        }
    }
}

impl OrderError {
    /// Nothing can be passed just now (the socket is non-blocking).
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Socket(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// Sends one message with the descriptors that belong to it.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), OrderError> {
    let body = Zeroizing::new(casemate_wire::encode(message));
    if body.len() <= INLINE_LIMIT {
        return send_datagram(socket, INLINE, &body, descriptors);
    }
    if body.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong.into());
    }
    let mut file = std::fs::File::from(memfd_create(c"casemate-order", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&body).and_then(|()| file.rewind()).map_err(OrderError::Socket)?;
    let mut all = vec![file.as_fd()];
    all.extend_from_slice(descriptors);
    send_datagram(socket, IN_MEMORY_FILE, &[], &all)
}

fn send_datagram(
    socket: BorrowedFd<'_>,
    tag: u8,
    body: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), OrderError> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let pieces = [IoSlice::new(std::slice::from_ref(&tag)), IoSlice::new(body)];
    sendmsg::<()>(socket.as_raw_fd(), &pieces, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one order and its descriptors. The supervisor is trusted: what does not fit is read
/// from the memory file it sends.
///
/// # Errors
/// [`OrderError::Closed`] at the end; otherwise what is wrong with the datagram.
pub fn receive_order(socket: BorrowedFd<'_>) -> Result<(Order, Vec<OwnedFd>), OrderError> {
    receive(socket, true)
}

/// Receives one report. Every report fits into its datagram; a link process that sends a
/// descriptor has been taken over, and reading from it could block for ever.
///
/// # Errors
/// As for [`receive_order`].
pub fn receive_report(socket: BorrowedFd<'_>) -> Result<Report, OrderError> {
    receive(socket, false).map(|(report, _)| report)
}

fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    memory_files: bool,
) -> Result<(T, Vec<OwnedFd>), OrderError> {
    let mut buffer = vec![0u8; 1 + INLINE_LIMIT];
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let (length, truncated, mut descriptors) = {
        let mut pieces = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut control), flags)?;
        let mut descriptors = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                descriptors.extend(received.into_iter().map(own));
            }
        }
        let lost = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
        (message.bytes, message.flags.intersects(lost), descriptors)
    };
    if length == 0 {
        return Err(OrderError::Closed);
    }
    if truncated {
        return Err(MessageError::TooLong.into());
    }
    let received = match buffer[0] {
        IN_MEMORY_FILE if memory_files && !descriptors.is_empty() => {
            let file = std::fs::File::from(descriptors.remove(0));
            // As it is, it never grows: growing would leave copies of what may be secret.
            let mut body = Zeroizing::new(Vec::with_capacity(MAX_MESSAGE + 1));
            file.take(MAX_MESSAGE as u64 + 1).read_to_end(&mut body).map_err(OrderError::Socket)?;
            Ok((casemate_wire::decode(&body)?, descriptors))
        }
        INLINE => Ok((casemate_wire::decode(&buffer[1..length])?, descriptors)),
        _ => Err(MessageError::TooLong.into()),
    };
    buffer[..length].zeroize();
    received
}

/// Takes ownership of a descriptor that recvmsg(2) has just made.
#[expect(unsafe_code, reason = "nix hands received descriptors over as plain numbers")]
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: the kernel created this descriptor for us in the recvmsg(2) call above and nobody
    // else knows its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
