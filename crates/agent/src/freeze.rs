//! Holding the volumes' file systems still while the host takes a snapshot of them.
//!
//! Each is frozen by a child process of its own: freezing writes all that waits to the disk, which
//! may take long or for ever, and process 1 waits for nobody. A child thaws its file system when it
//! is told to, when the agent is gone, and in any case when its time is over; so no lost message
//! leaves a guest frozen. Should somebody kill a child, another one thaws in its stead.
//!
//! ```text
//! child:  open ▶ FIFREEZE ▶ says how that went ▶ waits ▶ FITHAW ▶ says so ▶ ends
//! ```
//!
//! The requests are those of ioctl_fsfreeze(2).

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::libc;

use crate::events::{Epoll, Token};
use crate::shutdown::unescape;

/// What a child says when it has frozen, and when it has thawed. Other bytes are error numbers.
const FROZEN: u8 = 0;
const THAWED: u8 = 255;

/// `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)` of linux/fs.h.
const FIFREEZE: u64 = 0xc004_5877;
const FITHAW: u64 = 0xc004_5878;

/// The longest a host can ask for. Programs that write wait all the while.
const LONGEST: Duration = Duration::from_secs(60);

/// A volume that is mounted.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    /// Its name.
    name: String,
    /// Number of the device its file system is on.
    device: u64,
}

impl Mounted {
    /// The file system found at this place.
    pub(crate) fn at(name: &str, mount_point: &str) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), device: fs::metadata(mount_point)?.dev() })
    }
}

/// How far one file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Freezing,
    Frozen,
    Over,
}

#[derive(Debug)]
struct Member {
    volume: Mounted,
    child: UnixStream,
    stage: Stage,
}

/// A freeze that somebody asked for.
#[derive(Debug)]
pub(crate) struct Freeze {
    id: u32,
    members: Vec<Member>,
    answered: bool,
}

impl Freeze {
    /// Begins to freeze all of them.
    ///
    /// # Errors
    /// There can be no child; nothing is frozen then.
    pub(crate) fn begin(
        id: u32,
        volumes: &[Mounted],
        time: Duration,
        epoll: &Epoll,
    ) -> io::Result<Self> {
        let until = Instant::now() + time.min(LONGEST);
        let mut freeze = Self { id, members: Vec::new(), answered: false };
        for volume in volumes {
            let child = start(volume.device, Some(until))?;
            epoll.add_read(&child, Token::FREEZE)?;
            let (volume, stage) = (volume.clone(), Stage::Freezing);
            freeze.members.push(Member { volume, child, stage });
        }
        Ok(freeze)
    }

    /// The number it was asked for with.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Hears what the children say. Returns the answer for the host, once.
    pub(crate) fn hear(&mut self) -> Option<Result<(), String>> {
        let mut failure = None;
        for member in &mut self.members {
            let failed = member.hear();
            failure = failure.or(failed);
        }
        let frozen = self.members.iter().all(|member| member.stage == Stage::Frozen);
        let answer = match failure {
            Some(reason) => Err(reason),
            None if frozen => Ok(()),
            None => return None,
        };
        (!std::mem::replace(&mut self.answered, true)).then_some(answer)
    }

    /// Every file system has thawed.
    pub(crate) fn is_over(&self) -> bool {
        self.members.iter().all(|member| member.stage == Stage::Over)
    }
}

/// Whatever ends the freeze thaws: the children see that nobody talks to them any more.
impl Drop for Freeze {
    fn drop(&mut self) {
        for member in &self.members {
            // Not only closed: children that were forked later have copies.
            let _ = member.child.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Member {
    /// Reads what its child has said; returns what went wrong with freezing.
    fn hear(&mut self) -> Option<String> {
        let mut byte = [0];
        loop {
            let failed = |errno: io::Error| {
                Some(format!("could not freeze the volume {:?}: {errno}", self.volume.name))
            };
            match (self.stage, self.child.read(&mut byte)) {
                (Stage::Over, _) => return None,
                (_, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
                (_, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                (Stage::Freezing, Ok(1)) if byte[0] == FROZEN => self.stage = Stage::Frozen,
                (Stage::Frozen, Ok(1)) => self.stage = Stage::Over,
                (Stage::Freezing, Ok(1)) => {
                    self.stage = Stage::Over;
                    return failed(io::Error::from_raw_os_error(i32::from(byte[0])));
                }
                (stage, _) => {
                    // Killed, and nobody can know how far it came.
                    self.stage = Stage::Over;
                    let _ = start(self.volume.device, None);
                    let killed = || io::Error::other("the process that does it was killed");
                    return if stage == Stage::Freezing { failed(killed()) } else { None };
                }
            }
        }
    }
}

/// Starts a child that freezes the file system of a device until then, or only thaws it.
fn start(device: u64, until: Option<Instant>) -> io::Result<UnixStream> {
    let places = places_of(device);
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    // SAFETY: the process has one thread, and the child makes nothing but system calls on memory
    // prepared above until it exits.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: this is the child.
        0 => unsafe {
            let said = freeze(&places, device, until, theirs.as_raw_fd());
            say(theirs.as_raw_fd(), said);
            libc::_exit(0)
        },
        _ => Ok(ours),
    }
}

/// Where the file system of a device is mounted, if anywhere.
fn places_of(device: u64) -> Vec<CString> {
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let target = fields.next().filter(|found| *found == number).and(fields.nth(1))?;
        CString::new(unescape(target)).ok()
    };
    mounts.lines().filter_map(place).collect()
}

/// The child: freezes, says so, waits, thaws. Returns the last thing to say.
///
/// # Safety
/// Only in a forked child.
unsafe fn freeze(places: &[CString], device: u64, until: Option<Instant>, socket: RawFd) -> u8 {
    // SAFETY: system calls on valid memory.
    unsafe {
        // Nothing of the agent's stays open here, above all not its port.
        close_others(socket);
        let mut filesystem = -1;
        for place in places {
            // Whatever the guest has put there since does not hold it up.
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK;
            filesystem = libc::open(place.as_ptr(), flags);
            let mut found: libc::stat = std::mem::zeroed();
            if filesystem >= 0 && libc::fstat(filesystem, &mut found) == 0 && found.st_dev == device
            {
                break;
            }
            libc::close(filesystem);
            filesystem = -1;
        }
        if let Some(until) = until {
            // What is mounted nowhere is still already.
            if filesystem >= 0 && libc::ioctl(filesystem, FIFREEZE as _, 0) != 0 {
                return *libc::__errno_location() as u8;
            }
            say(socket, FROZEN);
            let mut waited = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let interrupted = libc::poll(&mut waited, 1, left.as_millis() as i32 + 1) < 0
                    && *libc::__errno_location() == libc::EINTR;
                if !interrupted {
                    break;
                }
            }
        }
        if filesystem >= 0 {
            libc::ioctl(filesystem, FITHAW as _, 0);
        }
        THAWED
    }
}

unsafe fn say(socket: RawFd, byte: u8) {
    // SAFETY: one byte that lives as long as the call. Nobody has to listen.
    unsafe { libc::send(socket, (&raw const byte).cast(), 1, libc::MSG_NOSIGNAL) };
}

/// Closes every descriptor but one.
unsafe fn close_others(kept: RawFd) {
    let kept = kept as u32;
    // SAFETY: numbers only. Linux before 5.9 lacks the call; no kernel of ours does.
    unsafe {
        if kept > 0 {
            libc::syscall(libc::SYS_close_range, 0, kept - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, kept + 1, u32::MAX, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_found_by_its_device() {
        let device = fs::metadata("/proc").expect("there").dev();
        assert!(places_of(device).contains(&c"/proc".to_owned()));
        assert_eq!(places_of(u64::MAX), Vec::<CString>::new());
    }

    #[test]
    fn what_cannot_be_frozen_is_told_and_the_rest_thaws() {
        let epoll = Epoll::new().expect("made");
        // A device that is mounted nowhere needs no freezing; /proc cannot be frozen.
        let nowhere = Mounted { name: "a".into(), device: u64::MAX };
        let time = Duration::from_secs(30);
        let mut good =
            Freeze::begin(1, std::slice::from_ref(&nowhere), time, &epoll).expect("begun");
        let mut answer = None;
        let heard = |freeze: &mut Freeze, answer: &mut Option<Result<(), String>>| {
            let begin = Instant::now();
            while answer.is_none() && begin.elapsed() < Duration::from_secs(10) {
                *answer = freeze.hear();
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        heard(&mut good, &mut answer);
        assert_eq!(answer, Some(Ok(())));
        assert!(!good.is_over() && good.hear().is_none());
        let proc = Mounted::at("b", "/proc").expect("there");
        let mut bad = Freeze::begin(2, &[nowhere, proc], time, &epoll).expect("begun");
        answer = None;
        heard(&mut bad, &mut answer);
        let reason = answer.expect("answered").expect_err("cannot be frozen");
        assert!(reason.starts_with("could not freeze the volume \"b\""), "{reason}");
    }

    #[test]
    fn it_ends_by_itself_when_its_time_is_over() {
        let epoll = Epoll::new().expect("made");
        let nowhere = Mounted { name: "a".into(), device: u64::MAX };
        let mut freeze =
            Freeze::begin(1, &[nowhere], Duration::from_millis(50), &epoll).expect("begun");
        let begin = Instant::now();
        while !freeze.is_over() && begin.elapsed() < Duration::from_secs(10) {
            freeze.hear();
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(freeze.is_over());
    }
}
