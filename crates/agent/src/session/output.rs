//! One output of a session, a pipe or a terminal: read only as far as the host has given credit
//! and the link has room, one chunk per turn.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use casemate_wire::{Kind, Sender};
use nix::errno::Errno;
use nix::libc;

use crate::outbox::{CHUNK, Outbox};

nix::ioctl_read_bad!(bytes_to_read, libc::FIONREAD, libc::c_int);

/// Most bytes that a terminal's buffers can hold when its command ends: 64 KiB of the driver and
/// the line discipline's own, rounded up. More than that was written by somebody else, later.
const TERMINAL_BUFFERS: usize = 128 * 1024;

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Pipe,
    Terminal,
}

/// One way out.
#[derive(Debug)]
pub(crate) struct Output {
    fd: Option<OwnedFd>,
    form: Form,
    kind: Kind,
    /// Bytes or the end may be there.
    ready: bool,
    /// All writers are gone: what is there is followed by the end of file.
    hung_up: bool,
    /// The command has ended; so many bytes at most are still its own.
    left: Option<usize>,
}

impl Output {
    /// The reading end of a pipe or the master of a terminal, non-blocking.
    pub(crate) fn new(fd: OwnedFd, form: Form, kind: Kind) -> Self {
        Self { fd: Some(fd), form, kind, ready: false, hung_up: false, left: None }
    }

    /// An output that has ended already: the standard error of a session with a terminal.
    pub(crate) fn closed() -> Self {
        Self {
            fd: None,
            form: Form::Pipe,
            kind: Kind::Stderr,
            ready: false,
            hung_up: true,
            left: None,
        }
    }

    /// The descriptor, while it is open.
    pub(crate) fn fd(&self) -> Option<&OwnedFd> {
        self.fd.as_ref()
    }

    /// Whether the host was told the end.
    pub(crate) fn is_closed(&self) -> bool {
        self.fd.is_none()
    }

    /// Whether a turn could do something, credit aside.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready && self.fd.is_some()
    }

    /// Epoll's news.
    pub(crate) fn event(&mut self, hung_up: bool) {
        self.ready = true;
        self.hung_up |= hung_up;
    }

    /// The command has ended. What it wrote before is still delivered; what its children that
    /// live on write later is not waited for (as `podman exec` does it, unlike sshd).
    pub(crate) fn command_ended(&mut self) {
        let Some(fd) = &self.fd else { return };
        let mut count: libc::c_int = 0;
        self.left = Some(match self.form {
            Form::Terminal => TERMINAL_BUFFERS,
            // SAFETY: the argument is an int that outlives the call.
            Form::Pipe => match unsafe { bytes_to_read(fd.as_raw_fd(), &mut count) } {
                Ok(_) => usize::try_from(count).unwrap_or(0),
                Err(_) => 0,
            },
        });
        self.ready = true;
    }

    /// Reads one chunk into the outbox. `stream` is none when nobody listens any more: the bytes
    /// are thrown away then. Returns whether another turn may bring more.
    pub(crate) fn turn(
        &mut self,
        stream: Option<u32>,
        credit: &mut Sender,
        outbox: &mut Outbox,
    ) -> bool {
        let Some(fd) = self.fd.as_ref().filter(|_| self.ready) else { return false };
        if self.left == Some(0) {
            self.close(stream, outbox);
            return false;
        }
        let allowed = if stream.is_some() { credit.available() } else { CHUNK };
        let wanted = allowed.min(CHUNK).min(self.left.unwrap_or(CHUNK));
        if wanted == 0 {
            return false;
        }
        match nix::unistd::read(fd, outbox.payload(wanted)) {
            // A terminal whose last slave is closed says EIO.
            Ok(0) | Err(Errno::EIO) => self.close(stream, outbox),
            Ok(count) => {
                if let Some(stream) = stream {
                    credit.spend(count);
                    outbox.commit(stream, self.kind, count);
                }
                self.left = self.left.map(|left| left - count);
                // A pipe that gave less than asked for is empty; a terminal may just have come
                // to the end of a line.
                if self.form == Form::Pipe && count < wanted && !self.hung_up && self.left.is_none()
                {
                    self.ready = false;
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                self.ready = false;
                if self.left.is_some() {
                    self.close(stream, outbox);
                }
            }
            Err(_) => self.close(stream, outbox),
        }
        self.is_ready()
    }

    /// Ends it; what was not read yet is thrown away.
    pub(crate) fn close(&mut self, stream: Option<u32>, outbox: &mut Outbox) {
        let was_open = self.fd.take().is_some();
        if let (true, Some(stream)) = (was_open, stream) {
            outbox.frame(stream, self.kind, &[]);
        }
    }

    /// Resizes the terminal behind this output.
    pub(crate) fn resize(&self, size: casemate_wire::TerminalSize) -> io::Result<()> {
        match (&self.fd, self.form) {
            (Some(fd), Form::Terminal) => super::terminal::resize(fd, size),
            _ => Ok(()),
        }
    }

    /// The process group in the foreground of the terminal behind this output.
    pub(crate) fn foreground(&self) -> Option<nix::unistd::Pid> {
        let fd = self.fd.as_ref().filter(|_| self.form == Form::Terminal)?;
        super::terminal::foreground(fd)
    }
}
