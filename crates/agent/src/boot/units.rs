//! What systemd shall start, told in its own way: links in a target's `.wants` folder. They stand
//! in the overlay and are forgotten at shutdown, as everything there.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::SetupError;

/// Folders with units, as systemd.unit(5) orders them.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What a guest boots to.
const TARGET: &str = "multi-user.target";

/// Units of the image that a compartment has no use for, and that cost seconds of a boot under
/// emulation: consoles it has not, file systems and clocks the agent has set up, and work for long
/// lives.
const NOT_WANTED: [&str; 14] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    "systemd-pstore.service",
    "systemd-remount-fs.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp.service",
];

/// Makes systemd start these, and leave out what a compartment has no use for.
pub(super) fn enable(units: &[String]) -> Result<(), SetupError> {
    let own = Path::new(FOLDERS[0]);
    link(Path::new("/usr/lib/systemd/system").join(TARGET), &own.join("default.target"))?;
    for unit in NOT_WANTED.iter().filter(|name| units.iter().all(|unit| unit != *name)) {
        link(PathBuf::from("/dev/null"), &own.join(unit))?;
    }
    let wants = own.join(format!("{TARGET}.wants"));
    for unit in units {
        let file = find(unit).ok_or_else(|| SetupError::NoUnit { unit: unit.clone() })?;
        link(file, &wants.join(unit))?;
    }
    Ok(())
}

/// The file of a unit; `name@instance.service` is one of `name@.service`.
fn find(unit: &str) -> Option<PathBuf> {
    let template = unit.split_once('@').and_then(|(name, instance)| {
        let (_, kind) = instance.rsplit_once('.')?;
        Some(format!("{name}@.{kind}"))
    });
    let names = [Some(unit.to_owned()), template];
    let files = names
        .iter()
        .flatten()
        .flat_map(|name| FOLDERS.iter().map(move |folder| Path::new(folder).join(name)));
    files.into_iter().find(|file| file.exists())
}

/// Makes a link; one that is there already stays.
fn link(to: PathBuf, at: &Path) -> Result<(), SetupError> {
    if let Some(folder) = at.parent() {
        fs::create_dir_all(folder).map_err(SetupError::file("create the folder", folder))?;
    }
    match symlink(&to, at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(SetupError::file("create", at)(error))
        }
        _ => Ok(()),
    }
}
