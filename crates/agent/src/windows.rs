//! Windows of the guest's programs: what lets them reach the user's desktop.
//!
//! ```text
//! program ── wayland-0 ──▶ agent ──▶ carrier ──▶ waypipe server ── windows ──▶ agent ══ stream ══▶ host
//!                        hands it over      starts                          Windows ──▶
//!                                                                         ◀── ShowWindows
//! ```
//!
//! Nothing of it runs before the first program asks for a window: until then there is a socket that
//! the agent listens on. Any program of the guest may show windows; whose they are, and whether they
//! are shown at all, is the host's to know.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use casemate_wire::limits::MAX_WINDOWS;
use casemate_wire::{FromGuest, OpenSession};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    listen, sendmsg, socket, socketpair,
};
use nix::unistd::Pid;

use crate::calls::PROGRAM;
use crate::carrier;
use crate::events::{Epoll, Token};
use crate::outbox::Outbox;
use crate::session::command::{Command, DEFAULT_PATH, Settings};
use crate::session::spawn::{Streams, spawn};

/// Where programs ask for windows: what `WAYLAND_DISPLAY` is in a session.
pub(crate) const DISPLAY: &str = "/run/casemate/wayland-0";

/// Where waypipe connects to, once for each program.
pub(crate) const SOCKET: &str = "/run/casemate/windows";

/// The size in bytes that programs may give a pipe, proc_sys_fs(5).
const PIPE_SETTING: &str = "/proc/sys/fs/pipe-max-size";

/// What of the windows is the agent's.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    display: Option<OwnedFd>,
    carried: Option<OwnedFd>,
    /// It, and the socket on which it gets programs.
    carrier: Option<(Pid, OwnedFd)>,
    /// Those that wait for the host.
    waiting: BTreeMap<u32, OwnedFd>,
    last: u32,
}

impl Windows {
    /// Lets programs ask.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub(crate) fn open(&mut self, epoll: &Epoll) -> io::Result<()> {
        self.display = Some(listener(Path::new(DISPLAY), 0o666)?);
        self.carried = Some(listener(Path::new(SOCKET), 0o666)?);
        self.watch(epoll)
    }

    /// Watches with another epoll instance (after a fork).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn watch(&self, epoll: &Epoll) -> io::Result<()> {
        for (listener, token) in [(&self.display, Token::DISPLAY), (&self.carried, Token::WINDOWS)]
        {
            if let Some(listener) = listener {
                epoll.add_read(listener, token)?;
            }
        }
        Ok(())
    }

    /// Programs ask for windows: the carrier gets them, and is started for the first. Returns what to
    /// tell the host, if anything; an error is for the log.
    ///
    /// They are taken here, and not by the carrier: a listening socket that a process of the guest has
    /// too could be made to block, and with it the agent.
    pub(crate) fn asked(&mut self, settings: &Settings) -> Result<Option<FromGuest>, String> {
        let mut news = Ok(None);
        while let Some(program) = self.display.as_ref().and_then(accept) {
            // Who is not carried sees the connection close.
            if self.carrier.as_ref().is_some_and(|(_, carrier)| hand_over(carrier, &program)) {
                continue;
            }
            if !is_in_path("waypipe") {
                news = Ok(Some(FromGuest::NoWaypipe));
                continue;
            }
            match start_carrier(settings) {
                Ok((pid, carrier)) => {
                    hand_over(&carrier, &program);
                    self.carrier = Some((pid, carrier));
                }
                Err(reason) => {
                    news = Err(format!("could not start what carries windows: {reason}"));
                }
            }
        }
        news
    }

    /// A process was reaped. Returns whether it was the carrier; the next program starts another.
    pub(crate) fn reaped(&mut self, pid: Pid) -> bool {
        self.carrier.take_if(|(carrier, _)| *carrier == pid).is_some()
    }

    /// waypipe has connected. `outbox` is none while there is no host to ask.
    pub(crate) fn accept(&mut self, mut outbox: Option<&mut Outbox>) {
        let Some(carried) = &self.carried else { return };
        while let Some(socket) = accept(carried) {
            // What is dropped closes.
            let Some(outbox) = outbox.as_mut() else { continue };
            self.last = self.last.wrapping_add(1);
            if self.waiting.len() < MAX_WINDOWS && !self.waiting.contains_key(&self.last) {
                self.waiting.insert(self.last, socket);
                outbox.message(&FromGuest::Windows { window: self.last });
            }
        }
    }

    /// The host has answered.
    pub(crate) fn take(&mut self, window: u32) -> Option<OwnedFd> {
        self.waiting.remove(&window)
    }

    /// The connection to the host is lost.
    pub(crate) fn abandon(&mut self) {
        self.waiting.clear();
    }
}

/// Listens at a path; `mode` says who may connect.
///
/// # Errors
/// The kernel's.
pub(crate) fn listener(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let _ = fs::remove_file(path);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let raw = accept4(listener.as_raw_fd(), flags).ok()?;
    // SAFETY: accept4 has just made it.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Gives a program to the carrier. False when that is gone.
fn hand_over(carrier: &OwnedFd, program: &OwnedFd) -> bool {
    let raw = [program.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&raw)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let sent = sendmsg::<()>(carrier.as_raw_fd(), &[IoSlice::new(b"+")], &rights, flags, None);
    // One that has much to do yet is not gone: another would be its end, and that of all windows. The
    // program sees its connection close.
    matches!(sent, Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS))
}

/// Whether the image has a program where programs are.
pub(crate) fn is_in_path(program: &str) -> bool {
    DEFAULT_PATH.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// waypipe keeps a copy of each pool of pixels, and programs make pools of 512 MiB of which they use
/// a part. A kernel that guesses would refuse a small guest the copy.
fn allow_sparse_memory() {
    const SETTING: &str = "/proc/sys/vm/overcommit_memory";
    // Somebody who has set something else wanted it.
    if fs::read_to_string(SETTING).is_ok_and(|value| value.trim() == "0") {
        let _ = fs::write(SETTING, "1");
    }
}

/// Lets the carrier make pipes as large as the largest image of the clipboard: see there.
fn allow_large_pipes() {
    // Who has set more wanted it.
    let most = fs::read_to_string(PIPE_SETTING).ok().and_then(|text| text.trim().parse().ok());
    if most.is_some_and(|most: i32| most < carrier::PIPE) {
        let _ = fs::write(PIPE_SETTING, carrier::PIPE.to_string());
    }
}

/// Starts the carrier, with a socket for programs as its standard input.
fn start_carrier(settings: &Settings) -> Result<(Pid, OwnedFd), String> {
    allow_sparse_memory();
    allow_large_pipes();
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(|error| error.to_string())?;
    let pid = start(settings, &[PROGRAM, carrier::ARGUMENT], theirs.as_fd())?;
    Ok((pid, ours))
}

/// Starts a program as the default user; its messages go to the console.
///
/// # Errors
/// Why not, for the log.
pub(crate) fn start(
    settings: &Settings,
    words: &[&str],
    stdin: BorrowedFd<'_>,
) -> Result<Pid, String> {
    let request = OpenSession {
        argv: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        environment: Vec::new(),
        cwd: None,
        user: None,
        terminal: None,
        detached: true,
        service: None,
    };
    let command = Command::resolve(&request, settings).map_err(|status| format!("{status:?}"))?;
    let null = fs::File::options().write(true).open("/dev/null").map_err(|e| e.to_string())?;
    // What waypipe has to say is read with the kernel's messages; without a console it is lost.
    let console = fs::File::options().write(true).custom_flags(libc::O_NOCTTY).open("/dev/console");
    let console = console.as_ref().unwrap_or(&null);
    let streams = Streams { stdin, stdout: null.as_fd(), stderr: console.as_fd(), terminal: false };
    let spawned = spawn(&command, streams, None).map_err(|error| error.to_string())?;
    Ok(spawned.pid)
}
