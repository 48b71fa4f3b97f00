//! Windows of the guest's programs: what lets them reach the user's desktop.
//!
//! ```text
//! program ── wayland-0 ──▶ carrier ──▶ waypipe server ── windows ──▶ agent ══ stream ══▶ host
//!            listens, until       (started by the            Windows ──▶
//!            the carrier does      carrier)                ◀── ShowWindows
//! ```
//!
//! Nothing of it runs before the first program asks for a window: until then there is a socket that
//! the agent listens on. Any program of the guest may show windows; whose they are, and whether they
//! are shown at all, is the host's to know.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use casemate_wire::limits::MAX_WINDOWS;
use casemate_wire::{FromGuest, OpenSession};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket,
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

/// A carrier that ends sooner cannot do its work: who waits is turned away.
const TOO_SOON: Duration = Duration::from_secs(2);

/// What of the windows is the agent's.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    display: Option<OwnedFd>,
    carried: Option<OwnedFd>,
    carrier: Option<(Pid, Instant)>,
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
        self.display = Some(listener(Path::new(DISPLAY))?);
        self.carried = Some(listener(Path::new(SOCKET))?);
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

    /// A program asks for a window. Returns what to tell the host, if anything; an error is for the
    /// log.
    pub(crate) fn asked(&mut self, settings: &Settings) -> Result<Option<FromGuest>, String> {
        let Some(display) = &self.display else { return Ok(None) };
        if self.carrier.is_some() || !is_readable(display) {
            return Ok(None);
        }
        if !has_waypipe() {
            self.turn_away();
            return Ok(Some(FromGuest::NoWaypipe));
        }
        match start(display, settings) {
            Ok(pid) => {
                self.carrier = Some((pid, Instant::now()));
                Ok(None)
            }
            Err(reason) => {
                self.turn_away();
                Err(format!("could not start what carries windows: {reason}"))
            }
        }
    }

    /// A process was reaped. Returns whether it was the carrier; the next program starts another.
    pub(crate) fn reaped(&mut self, pid: Pid) -> bool {
        let Some((_, since)) = self.carrier.take_if(|(carrier, _)| *carrier == pid) else {
            return false;
        };
        if since.elapsed() < TOO_SOON {
            self.turn_away();
        }
        true
    }

    /// Who waits sees the connection close.
    fn turn_away(&self) {
        if let Some(display) = &self.display {
            while accept(display).is_some() {}
        }
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

fn listener(path: &Path) -> io::Result<OwnedFd> {
    let _ = fs::remove_file(path);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let raw = accept4(listener.as_raw_fd(), flags).ok()?;
    // SAFETY: accept4 has just made it.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn is_readable(listener: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn has_waypipe() -> bool {
    DEFAULT_PATH.split(':').any(|folder| Path::new(folder).join("waypipe").is_file())
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

/// Starts the carrier as the default user, with the listening socket as its standard input.
fn start(display: &OwnedFd, settings: &Settings) -> Result<Pid, String> {
    let words = [PROGRAM, carrier::ARGUMENT];
    let request = OpenSession {
        argv: words.map(|word| word.as_bytes().to_vec()).to_vec(),
        environment: Vec::new(),
        cwd: None,
        user: None,
        terminal: None,
        detached: true,
        service: None,
    };
    let command = Command::resolve(&request, settings).map_err(|status| format!("{status:?}"))?;
    allow_sparse_memory();
    let null = fs::File::options().write(true).open("/dev/null").map_err(|e| e.to_string())?;
    // What waypipe has to say is read with the kernel's messages; without a console it is lost.
    let console = fs::File::options().write(true).custom_flags(libc::O_NOCTTY).open("/dev/console");
    let console = console.as_ref().unwrap_or(&null);
    let streams = Streams {
        stdin: display.as_fd(),
        stdout: null.as_fd(),
        stderr: console.as_fd(),
        terminal: false,
    };
    spawn(&command, streams, None).map(|spawned| spawned.pid).map_err(|error| error.to_string())
}
