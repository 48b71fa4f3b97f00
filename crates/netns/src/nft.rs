//! nft: loads a text in one transaction, and lists counters.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{KeeperError, While};

/// How much of what nft says is told, in bytes.
const TOLD: usize = 600;

/// Loads the text: all of it, or nothing.
///
/// # Errors
/// See [`KeeperError`].
pub fn load(nft: &Path, text: &str) -> Result<(), KeeperError> {
    let file = memfd_create(c"rules", MFdFlags::MFD_CLOEXEC).while_("hold the firewall's text")?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())
        .and_then(|()| file.rewind())
        .while_("hold the firewall's text")?;
    // `-f -` opens /dev/stdin, which no jail has.
    call(nft, &["-f", "/proc/self/fd/0"], file.into()).map(drop)
}

/// The counters of the firewall, as nft's JSON.
///
/// # Errors
/// See [`KeeperError`].
pub fn counters(nft: &Path) -> Result<String, KeeperError> {
    call(nft, &["--json", "list", "counters"], Stdio::null())
}

/// Those of one table.
///
/// # Errors
/// See [`KeeperError`].
pub fn counters_of(nft: &Path, family: &str, table: &str) -> Result<String, KeeperError> {
    call(nft, &["--json", "list", "counters", "table", family, table], Stdio::null())
}

/// Every table, as nft's JSON.
///
/// # Errors
/// See [`KeeperError`].
pub fn tables(nft: &Path) -> Result<String, KeeperError> {
    call(nft, &["--json", "list", "tables"], Stdio::null())
}

fn call(nft: &Path, arguments: &[&str], input: Stdio) -> Result<String, KeeperError> {
    let output = Command::new(nft)
        .args(arguments)
        .env_clear()
        .stdin(input)
        .output()
        .map_err(|source| KeeperError::Start { program: nft.into(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | ");
    let end = said.char_indices().map(|(at, _)| at).take_while(|&at| at <= TOLD).last();
    Err(KeeperError::Nft { said: said[..end.unwrap_or(0)].to_owned() })
}
