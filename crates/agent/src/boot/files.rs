//! Writing files: those the host wants, and those of the guest's identity.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use casemate_wire::WriteFile;
use nix::libc;

use super::SetupError;
use crate::accounts;

/// Writes the host's files, in their order. Parents are created, as root's and searchable.
pub(super) fn write(files: &[WriteFile]) -> Result<(), SetupError> {
    for file in files {
        let path = Path::new(&file.path);
        if !path.is_absolute() {
            return Err(SetupError::Value { value: file.path.clone(), what: "absolute path" });
        }
        let no_owner =
            || SetupError::NoOwner { path: file.path.clone(), owner: file.owner.clone() };
        let (owner, _) = accounts::look_up(&file.owner)
            .map_err(SetupError::file("read", "/etc/passwd"))?
            .ok_or_else(no_owner)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(SetupError::file("create", parent))?;
        }
        let ids = Some((owner.uid, owner.gid));
        replace(path, &file.content, file.mode & 0o7777, ids)
            .map_err(SetupError::file("write", path))?;
    }
    Ok(())
}

/// Writes a file of root's that everybody may read.
pub(super) fn write_public(path: &str, content: &str) -> Result<(), SetupError> {
    replace(Path::new(path), content.as_bytes(), 0o644, None)
        .map_err(SetupError::file("write", path))
}

/// Writes a file with this mode and owner, never through a symbolic link: a link in the way is
/// replaced. Secrets never have a wider mode than they shall have.
pub(super) fn replace(
    path: &Path,
    content: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let open = || {
        let flags = libc::O_NOFOLLOW;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .custom_flags(flags)
            .open(path)
    };
    let mut file = match open() {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            fs::remove_file(path)?;
            open()?
        }
        opened => opened?,
    };
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_way_is_replaced_and_not_followed() {
        let folder = std::env::temp_dir().join(format!("casemate-files-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (target, link) = (folder.join("target"), folder.join("link"));
        fs::write(&target, "before").expect("a file");
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        replace(&link, b"secret", 0o600, None).expect("written");
        assert_eq!(fs::read(&target).expect("is there"), b"before");
        assert_eq!(fs::read(&link).expect("is there"), b"secret");
        let mode = fs::symlink_metadata(&link).expect("is there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
