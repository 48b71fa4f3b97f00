//! `casemate-agent --carry-windows`: takes programs that want windows, and passes them on to waypipe,
//! which it starts for the first of them and again when it has ended.
//!
//! It stands between them because waypipe can neither take a socket that listens already nor be
//! waited for: programs connect before it is there. Bytes and descriptors go through unread. It runs
//! as the guest's default user; a guest may kill it, and the agent starts another for the next program.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::windows::SOCKET;
use crate::x11;

/// How the agent starts it.
pub(crate) const ARGUMENT: &str = "--carry-windows";

/// How waypipe starts what it ends with: a server of waypipe lives as long as a command.
const HOLD: &str = "--hold-windows";

/// How long waypipe may take to listen. Its libraries are many: 0.4 s have been seen under emulation.
const PATIENCE: Duration = Duration::from_secs(20);

/// Descriptors that travel with one message at most: libwayland sends 28.
const DESCRIPTORS: usize = 64;

/// What a pipe of the clipboard's holds, in bytes: the largest image that is copied. waypipe (0.8.4) reads
/// what a program copied when the program has ended its writing, and a pipe holds 64 KiB otherwise.
pub(crate) const PIPE: i32 = 16 << 20;

/// Whether the agent's program was started as this.
pub fn is_carrier(argument: &str) -> bool {
    [ARGUMENT, HOLD, x11::ARGUMENT].contains(&argument)
}

/// Carries, or holds, or becomes the X server.
pub fn run(argument: &str) -> ExitCode {
    if argument == x11::ARGUMENT {
        return x11::run();
    }
    if argument == HOLD {
        // Ends when the carrier does, which has the other end.
        let _ = io::stdin().read(&mut [0]);
        return ExitCode::SUCCESS;
    }
    match carry() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn carry() -> io::Result<()> {
    // SAFETY: the agent starts this with a socket there.
    let agent = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let folder = std::env::var_os("XDG_RUNTIME_DIR").ok_or(io::ErrorKind::NotFound)?;
    let mut waypipe = Waypipe { display: Path::new(&folder).join("casemate-windows"), child: None };
    loop {
        let (count, mut programs, _) = receive(&agent, &mut [0; 8])?;
        if count == 0 {
            return Ok(());
        }
        for program in programs.drain(..).map(UnixStream::from) {
            program.set_nonblocking(false)?;
            // Without waypipe the program sees its connection close.
            if let Ok(carried) = waypipe.connect() {
                join(program, carried);
            }
        }
    }
}

/// The guest's end of waypipe.
struct Waypipe {
    display: PathBuf,
    child: Option<Child>,
}

impl Waypipe {
    fn connect(&mut self) -> io::Result<UnixStream> {
        if self.is_running()
            && let Ok(connected) = UnixStream::connect(&self.display)
        {
            return Ok(connected);
        }
        self.start()?;
        let begin = Instant::now();
        loop {
            match UnixStream::connect(&self.display) {
                Ok(connected) => return Ok(connected),
                Err(error) if begin.elapsed() > PATIENCE || !self.is_running() => {
                    return Err(error);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn start(&mut self) -> io::Result<()> {
        if let Some(mut old) = self.child.take() {
            let _ = old.kill().and_then(|()| old.wait().map(drop));
        }
        // Of one that was killed.
        let _ = fs::remove_file(&self.display);
        let mut command = Command::new("waypipe");
        command.args(["--compress", "none", "--no-gpu", "--threads", "1", "--socket", SOCKET]);
        command.arg("--display").arg(&self.display).args(["server", "--"]);
        command.args([crate::calls::PROGRAM, HOLD]);
        command.env_remove("WAYLAND_DISPLAY").stdin(Stdio::piped());
        // SAFETY: one system call, on numbers. This thread lives as long as the process.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        self.child = Some(command.spawn()?);
        Ok(())
    }
}

/// Passes everything on, both ways, until one end closes.
fn join(one: UnixStream, other: UnixStream) {
    let (one, other) = (Arc::new(one), Arc::new(other));
    for (from, to) in [(one.clone(), other.clone()), (other, one)] {
        std::thread::spawn(move || {
            while let Ok(true) = pass(&from, &to) {}
            for end in [&from, &to] {
                let _ = end.shutdown(std::net::Shutdown::Both);
            }
        });
    }
}

/// One message: its length, its descriptors, and whether some are lost.
fn receive(from: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>, bool)> {
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS]);
    let mut pieces = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(from.as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: recvmsg has just made them.
            descriptors.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, descriptors, message.flags.contains(MsgFlags::MSG_CTRUNC)))
}

/// Makes a pipe hold more; anything else stays what it is.
fn widen(descriptor: &OwnedFd) {
    // SAFETY: a system call on numbers; the descriptor is open.
    unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE) };
}

/// Passes one piece on, with its descriptors. False at the end.
fn pass(from: &UnixStream, to: &UnixStream) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    let (count, mut descriptors, lost) = receive(from, &mut buffer)?;
    if count == 0 || lost {
        return Ok(false);
    }
    descriptors.iter().for_each(widen);
    let mut rest = buffer.get(..count).unwrap_or_default();
    while !rest.is_empty() {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(rest)], rights, flags, None)?;
        rest = rest.get(sent..).unwrap_or_default();
        descriptors.clear();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bytes_and_descriptors_pass_both_ways_and_an_end_ends_both() {
        let (mut program, one) = UnixStream::pair().expect("made");
        let (other, mut waypipe) = UnixStream::pair().expect("made");
        join(one, other);
        let (kept, sent) = UnixStream::pair().expect("made");
        let raw = [sent.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&raw)];
        let pieces = [IoSlice::new(b"pool")];
        sendmsg::<()>(program.as_raw_fd(), &pieces, &rights, MsgFlags::empty(), None)
            .expect("sent");
        let mut buffer = [0; 16];
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let mut pieces = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::empty();
        let message = recvmsg::<()>(waypipe.as_raw_fd(), &mut pieces, Some(&mut space), flags)
            .expect("received");
        assert_eq!(message.bytes, 4);
        let got = message.cmsgs().expect("whole").next();
        let Some(ControlMessageOwned::ScmRights(got)) = got else { panic!("no descriptor") };
        // SAFETY: recvmsg has just made it.
        let mut passed = UnixStream::from(unsafe { OwnedFd::from_raw_fd(got[0]) });
        passed.write_all(b"x").expect("it is the same");
        (&kept).read_exact(&mut [0]).expect("it came");
        waypipe.write_all(b"event").expect("sent");
        let mut five = [0; 5];
        program.read_exact(&mut five).expect("came");
        assert_eq!(&five, b"event");
        drop(waypipe);
        assert_eq!(program.read(&mut five).expect("ended"), 0);
    }
}
