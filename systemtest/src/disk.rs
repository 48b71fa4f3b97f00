//! A small file system over a folder, for what a full disk does. Only root can mount one.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{is_root, skip};

/// A small file system, unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

/// Whether one can be made; when not, says that the test is skipped.
pub fn can_mount(test: &str) -> bool {
    if !is_root() {
        skip(test, "needs root to mount a small file system");
    }
    is_root()
}

impl SmallDisk {
    /// One of `size` (as tmpfs takes it: `64k`, `30m`) over this folder, which is made when it is not
    /// there.
    #[track_caller]
    pub fn over(folder: &Path, size: &str) -> Self {
        fs::create_dir_all(folder).expect("made");
        let options = format!("size={size},mode=700");
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("mounted");
        Self { folder: folder.into() }
    }

    /// Leaves `bytes` of it free, by a file that takes the rest.
    #[track_caller]
    pub fn leave(&self, bytes: u64) -> PathBuf {
        let free = nix::sys::statvfs::statvfs(&self.folder).expect("told");
        let taken = (free.blocks_available() * free.block_size()).saturating_sub(bytes);
        let filler = self.folder.join("filler");
        fs::write(&filler, vec![0; taken as usize]).expect("written");
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: somebody may still have a file of it open.
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.folder);
    }
}
