//! Accounts of the guest: `/etc/passwd` and `/etc/group`, read without the C library's name
//! service, which a static program does not have.
//!
//! Responsible for parsing and for looking names up; creating accounts is `boot::users`.

use std::{fs, io};

/// One line of passwd(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// One line of group(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) gid: u32,
    pub(crate) members: Vec<String>,
}

/// The accounts in the text of a passwd file; lines that are no account are passed over.
pub(crate) fn parse_passwd(text: &str) -> Vec<Account> {
    text.lines().filter_map(parse_account).collect()
}

fn parse_account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let _comment = fields.next()?;
    let home = fields.next()?;
    let shell = fields.next().unwrap_or_default();
    Some(Account {
        name: name.to_owned(),
        uid,
        gid,
        home: if home.is_empty() { "/" } else { home }.to_owned(),
        shell: if shell.is_empty() { "/bin/sh" } else { shell }.to_owned(),
    })
}

/// The groups in the text of a group file; lines that are no group are passed over.
pub(crate) fn parse_groups(text: &str) -> Vec<Group> {
    text.lines().filter_map(parse_group).collect()
}

fn parse_group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let gid = fields.next()?.parse().ok()?;
    let members = fields.next().unwrap_or_default();
    let members = members.split(',').filter(|member| !member.is_empty());
    Some(Group { name: name.to_owned(), gid, members: members.map(str::to_owned).collect() })
}

/// Ids of every group `name` belongs to: its own first, then those that list it, each once.
pub(crate) fn group_ids(groups: &[Group], name: &str, own: u32) -> Vec<u32> {
    let mut ids = vec![own];
    for group in groups {
        if group.members.iter().any(|member| member == name) && !ids.contains(&group.gid) {
            ids.push(group.gid);
        }
    }
    ids
}

/// The account with this login name, or with this number when no name is like it, and the ids of
/// its groups. `None` when there is no such account.
///
/// # Errors
/// When `/etc/passwd` or `/etc/group` cannot be read.
pub(crate) fn look_up(user: &str) -> io::Result<Option<(Account, Vec<u32>)>> {
    let passwd = read("/etc/passwd")?;
    let accounts = parse_passwd(&passwd);
    let by_number = || user.parse::<u32>().ok();
    let account = accounts
        .iter()
        .find(|account| account.name == user)
        .or_else(|| by_number().and_then(|uid| accounts.iter().find(|entry| entry.uid == uid)));
    let Some(account) = account else { return Ok(None) };
    let groups = parse_groups(&read("/etc/group")?);
    let ids = group_ids(&groups, &account.name, account.gid);
    Ok(Some((account.clone(), ids)))
}

/// A text file of the guest; a missing one is empty, foreign encodings do no harm.
pub(crate) fn read(path: &str) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # comment\n\
        broken:x:nan:0::/:\n\
        :x:1:1::/:\n\
        daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
        bare:x:7:7::\n\
        user:x:1000:1000:,,,:/home/user:\n";

    #[test]
    fn lines_that_are_no_account_are_passed_over() {
        let accounts = parse_passwd(PASSWD);
        let names: Vec<_> = accounts.iter().map(|account| account.name.as_str()).collect();
        assert_eq!(names, ["root", "daemon", "bare", "user"]);
    }

    #[test]
    fn empty_home_and_shell_have_defaults() {
        let accounts = parse_passwd(PASSWD);
        assert_eq!((accounts[2].home.as_str(), accounts[2].shell.as_str()), ("/", "/bin/sh"));
        assert_eq!(accounts[3].shell, "/bin/sh");
    }

    #[test]
    fn a_user_is_in_his_own_group_and_in_those_that_list_him() {
        let groups = parse_groups("root:x:0:\naudio:x:29:user,other\nvideo:x:44:user\nbad:x\n");
        assert_eq!(groups.len(), 3);
        assert_eq!(group_ids(&groups, "user", 1000), [1000, 29, 44]);
        assert_eq!(group_ids(&groups, "user", 29), [29, 44]);
        assert_eq!(group_ids(&groups, "nobody", 65534), [65534]);
    }
}
