//! A login shell on the serial console, started again when it ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::unistd::Pid;

use crate::accounts;
use crate::log::Log;
use crate::session::command::{Command, Settings};
use crate::session::signal_group;
use crate::session::spawn::{Streams, spawn};

/// The first shell waits until the first session had its chance: a shell's start costs more than
/// many a command that somebody waits for.
const FIRST: Duration = Duration::from_millis(500);

/// From one shell's end to the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// Group `tty`, as in the options of /dev/pts.
const TTY_GROUP: u32 = 5;

/// The shell on the console.
#[derive(Debug)]
pub(crate) struct Console {
    user: String,
    shell: Option<Pid>,
    next: Option<Instant>,
}

impl Console {
    /// A console that soon gets a shell of this user.
    pub(crate) fn new(user: String) -> Self {
        // Only errors shall be mixed with what somebody types.
        let _ = fs::write("/proc/sys/kernel/printk", "4");
        Self { user, shell: None, next: Some(Instant::now() + FIRST) }
    }

    /// When [`Console::tick`] wants to be called, if at all.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Starts the shell when it is due.
    pub(crate) fn tick(&mut self, now: Instant, settings: &Settings, log: &mut Log) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        match self.start(settings) {
            Ok(pid) => {
                self.shell = Some(pid);
                self.next = None;
            }
            Err(error) => {
                log.warn(format!("could not start a shell on the console: {error}"));
                self.next = None;
            }
        }
    }

    /// A process was reaped: the shell perhaps.
    pub(crate) fn reaped(&mut self, pid: Pid) {
        if self.shell == Some(pid) {
            self.shell = None;
            self.next = Some(Instant::now() + PAUSE);
        }
    }

    /// No more shells; the one that runs is hung up on.
    pub(crate) fn stop(&mut self) {
        self.next = None;
        if let Some(shell) = self.shell {
            signal_group(shell, libc::SIGHUP as u8);
        }
    }

    fn start(&self, settings: &Settings) -> io::Result<Pid> {
        let unknown = || io::Error::other(format!("the guest has no user {:?}", self.user));
        let (account, groups) = accounts::look_up(&self.user)?.ok_or_else(unknown)?;
        let (uid, name) = (account.uid, account.name.clone());
        let command = Command::login_shell(&account, groups, settings, "vt220")
            .map_err(|_| io::Error::other("its shell's name has a zero byte in it"))?;
        let mut terminal = open(&device())?;
        fchown(&terminal, Some(uid), Some(TTY_GROUP))?;
        terminal.set_permissions(fs::Permissions::from_mode(0o620))?;
        write!(terminal, "\r\ncasemate: a shell of {name}; \"exit\" begins a new one\r\n")?;
        let fd = terminal.as_fd();
        let streams = Streams { stdin: fd, stdout: fd, stderr: fd, terminal: true };
        Ok(spawn(&command, streams, None)?.pid)
    }
}

/// The console's device: the serial port when the kernel writes to it, else the first one that
/// the kernel writes to.
fn device() -> String {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    choose(&active)
}

fn choose(active: &str) -> String {
    let mut names = active.split_whitespace();
    let serial = names.clone().find(|name| *name == "ttyS0");
    let name = serial.or_else(|| names.next()).unwrap_or("console");
    format!("/dev/{name}")
}

/// Opened without waiting for a carrier, used with waiting.
fn open(device: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(device)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_serial_port_is_preferred() {
        assert_eq!(super::choose("tty0 ttyS0\n"), "/dev/ttyS0");
        assert_eq!(super::choose("hvc0\n"), "/dev/hvc0");
        assert_eq!(super::choose(""), "/dev/console");
    }
}
