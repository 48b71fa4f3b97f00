//! The initial ram disk: the agent as `/init` and the modules it loads, nothing else.
//!
//! `/modules/order` names the modules' files one a line, in the order to load them. The same
//! agent and image give the same bytes.

use std::fs;
use std::path::Path;

use crate::cpio::Archive;
use crate::error::{Attempt, FileError};
use crate::image::{Image, ImageError};

/// Folders the agent mounts on or writes to.
const FOLDERS: [&str; 7] = ["dev", "mnt", "modules", "proc", "run", "sys", "tmp"];
/// Device number of `/dev/console`: the kernel's `Documentation/admin-guide/devices.txt`.
const CONSOLE: (u32, u32) = (5, 1);

/// An initrd that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// The agent, or the file to write.
    #[error(transparent)]
    File(#[from] FileError),
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Returns an uncompressed initrd with the program `agent` as `/init`, and the modules of the
/// image's boot group and of these further groups.
///
/// # Errors
/// When the agent cannot be read, the image has no such group, or a module was changed.
pub fn initrd(image: &Image, agent: &Path, groups: &[&str]) -> Result<Vec<u8>, InitrdError> {
    let agent = fs::read(agent).attempt("read", agent)?;
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.directory(folder, 0o755);
    }
    archive.character_device("dev/console", 0o600, CONSOLE);
    archive.file("init", 0o755, &agent);
    let mut order = String::new();
    for module in image.modules(groups)? {
        let file = format!("{}.ko", module.name);
        archive.file(&format!("modules/{file}"), 0o644, &image.read(&module.part)?);
        order.push_str(&file);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    Ok(archive.finish())
}
