//! What the tests share: a folder for volumes, and the tools they need.

#![allow(dead_code)] // Each test file uses a part.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use casemate_config::{
    CompartmentName, DiskFormat, Filesystem, KeySource, Size, Volume, VolumeName,
};
use casemate_volume::{LockedVolume, Secret, SnapshotName, Unlock, Volumes};

/// A data directory with everything in it.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) volumes: Volumes,
    pub(crate) identity: PathBuf,
}

/// None, with the reason printed, when a program is not installed.
pub(crate) fn world(tools: &[&str]) -> Option<World> {
    for tool in tools {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        if !std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()) {
            println!("skipped: {tool} is not installed");
            return None;
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let volumes = Volumes::at(&directory.path().join("data"));
    let identity = directory.path().join("config/identity.txt");
    Some(World { directory, volumes, identity })
}

pub(crate) const AGE: &[&str] = &["cryptsetup", "qemu-img", "qemu-io", "age", "setpriv"];

impl World {
    /// A key in a file, which costs no time to open.
    pub(crate) fn age(&self) -> KeySource {
        KeySource::Age(self.directory.path().join("keys/home.age"))
    }

    pub(crate) fn unlock<'a>(&'a self, passphrase: Option<&'a Secret>) -> Unlock<'a> {
        Unlock { passphrase, identity: &self.identity }
    }

    /// Makes `banking/home` with a key in a file, and takes it.
    pub(crate) fn made(&self, mib: u64) -> LockedVolume {
        let unlock = self.unlock(None);
        self.volumes.create(&banking(), &home(mib, self.age()), &unlock).expect("created");
        self.lock()
    }

    pub(crate) fn lock(&self) -> LockedVolume {
        self.volumes.lock(&banking(), &name()).expect("locked")
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.directory.path().join("data/volumes/banking/home")
    }

    /// Names of all files below the folder of volumes, but the lock of it.
    pub(crate) fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    walk(&entry.path(), found);
                }
                found.push(entry.path().display().to_string());
            }
        }
        let top = self.directory.path().join("data/volumes");
        let mut found = Vec::new();
        walk(&top, &mut found);
        found.retain(|path| !path.ends_with("volumes/.lock"));
        found.sort();
        found
    }
}

pub(crate) fn banking() -> CompartmentName {
    "banking".parse().expect("a name")
}

pub(crate) fn name() -> VolumeName {
    "home".parse().expect("a name")
}

pub(crate) fn snapshot(name: &str) -> SnapshotName {
    name.parse().expect("a name")
}

pub(crate) fn home(mib: u64, key: KeySource) -> Volume {
    Volume {
        name: name(),
        size: Size::from_mib(mib).expect("a size"),
        mount_point: "/home".parse().expect("a path"),
        filesystem: Filesystem::Ext4,
        key,
    }
}

/// The disk as QEMU is told of it.
pub(crate) fn disk(volume: &LockedVolume) -> String {
    disk_with(volume, None)
}

/// The same with another layer on top.
pub(crate) fn disk_with(volume: &LockedVolume, top: Option<&Path>) -> String {
    let mut below = serde_json::Value::Null;
    let layers = volume.layers().expect("layers").into_iter();
    let layers = layers.map(|layer| (layer.format, layer.path));
    for (format, path) in layers.chain(top.map(|path| (DiskFormat::Qcow2, path.to_owned()))) {
        let driver = if format == DiskFormat::Raw { "raw" } else { "qcow2" };
        let mut node = serde_json::json!({
            "driver": driver, "file": { "driver": "file", "filename": path }
        });
        if !below.is_null() {
            node["backing"] = below;
        }
        below = node;
    }
    format!("json:{below}")
}

/// Runs a program of QEMU's. One of a process that was just killed may keep its lock on the images
/// for the moment it takes to end.
fn run(command: &mut Command) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let output = command.output().expect("it can be run");
        let locked = String::from_utf8_lossy(&output.stderr).contains("lock");
        if output.status.success() {
            return;
        }
        assert!(locked && Instant::now() < deadline, "{output:?}");
    }
}

/// Writes to the disk as a guest would: (offset, length, byte) each.
pub(crate) fn write(volume: &LockedVolume, writes: &[(u64, u64, u8)]) {
    write_to(disk(volume), writes);
}

/// The same to a disk as QEMU is told of it.
pub(crate) fn write_to(disk: String, writes: &[(u64, u64, u8)]) {
    // It ends with a test that is killed on purpose.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-io"]);
    for (at, length, byte) in writes {
        command.args(["-c", &format!("write -P {byte} {at} {length}")]);
    }
    run(command.arg(disk));
}

/// The whole disk as a guest sees it.
pub(crate) fn read(volume: &LockedVolume) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("read");
    run(Command::new("qemu-img").args(["convert", "-O", "raw", &disk(volume)]).arg(&path));
    std::fs::read(path).expect("read")
}
