//! Installing with apt: nothing is ever removed for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::ask;
use crate::process::{find, is_root, output};

const LISTS: &str = "/var/lib/apt/lists";

/// Package lists older than this may name versions that are gone.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// A package that comes newer from backports than the emulators do, and then stands in their way.
const QEMU_UTILS: &str = "qemu-utils";

/// Installs packages.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let lists = Lists::look();
    let update = apt_get(&["update"]);
    if is_root() {
        // Old lists may do when the archive cannot be reached.
        if lists != Lists::Fresh
            && let Err(error) = ask::as_root(vec![update])
        {
            println!("{error:#}; trying with the lists there are");
        }
        let words = without_removals(packages)?;
        return ask::as_root(vec![install_command(&words, &["--assume-yes"])]);
    }
    // Without lists nothing can be simulated; apt itself asks before it removes anything.
    let words = match lists {
        Lists::Missing => plain(packages),
        Lists::Old | Lists::Fresh => without_removals(packages)?,
    };
    let install = install_command(&words, &[]);
    ask::as_root(if lists == Lists::Fresh { vec![install] } else { vec![update, install] })
}

/// The words that install these packages without removing any.
fn without_removals(packages: &[&str]) -> Result<Vec<String>> {
    let words = plain(packages);
    let removed = removals(&simulate(&words)?);
    if removed.is_empty() {
        return Ok(words);
    }
    let removed: Vec<&str> = removed.iter().map(String::as_str).collect();
    let emulator = packages.iter().find(|package| package.starts_with("qemu-system-"));
    let (Some(emulator), [QEMU_UTILS]) = (emulator, &removed[..]) else {
        bail!("installing {} would remove: {}", packages.join(", "), removed.join(", "));
    };
    let version = candidate(emulator)?;
    println!(
        "{QEMU_UTILS} is newer than {emulator} can stand: it is replaced by the same version, {version}"
    );
    let mut words = words;
    words.extend([format!("{QEMU_UTILS}={version}"), "--allow-downgrades".into()]);
    let removed = removals(&simulate(&words)?);
    if !removed.is_empty() {
        let removed: Vec<String> = removed.into_iter().collect();
        bail!("installing {} would remove: {}", packages.join(", "), removed.join(", "));
    }
    Ok(words)
}

fn plain(packages: &[&str]) -> Vec<String> {
    packages.iter().map(|&package| package.to_owned()).collect()
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet").args(arguments);
    command
}

fn install_command(words: &[String], options: &[&str]) -> Command {
    let mut command = apt_get(&["install", "--no-install-recommends"]);
    command.args(options).args(words);
    command
}

/// What apt would do, as `apt-get --simulate` prints it.
fn simulate(words: &[String]) -> Result<String> {
    let mut command = Command::new("apt-get");
    command
        .env("LC_ALL", "C")
        .args(["--simulate", "--quiet=2", "install", "--no-install-recommends"])
        .args(words);
    output(&mut command).context("apt cannot install what is missing")
}

fn removals(simulation: &str) -> BTreeSet<String> {
    simulation
        .lines()
        .filter_map(|line| line.strip_prefix("Remv ")?.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// The version that apt would install.
fn candidate(package: &str) -> Result<String> {
    let mut command = Command::new(find("apt-cache").unwrap_or_else(|| "apt-cache".into()));
    let policy = output(command.env("LC_ALL", "C").args(["policy", package]))?;
    candidate_in(&policy).with_context(|| format!("apt knows no version of {package}"))
}

fn candidate_in(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// The package lists on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lists {
    Missing,
    Old,
    Fresh,
}

impl Lists {
    fn look() -> Self {
        let there = fs::read_dir(LISTS).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        });
        let changed = Path::new(LISTS).metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        match age {
            _ if !there => Self::Missing,
            Some(age) if age < OLD => Self::Fresh,
            _ => Self::Old,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_are_found_in_a_simulation() {
        let simulation = "Remv qemu-utils [1:10.0.2+ds-2~bpo12+1]\nInst qemu-system-x86 (1:7.2 \
                          Debian:12 [amd64])\nConf qemu-system-x86 (1:7.2)\n";
        assert_eq!(removals(simulation), BTreeSet::from([QEMU_UTILS.to_owned()]));
        assert!(removals("Inst tmux (3.3a-3)\n").is_empty());
    }

    #[test]
    fn the_candidate_is_the_version_apt_would_install() {
        let policy = "qemu-system-x86:\n  Installed: (none)\n  Candidate: 1:7.2+dfsg-7\n  Version \
                      table:\n";
        assert_eq!(candidate_in(policy).as_deref(), Some("1:7.2+dfsg-7"));
        assert_eq!(candidate_in("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_in(""), None);
    }
}
