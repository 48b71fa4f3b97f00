//! A program in a terminal: what a person at a keyboard does and sees.

// UNSAFETY: giving a child its controlling terminal needs code between fork and exec, and a
// terminal's size has no safe wrapper.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::libc;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

use crate::call::{Call, contains};
use crate::wait::BOOT;

/// A program with a terminal of its own. It is killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    what: String,
    master: File,
    /// Held open so that settings can be read when the program has ended.
    slave: OwnedFd,
    child: Child,
    screen: Arc<(Mutex<Vec<u8>>, Condvar)>,
    /// How much of it was looked at.
    seen: usize,
}

impl Terminal {
    /// Starts a call in a terminal with these lines and columns.
    ///
    /// # Panics
    /// When there is no terminal or the program cannot be started.
    #[track_caller]
    pub fn start(mut call: Call, lines: u16, columns: u16) -> Self {
        let OpenptyResult { master, slave } =
            openpty(&size(lines, columns), None::<&Termios>).expect("a pseudo terminal");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let command = &mut call.command;
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        // SAFETY: setsid(2) and ioctl(2) are async-signal-safe, and nothing else is called between
        // fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let what = format!("{command:?}");
        let child = command.spawn().expect("it starts");
        let master = File::from(master);
        let screen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let shared = screen.clone();
        let mut reader = master.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shared.0.lock().expect("no panic").extend_from_slice(&buffer[..count]);
                shared.1.notify_all();
            }
        });
        Self { what, master, slave, child, screen, seen: 0 }
    }

    /// Types.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// Waits until `text` is shown, later than what was expected before; returns what was shown up
    /// to its end.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        self.expect_within(text, BOOT / 2)
    }

    /// The same with a limit of its own.
    #[track_caller]
    pub fn expect_within(&mut self, text: &str, limit: Duration) -> String {
        let begin = Instant::now();
        let mut screen = self.screen.0.lock().expect("no panic");
        loop {
            let new = &screen[self.seen..];
            let at = new.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = at {
                let shown = String::from_utf8_lossy(&new[..at + text.len()]).into_owned();
                self.seen += at + text.len();
                return shown;
            }
            let left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                panic!(
                    "{}\nnever showed `{}`; since the last that it did:\n{}",
                    self.what,
                    text.escape_debug(),
                    String::from_utf8_lossy(new).escape_debug()
                );
            }
            screen = self.screen.1.wait_timeout(screen, left).expect("no panic").0;
        }
    }

    /// Whether `text` was ever shown.
    pub fn showed(&self, text: &str) -> bool {
        contains(&self.screen.0.lock().expect("no panic"), text.as_bytes())
    }

    /// Everything that was shown.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.0.lock().expect("no panic")).into_owned()
    }

    /// Changes the size of the window; the kernel sends SIGWINCH.
    pub fn resize(&self, lines: u16, columns: u16) {
        let size = size(lines, columns);
        // SAFETY: the kernel reads one `winsize`, and the descriptor is open.
        let result =
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0, "the descriptor is a terminal");
    }

    /// The settings of the line discipline, termios(3).
    pub fn settings(&self) -> Termios {
        tcgetattr(self.slave.as_fd()).expect("a terminal")
    }

    /// Process id of the program, which leads a session of its own.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Waits for the end of the program; its exit code, or 128 and the number of the signal.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        let status = crate::until("the end of the program in the terminal", BOOT / 2, || {
            self.child.try_wait().expect("a child")
        });
        status.code().or_else(|| Some(128 + status.signal()?)).expect("one of the two")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // The whole group; one that has just ended needs no signal.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn size(lines: u16, columns: u16) -> Winsize {
    Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
