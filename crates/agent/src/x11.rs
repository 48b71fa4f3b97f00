//! X11 programs of the guest: an X server that is one window of the compartment.
//!
//! ```text
//! X program ── /tmp/.X11-unix/X0 ──▶ agent ──▶ Xwayland ── wayland-0 ──▶ as any program with a window
//!                                 starts it with the socket that listens
//! ```
//!
//! Nothing of it runs before the first program connects; it ends some seconds after the last. The agent
//! never takes a connection itself: what listens is the X server's too, which could make that block.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use casemate_wire::FromGuest;
use nix::libc;
use nix::unistd::Pid;

use crate::accounts;
use crate::calls::PROGRAM;
use crate::events::{Epoll, Token};
use crate::session::command::Settings;
use crate::windows::{self, is_in_path};

/// How the agent starts itself to become the X server.
pub(crate) const ARGUMENT: &str = "--x11";

/// The variable of X programs.
pub(crate) const DISPLAY: &str = ":0";

/// Where they connect to: the place of display 0, X(7).
const FOLDER: &str = "/tmp/.X11-unix";
const SOCKET: &str = "/tmp/.X11-unix/X0";

const SERVER: &str = "Xwayland";

/// How long the X server stays when its last program has gone, in seconds: some programs connect
/// twice, and under emulation it takes a second to come up.
const LINGERS: &str = "5";

/// The X server, as the agent sees it.
#[derive(Debug, Default)]
pub(crate) struct X11 {
    listener: Option<OwnedFd>,
    server: Option<Pid>,
}

/// Whether the image has the X server.
pub(crate) fn is_there() -> bool {
    is_in_path(SERVER)
}

impl X11 {
    /// Lets the default user's programs connect.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn open(&mut self, settings: &Settings, epoll: &Epoll) -> io::Result<()> {
        if let Some(old) = self.listener.take() {
            epoll.remove(&old)?;
        }
        let Some((account, _)) = accounts::look_up(&settings.default_user)? else { return Ok(()) };
        match DirBuilder::new().mode(0o1777).create(FOLDER) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Somebody else's folder, or a link to one, is no place for a socket of root's.
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let folder = OpenOptions::new().read(true).custom_flags(flags).open(FOLDER)?;
        fchown(&folder, Some(0), Some(0))?;
        folder.set_permissions(Permissions::from_mode(0o1777))?;
        let listener = windows::listener(Path::new(SOCKET), 0o600)?;
        // The X server lets in its own user only, so nobody else has to get there.
        chown(SOCKET, Some(account.uid), Some(account.gid))?;
        epoll.add_read(&listener, Token::X11)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// A program connects: the X server is started when none runs. Returns what to tell the host, if
    /// anything; an error is for the log.
    pub(crate) fn asked(
        &mut self,
        settings: &Settings,
        epoll: &Epoll,
    ) -> Result<Option<FromGuest>, String> {
        let Some(listener) = &self.listener else { return Ok(None) };
        if self.server.is_some() {
            return Ok(None);
        }
        if !is_there() {
            self.refuse(settings, epoll)?;
            return Ok(Some(FromGuest::NoXwayland));
        }
        match windows::start(settings, &[PROGRAM, ARGUMENT], listener.as_fd()) {
            Ok(pid) => {
                self.server = Some(pid);
                Ok(None)
            }
            Err(reason) => {
                self.refuse(settings, epoll)?;
                Err(format!("could not start the X server: {reason}"))
            }
        }
    }

    /// A process was reaped. None when it was not the X server. Otherwise the next program starts
    /// another, and programs whose connection this one never took see it close.
    pub(crate) fn reaped(
        &mut self,
        pid: Pid,
        settings: &Settings,
        epoll: &Epoll,
    ) -> Option<Result<(), String>> {
        self.server.take_if(|server| *server == pid)?;
        Some(self.refuse(settings, epoll))
    }

    /// Closes what waits: the socket is another one from here on.
    fn refuse(&mut self, settings: &Settings, epoll: &Epoll) -> Result<(), String> {
        self.open(settings, epoll)
            .map_err(|error| format!("X11 programs cannot connect any more: {error}"))
    }
}

/// Becomes the X server, with the socket that listens in the place of standard input.
pub(crate) fn run() -> ExitCode {
    let Ok(listener) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let number = 3;
    let mut command = Command::new(SERVER);
    command.args([DISPLAY, "-shm", "-nolisten", "tcp", "-terminate", LINGERS]);
    command.args(["-listenfd", &number.to_string()]);
    command.env("WAYLAND_DISPLAY", windows::DISPLAY).env_remove("DISPLAY").stdin(Stdio::null());
    // The X server closes its standard input, so the socket has to have another number.
    // SAFETY: one system call, on numbers; the listener lives until exec.
    unsafe {
        command.pre_exec(move || {
            use std::os::fd::AsRawFd;
            match libc::dup2(listener.as_raw_fd(), number) {
                -1 => Err(io::Error::last_os_error()),
                // What has this number already would be closed by exec.
                _ if libc::fcntl(number, libc::F_SETFD, 0) == -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    let _ = command.exec();
    ExitCode::FAILURE
}
