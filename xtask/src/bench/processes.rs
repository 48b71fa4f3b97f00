//! Our descendants: the processor time they have spent, and whether they are gone.
//!
//! A supervisor leaves its parent, so the benchmark is made its new one (`prctl(2)`,
//! `PR_SET_CHILD_SUBREAPER`): then everything that was started is below us.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Result;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Kernel ticks in a second, as `/proc` counts (`USER_HZ`).
const TICKS: u64 = 100;

/// A process as `/proc/PID/stat` has it.
#[derive(Debug)]
struct Stat {
    parent: i32,
    zombie: bool,
    /// Time of children that have ended and were waited for.
    reaped: Duration,
}

/// Makes us the parent of what its parent leaves behind.
pub(super) fn adopt() -> Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Processor time of all our descendants, of those that live and of those they waited for.
/// Living processes' own times are exact; times of ended ones come in ticks of 10 ms.
pub(super) fn spent() -> Duration {
    descendants()
        .into_iter()
        .map(|(pid, stat)| {
            let own = clock_getcpuclockid(Pid::from_raw(pid)).and_then(clock_gettime);
            own.map_or(Duration::ZERO, Duration::from) + stat.reaped
        })
        .sum()
}

/// Ends of children we have adopted are taken note of; true when we have none any more.
pub(super) fn all_gone() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Ok(_) => {}
            Err(_) => return true,
        }
    }
}

/// A process has ended, though perhaps nobody has waited for it.
pub(super) fn has_ended(pid: i32) -> bool {
    stat(pid).is_none_or(|stat| stat.zombie)
}

/// Ids and names of our descendants.
pub(super) fn names() -> Vec<(i32, String)> {
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    descendants().into_keys().map(|pid| (pid, name(pid).trim().to_owned())).collect()
}

/// Proportional set size in KiB, where we may know it.
pub(super) fn pss(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn descendants() -> BTreeMap<i32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: BTreeMap<i32, Stat> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?))
        })
        .collect();
    let own = std::process::id() as i32;
    let is_ours = |mut pid: i32| {
        while let Some(stat) = all.get(&pid) {
            if stat.parent == own {
                return true;
            }
            pid = stat.parent;
        }
        false
    };
    let ours: Vec<i32> = all.keys().copied().filter(|&pid| is_ours(pid)).collect();
    all.into_iter().filter(|(pid, _)| ours.contains(pid)).collect()
}

/// proc_pid_stat(5); the name may hold anything, so fields are counted behind it.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(13)?.parse::<u64>().ok()? + fields.get(14)?.parse::<u64>().ok()?;
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        reaped: Duration::from_millis(ticks * 1000 / TICKS),
    })
}
