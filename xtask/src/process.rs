//! Running other programs: argument vectors, waited for, and an error when they fail.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Folders searched after `$PATH`, which of an ordinary user may lack them.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// `cargo`, the one this was started by.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Runs a command and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = shown(command);
    let status = command.status().with_context(|| format!("could not start {text}"))?;
    ensure!(status.success(), "{text} failed ({status})");
    Ok(())
}

/// Runs a command and returns what it printed; its standard error is ours.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let text = shown(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not start {text}"))?;
    ensure!(output.status.success(), "{text} failed ({})", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    words(std::iter::once(name).chain(command.get_args()))
}

/// Words as one would type them.
pub(crate) fn words<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> String {
    let mut line = String::new();
    for word in words {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%~".contains(c);
        let separator = if line.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = match !word.is_empty() && word.chars().all(plain) {
            true => write!(line, "{separator}{word}"),
            false => write!(line, "{separator}'{}'", word.replace('\'', "'\\''")),
        };
    }
    line
}

/// Where a program is, in `$PATH` or among the system's.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let mut command = Command::new("/usr/bin/apt-get");
        command.args(["install", "qemu-utils=1:7.2+dfsg-7", "a b", "it's"]);
        assert_eq!(shown(&command), "apt-get install qemu-utils=1:7.2+dfsg-7 'a b' 'it'\\''s'");
    }
}
