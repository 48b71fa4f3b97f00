//! Subordinate ids: `/etc/subuid` and `/etc/subgid` (subuid(5)).

use std::fs;
use std::path::Path;

/// The longest range that a file gives a user, by name or by number: first id and count.
pub fn longest_range(file: &Path, name: &str, uid: u32) -> Option<(u32, u32)> {
    longest_in(&fs::read_to_string(file).ok()?, name, uid)
}

fn longest_in(text: &str, name: &str, uid: u32) -> Option<(u32, u32)> {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let user = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (!user.is_empty() && (user == name || user == uid)).then_some(range)
        })
        .filter(|&(first, count): &(u32, u32)| count > 0 && first.checked_add(count).is_some())
        // Of equally long ones the first, so that ids do not move when a line is added.
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_range_of_the_user_is_taken() {
        let text = "other:1:999999\nalice:100000:65536\n# comment\n1001:300000:70000\n\
                    alice:500000:70000\nalice:broken\nalice:4294967295:65536\n";
        assert_eq!(longest_in(text, "alice", 1001), Some((300_000, 70_000)));
        assert_eq!(longest_in(text, "alice", 7), Some((500_000, 70_000)));
        assert_eq!(longest_in(text, "bob", 1002), None);
        assert_eq!(longest_in("", "", 0), None);
    }
}
