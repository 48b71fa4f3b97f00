//! Secrets: files in a tmpfs of their own, which is never written to a disk.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use casemate_wire::{Init, WriteSecret};
use nix::mount::{MsFlags, mount};

use super::SetupError;
use super::files::replace;
use crate::accounts;

/// Where programs find them.
const PLACE: &str = "/run/secrets";

/// Where systemd looks for `LoadCredential=NAME`, systemd.exec(5).
const CREDENTIALS: &str = "/run/credstore";

/// Writes the secrets; with systemd, they are also its credentials.
pub(super) fn write(secrets: &[WriteSecret], init: Init) -> Result<(), SetupError> {
    if secrets.is_empty() {
        return Ok(());
    }
    // Who may read one knows its name; nobody needs a list.
    mount_memory(PLACE, "mode=0711")?;
    for secret in secrets {
        if secret.name.is_empty() || secret.name.starts_with('.') || secret.name.contains('/') {
            return Err(SetupError::Value { value: secret.name.clone(), what: "name of a secret" });
        }
        let path = Path::new(PLACE).join(&secret.name);
        let (owner, _) = accounts::look_up(&secret.owner)
            .map_err(SetupError::file("read", "/etc/passwd"))?
            .ok_or_else(|| SetupError::NoOwner {
                path: path.display().to_string(),
                owner: secret.owner.clone(),
            })?;
        let ids = Some((owner.uid, owner.gid));
        replace(&path, secret.content.bytes(), secret.mode & 0o777, ids)
            .map_err(SetupError::file("write", &path))?;
    }
    if init == Init::Systemd {
        mount_memory(CREDENTIALS, "mode=0700")?;
        for secret in secrets {
            let path = Path::new(CREDENTIALS).join(&secret.name);
            replace(&path, secret.content.bytes(), 0o400, None)
                .map_err(SetupError::file("write", &path))?;
        }
    }
    Ok(())
}

/// Mounts a tmpfs that is not swapped out, where the kernel has such (6.4).
fn mount_memory(target: &str, mode: &str) -> Result<(), SetupError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(target)
        .map_err(SetupError::file("create", target))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let tmpfs = |options: &str| mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options));
    // As much as all secrets of a compartment together can be, and the pages' remainders.
    let options = format!("size=4m,{mode}");
    tmpfs(&format!("{options},noswap")).or_else(|_| tmpfs(&options)).map_err(|error| {
        SetupError::Mount {
            what: "tmpfs".into(),
            target: target.into(),
            source: io::Error::from(error),
        }
    })
}
