//! Shares: folders of the host, by virtio-fs.
//!
//! Read-only is the host's to enforce; mounted so, programs are told at once.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use casemate_wire::ShareMount;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::SetupError;

/// How long a device may take to appear. Those seen were there before the module was loaded.
const DEVICE_WAIT: Duration = Duration::from_secs(5);

/// Mounts all of them.
pub(super) fn mount_all(shares: &[ShareMount]) -> Result<(), SetupError> {
    for share in shares {
        let target = Path::new(&share.mount_point);
        // Its owner does not matter: it is covered.
        fs::create_dir_all(target).map_err(SetupError::file("create the folder", target))?;
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        flags.set(MsFlags::MS_RDONLY, share.read_only);
        let begin = Instant::now();
        loop {
            let tag = share.tag.as_str();
            match mount(Some(tag), target, Some("virtiofs"), flags, None::<&str>) {
                Ok(()) => break,
                // The kernel's answer when no device has this tag.
                Err(Errno::EINVAL) if begin.elapsed() < DEVICE_WAIT => {
                    sleep(Duration::from_millis(2));
                }
                Err(error) => {
                    return Err(SetupError::Mount {
                        what: format!("the share {tag:?}"),
                        target: share.mount_point.clone(),
                        source: error.into(),
                    });
                }
            }
        }
    }
    Ok(())
}
