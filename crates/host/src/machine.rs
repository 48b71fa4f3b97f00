//! What doctor wants to know about the machine beyond what plans are made from: files of the kernel,
//! swap, free room, systemd's units. Only looks, and says of what it cannot see why.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use casemate_doctor::host::{FILES, Look, Swap, Units, VULNERABILITIES};
use casemate_plan::facts::OwnPrograms;

/// How much of a file is read; mount tables of machines with many containers are the longest.
const LONGEST: u64 = 256 * 1024;

/// Where systemd looks for units of the system, the first that has one counts (systemd.unit(5)).
const SYSTEM_UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// Libraries of allocators that are built beside the programs.
const ALLOCATORS: [&str; 2] = ["casemate-malloc-hardened.so", "casemate-malloc-hardened-light.so"];

/// The files that doctor's checks read.
pub fn kernel_files() -> BTreeMap<&'static str, Look<String>> {
    FILES.iter().map(|file| (*file, text(Path::new(file)))).collect()
}

/// What the kernel says about known faults of the processor.
pub fn vulnerabilities() -> Look<BTreeMap<String, String>> {
    let folder = Path::new(VULNERABILITIES);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| told(folder, &error))? {
        let path = entry.map_err(|error| told(folder, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.insert(name, text(&path)?);
    }
    Ok(found)
}

/// Areas that memory is written to. Those on a dm-crypt device and in compressed memory are safe.
pub fn swaps() -> Look<Vec<Swap>> {
    let table = text(Path::new("/proc/swaps"))?;
    let areas = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    Ok(areas.map(|path| Swap { path: path.to_owned(), safe: is_safe(Path::new(path)) }).collect())
}

fn is_safe(area: &Path) -> bool {
    let device = fs::canonicalize(area).unwrap_or_else(|_| area.to_owned());
    let Some(name) = device.file_name().map(Path::new) else { return false };
    if name.to_string_lossy().starts_with("zram") {
        return true;
    }
    let uuid = Path::new("/sys/block").join(name).join("dm/uuid");
    device.starts_with("/dev") && text(&uuid).is_ok_and(|uuid| uuid.starts_with("CRYPT-"))
}

/// Bytes that the caller can still write on the file system of `path`, or of its nearest parent
/// that is there.
pub fn free_space(path: &Path) -> Look<u64> {
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(path);
    let found = nix::sys::statvfs::statvfs(there).map_err(|error| told(there, &error.into()))?;
    Ok(found.blocks_available() * found.fragment_size())
}

/// Libraries of allocators that should lie beside the programs and do not.
pub fn missing_allocators(programs: &OwnPrograms) -> Vec<String> {
    let files = ALLOCATORS.map(|name| programs.agent.with_file_name(name));
    files.into_iter().filter(|file| !file.is_file()).map(|f| f.display().to_string()).collect()
}

/// What systemd is told of compartments: of the user's own, with `configuration` as their folder
/// (`~/.config`), else of the system's. `autostart` are those that should start by themselves.
pub fn units(configuration: Option<&Path>, programs: &OwnPrograms, autostart: &[String]) -> Units {
    let folders: Vec<PathBuf> = match configuration {
        Some(folder) => vec![folder.join("systemd/user"), "/etc/systemd/user".into()],
        None => SYSTEM_UNITS.map(PathBuf::from).to_vec(),
    };
    let find = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|at| at.exists());
    let service = find("casemate@.service");
    let target = if configuration.is_some() { "default" } else { "multi-user" };
    let wanted = |name: &&String| {
        let link = format!("{target}.target.wants/casemate@{name}.service");
        !folders.iter().any(|folder| fs::symlink_metadata(folder.join(&link)).is_ok())
    };
    let program = programs.supervisor.display().to_string();
    let starts =
        service.as_deref().and_then(|path| text(path).ok()).and_then(|unit| {
            let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="))?.to_owned();
            Some(line.strip_prefix('"').and_then(|rest| rest.split('"').next()).map_or_else(
                || line.split(' ').next().unwrap_or_default().to_owned(),
                str::to_owned,
            ))
        });
    Units {
        systemd: Path::new("/run/systemd/system").is_dir(),
        installed: service.is_some() && find("casemate@.socket").is_some(),
        stale: starts.filter(|found| *found != program),
        not_enabled: autostart.iter().filter(wanted).cloned().collect(),
    }
}

/// A file's text without the last line break.
fn text(path: &Path) -> Look<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST).read_to_end(&mut bytes))
        .map_err(|error| told(path, &error))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

fn told(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{} does not exist", path.display()),
        _ => format!("could not read {}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs() -> OwnPrograms {
        let program = |name: &str| Path::new("/opt/casemate").join(name);
        OwnPrograms {
            supervisor: program("casemate-supervisor"),
            link: program("casemate-link"),
            jail: program("casemate-jail"),
            agent: program("casemate-agent"),
            netns: program("casemate-netns"),
            switch: program("casemate-switch"),
            wayland: program("casemate-wayland"),
        }
    }

    #[test]
    fn every_file_is_read_or_said_why_not() {
        let files = kernel_files();
        assert_eq!(files.len(), FILES.len());
        for (file, content) in files {
            match content {
                Ok(text) => assert!(!text.ends_with('\n'), "{file}"),
                Err(reason) => assert!(reason.contains(file), "{reason}"),
            }
        }
    }

    #[test]
    fn room_is_that_of_the_nearest_folder_that_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let free = free_space(&folder.path().join("not/yet")).expect("seen");
        assert!(free > 0);
    }

    #[test]
    fn plain_devices_and_files_are_no_safe_swap() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(!is_safe(file.path()));
        assert!(!is_safe(Path::new("/dev/null")));
        assert!(is_safe(Path::new("/dev/zram0")));
    }

    #[test]
    fn units_are_compared_with_the_programs_there_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let units_folder = folder.path().join("systemd/user");
        let write = |program: &str| {
            let text = format!("[Service]\nExecStart=\"{program}\" %i\n");
            fs::create_dir_all(units_folder.join("default.target.wants")).expect("made");
            fs::write(units_folder.join("casemate@.service"), text).expect("written");
            fs::write(units_folder.join("casemate@.socket"), "").expect("written");
        };
        let of = || units(Some(folder.path()), &programs(), &["mail".into(), "web".into()]);
        assert!(!of().installed);
        assert_eq!(of().stale, None);
        write("/old/casemate-supervisor");
        assert_eq!(of().stale.as_deref(), Some("/old/casemate-supervisor"));
        write("/opt/casemate/casemate-supervisor");
        let link = units_folder.join("default.target.wants/casemate@web.service");
        std::os::unix::fs::symlink("../casemate@.service", link).expect("linked");
        let found = of();
        assert!(found.installed);
        assert_eq!((found.stale, found.not_enabled), (None, vec!["mail".to_owned()]));
    }
}
