//! Subordinate ids: an ordinary user's jails and image builds need a range in `/etc/subuid` and
//! `/etc/subgid` (subuid(5)).

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::{User, geteuid};

use super::ask;
use crate::process::{find, is_root};

/// Ids in a range, as useradd(8) gives by default.
const COUNT: u32 = 65_536;

/// Where ranges begin (`SUB_UID_MIN` of login.defs(5)).
const FIRST: u32 = 100_000;

/// Makes sure that we have a range; root needs none.
pub(super) fn ensure() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let uid = geteuid();
    let user = User::from_uid(uid)?.with_context(|| format!("user {uid} has no name"))?;
    ensure_for(&user)
}

/// Makes sure that a user has a range.
pub(crate) fn ensure_for(user: &User) -> Result<()> {
    let lists =
        ["/etc/subuid", "/etc/subgid"].map(|file| fs::read_to_string(file).unwrap_or_default());
    if lists.iter().all(|list| has_range(list, &user.name, user.uid.as_raw())) {
        return Ok(());
    }
    println!("`{}` has no ids for jails in /etc/subuid and /etc/subgid", user.name);
    let range = free_range(&lists);
    let mut usermod = Command::new(find("usermod").unwrap_or_else(|| "usermod".into()));
    usermod.args(["--add-subuids", &range, "--add-subgids", &range, &user.name]);
    ask::as_root(vec![usermod])
}

fn has_range(list: &str, name: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    ranges(list).any(|(user, _, count)| (user == name || user == uid) && count > 1)
}

/// The first range behind all there are, as `first-last`.
fn free_range(lists: &[String]) -> String {
    let end = lists.iter().flat_map(|list| ranges(list)).map(|(_, first, count)| first + count);
    let first = end.max().unwrap_or(0).max(FIRST);
    format!("{first}-{}", first + COUNT - 1)
}

fn ranges(list: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    list.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (user, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some((user, first.parse().ok()?, count.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_behind_all_others_is_free() {
        let lists = ["alice:100000:65536\nbob:300000:10\n".to_owned(), "alice:100000:65536".into()];
        assert_eq!(free_range(&lists), "300010-365545");
        assert_eq!(free_range(&[]), "100000-165535");
    }

    #[test]
    fn a_range_belongs_to_a_name_or_number() {
        assert!(has_range("alice:100000:65536\n", "alice", 1000));
        assert!(has_range("1000:100000:65536\n", "alice", 1000));
        assert!(!has_range("alice:100000:broken\n", "alice", 1000));
        assert!(!has_range("bob:100000:65536\n", "alice", 1000));
    }
}
