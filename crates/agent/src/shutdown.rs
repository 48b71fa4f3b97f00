//! The end of the guest: asking every process to end, ending them, unmounting, resetting the
//! machine.
//!
//! The agent's loop goes on meanwhile, so that the last output of sessions still gets out; this
//! file says what is due when.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, syncfs};

/// Between SIGTERM and SIGKILL, and between SIGKILL and giving up on what survives it.
const GRACE: Duration = Duration::from_secs(1);

/// For writing out and unmounting the shares, which hold little: their files are written through.
const SHARES: Duration = Duration::from_secs(3);

/// How far the shutdown is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shutdown {
    /// Everybody was asked to end, and has until then.
    Asked(Instant),
    /// Everybody was ended; what still is there by then is stuck in the kernel.
    Killed(Instant),
}

impl Shutdown {
    /// Asks every process to end.
    pub(crate) fn begin() -> Self {
        signal_all(Signal::SIGTERM);
        // A stopped process ends only when it goes on.
        signal_all(Signal::SIGCONT);
        Self::Asked(Instant::now() + GRACE)
    }

    /// When [`Shutdown::tick`] wants to be called.
    pub(crate) fn deadline(self) -> Instant {
        match self {
            Self::Asked(until) | Self::Killed(until) => until,
        }
    }

    /// The next step when it is due; none when there is nothing more to wait for.
    pub(crate) fn tick(self, now: Instant) -> Option<Self> {
        match self {
            Self::Asked(until) if now >= until => {
                signal_all(Signal::SIGKILL);
                Some(Self::Killed(now + GRACE))
            }
            Self::Killed(until) if now >= until => None,
            waiting => Some(waiting),
        }
    }
}

/// Asks another process 1 for a reset: the signal is systemd's for it, and sysvinit's and
/// busybox' inits take no harm from it.
pub(crate) fn ask_init() {
    // SAFETY: numbers only. nix's kill does not know real-time signals.
    unsafe { libc::kill(1, libc::SIGRTMIN() + 5) };
}

/// To every process but this one and the kernel's own.
fn signal_all(signal: Signal) {
    let _ = kill(Pid::from_raw(-1), signal);
}

/// Unmounts what lasts and resets the machine. Returns only when the kernel refuses.
///
/// Always a reset, never a power-off: the host runs its machines so that a reset ends them, and
/// that works on machine types without ACPI power management too, where powering off leaves the
/// virtual machine running without a guest.
pub(crate) fn reset() -> Errno {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let (shares, devices): (Vec<_>, Vec<_>) =
        lasting(&mounts).into_iter().partition(|(is_share, _)| *is_share);
    for (_, target) in &devices {
        put_down(target);
    }
    if !shares.is_empty() {
        // One whose server on the host is gone keeps whoever touches it for good.
        let (done, all_done) = mpsc::channel();
        thread::spawn(move || {
            for (_, target) in &shares {
                put_down(target);
            }
            let _ = done.send(());
        });
        let _ = all_done.recv_timeout(SHARES);
    }
    match reboot(RebootMode::RB_AUTOBOOT) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// Writes out and unmounts a file system; one in use can be written to no more.
fn put_down(target: &str) {
    // Not sync(2), which would write out the shares as well.
    if let Ok(folder) = fs::File::open(target) {
        let _ = syncfs(&folder);
    }
    if umount2(target, MntFlags::empty()).is_err() {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let _ = mount(None::<&str>, target, None::<&str>, flags, None::<&str>);
    }
}

/// Mount points whose content outlives the guest: writable and with a device or a host's folder
/// behind them. Those mounted last come first.
fn lasting(mountinfo: &str) -> Vec<(bool, String)> {
    let mut found: Vec<(bool, String)> = mountinfo.lines().filter_map(lasting_target).collect();
    found.reverse();
    found
}

/// Whether it is a host's folder, and where it is.
fn lasting_target(line: &str) -> Option<(bool, String)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(4);
    let target = mount.next()?;
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?;
    let source = filesystem.next()?;
    let writable = filesystem.next()?.split(',').any(|option| option == "rw");
    let is_share = matches!(kind, "virtiofs" | "9p");
    let lasts = source.starts_with("/dev/") || is_share;
    (writable && lasts).then(|| (is_share, unescape(target)))
}

/// The path in a field of mountinfo, where blanks and backslashes stand as `\ooo`.
pub(crate) fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| first == b'\\');
        let byte = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &behind[3..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_is_unmounted() {
        let mountinfo = "\
            22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/lower\n\
            23 22 0:5 / /dev rw,nosuid - devtmpfs dev rw,size=1k\n\
            30 22 254:16 / /home/a\\040b rw,relatime shared:1 - ext4 /dev/vdb rw\n\
            31 22 254:32 / /srv ro,relatime - ext4 /dev/vdc ro\n\
            32 22 0:40 / /mnt/share rw - virtiofs share rw\n\
            33 22 254:48 / /srv/data rw - ext4 /dev/vdd rw\n\
            broken line\n";
        let found = lasting(mountinfo);
        let found: Vec<(bool, &str)> = found.iter().map(|(share, at)| (*share, &**at)).collect();
        let expected = [(false, "/srv/data"), (true, "/mnt/share"), (false, "/home/a b")];
        assert_eq!(found, expected);
    }

    #[test]
    fn killing_follows_asking_and_then_nothing_is_waited_for() {
        let now = Instant::now();
        let asked = Shutdown::Asked(now + GRACE);
        assert!(matches!(asked.tick(now), Some(Shutdown::Asked(_))));
        let killed = Shutdown::Killed(now + GRACE);
        assert!(matches!(killed.tick(now), Some(Shutdown::Killed(_))));
        assert!(killed.tick(now + GRACE).is_none());
    }
}
