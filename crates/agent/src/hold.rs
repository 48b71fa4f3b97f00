//! Holding the guest's programs still while the host keeps its memory, by the freezer of cgroup v2.
//!
//! What goes on from a kept memory must not run before the clock and the random number generator
//! were set: it would draw what others have drawn before. So programs are held before the memory is
//! kept, and go on when the host says which life this is; in any case when the time is over.
//!
//! Held is every group below the root but that of the agent and of systemd itself. What runs in the
//! root, the console's shell and kernel threads, is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where cgroup v2 is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// The group of systemd's process 1. Frozen it would reap nobody.
const INIT: &str = "init.scope";

/// The longest a host can ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// Programs that are held. Dropping it lets them go on.
#[derive(Debug)]
pub(crate) struct Hold {
    groups: Vec<PathBuf>,
    until: Instant,
}

impl Hold {
    /// Holds them for so long at most.
    pub(crate) fn begin(time: Duration) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::of(Path::new(ROOT), own_group(&own), time)
    }

    fn of(root: &Path, own: &str, time: Duration) -> Self {
        let found = fs::read_dir(root).into_iter().flatten().flatten();
        let held = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let switch = entry.path().join("cgroup.freeze");
            let ours = name == INIT || own.split('/').next().is_some_and(|first| name == first);
            // Without a freezer they run on.
            (!ours && fs::write(&switch, "1").is_ok()).then_some(switch)
        };
        Self { groups: found.filter_map(held).collect(), until: Instant::now() + time.min(LONGEST) }
    }

    /// When they go on by themselves.
    pub(crate) fn deadline(&self) -> Instant {
        self.until
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for switch in &self.groups {
            // A group that is gone has nobody to go on.
            let _ = fs::write(switch, "0");
        }
    }
}

/// The group of the caller below the root, without a leading slash, from cgroups(7)'s list.
fn own_group(list: &str) -> &str {
    let unified = list.lines().find_map(|line| line.strip_prefix("0::/"));
    unified.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_but_our_own_is_held_until_the_end() {
        let root = std::env::temp_dir().join(format!("casemate-hold-{}", std::process::id()));
        let switch = |name: &str| root.join(name).join("cgroup.freeze");
        let names = ["casemate", "init.scope", "user.slice", "system.slice"];
        for name in names {
            fs::create_dir_all(root.join(name)).expect("made");
            fs::write(switch(name), "0").expect("written");
        }
        let state = || names.map(|name| fs::read_to_string(switch(name)).expect("read")).concat();
        let own = own_group("1:name=x:/a\n0::/system.slice/agent.service\n");
        let hold = Hold::of(&root, own, Duration::from_secs(600));
        assert_eq!(state(), "1010");
        assert!(hold.deadline() <= Instant::now() + LONGEST);
        drop(hold);
        assert_eq!(state(), "0000");
        fs::remove_dir_all(&root).expect("removed");
    }
}
