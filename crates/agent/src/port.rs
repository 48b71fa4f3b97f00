//! The virtio-serial port that the link runs over: finding it by its name and opening it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const PORTS: &str = "/sys/class/virtio-ports";

/// The device file of the port with this name; `None` when there is none (yet).
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    find_below(Path::new(PORTS), name)
}

fn find_below(ports: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(ports).ok()?.flatten() {
        let found = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if found.trim_end() == name {
            return Some(Path::new("/dev").join(entry.file_name()));
        }
    }
    None
}

/// Opens a port's device, non-blocking. Only one process can have it open.
pub(crate) fn open(device: &Path) -> io::Result<OwnedFd> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device)?;
    Ok(file.into())
}

/// Whether nobody is at the host's end of the port.
pub(crate) fn is_deserted(port: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(port.as_fd(), PollFlags::empty())];
    let hung_up = |fd: &PollFd<'_>| fd.revents().is_some_and(|e| e.contains(PollFlags::POLLHUP));
    poll(&mut fds, PollTimeout::ZERO).is_ok() && hung_up(&fds[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_name() {
        let ports = std::env::temp_dir().join(format!("casemate-ports-{}", std::process::id()));
        for (port, name) in [("vport0p1", "other\n"), ("vport0p2", "casemate.link\n")] {
            fs::create_dir_all(ports.join(port)).expect("a folder");
            fs::write(ports.join(port).join("name"), name).expect("a file");
        }
        assert_eq!(find_below(&ports, "casemate.link"), Some("/dev/vport0p2".into()));
        assert_eq!(find_below(&ports, "casemate"), None);
        fs::remove_dir_all(&ports).expect("removed");
    }
}
