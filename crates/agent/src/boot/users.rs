//! Creating the accounts that the image lacks: lines in passwd, group and shadow, a home made
//! from `/etc/skel`, authorized keys.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use casemate_wire::{Boot, User};

use super::SetupError;
use super::files::replace;
use crate::accounts::{self, Account, Group};
use crate::log::Log;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const SHADOW: &str = "/etc/shadow";

/// Ids that are given to people, as Debian's adduser has them.
const IDS: std::ops::Range<u32> = 1000..60000;

/// Makes sure that every account of `boot` is there.
pub(super) fn create(boot: &Boot, log: &mut Log) -> Result<(), SetupError> {
    let text = |path| accounts::read(path).map_err(SetupError::file("read", path));
    let mut database = Database::new(text(PASSWD)?, text(GROUP)?);
    for user in &boot.users {
        check_name(&user.name)?;
        let new = database.add(user, log);
        let account = database.account(&user.name);
        if new && let Some(account) = account {
            make_home(account)?;
        }
        if let (Some(account), false) = (account, user.authorized_keys.is_empty()) {
            write_keys(account, &user.authorized_keys)?;
        }
    }
    database.save()
}

/// A name that cannot break the lines it stands in.
fn check_name(name: &str) -> Result<(), SetupError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-$".contains(c);
    if !name.is_empty() && name.len() <= 32 && name.chars().all(allowed) && !name.starts_with('-') {
        return Ok(());
    }
    Err(SetupError::Value { value: name.to_owned(), what: "login name" })
}

/// The texts of passwd and group with what was added to them.
struct Database {
    passwd: String,
    group: String,
    shadow: String,
    accounts: Vec<Account>,
    groups: Vec<Group>,
    new_accounts: bool,
    new_groups: bool,
}

impl Database {
    fn new(passwd: String, group: String) -> Self {
        let accounts = accounts::parse_passwd(&passwd);
        let groups = accounts::parse_groups(&group);
        let shadow = String::new();
        Self { passwd, group, shadow, accounts, groups, new_accounts: false, new_groups: false }
    }

    fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.name == name)
    }

    /// Adds the account unless there is one of that name; its groups in any case. Returns whether
    /// it is new.
    fn add(&mut self, user: &User, log: &mut Log) -> bool {
        let existing = self.account(&user.name).map(|account| account.uid);
        match (existing, user.uid) {
            (Some(uid), Some(wanted)) if uid != wanted => log.warn(format!(
                "the image has {} with the id {uid}, which stays; {wanted} was asked for",
                user.name
            )),
            (None, _) => self.add_account(user),
            _ => {}
        }
        for name in &user.groups {
            match self.groups.iter_mut().find(|group| group.name == *name) {
                None => log.warn(format!("the image has no group {name} for {}", user.name)),
                Some(group) if group.members.contains(&user.name) => {}
                Some(group) => {
                    group.members.push(user.name.clone());
                    self.group = with_member(&self.group, name, &user.name);
                    self.new_groups = true;
                }
            }
        }
        existing.is_none()
    }

    fn add_account(&mut self, user: &User) {
        let uid = user.uid.unwrap_or_else(|| self.free_id());
        let gid = match self.groups.iter().find(|group| group.name == user.name) {
            Some(group) => group.gid,
            None => {
                let taken = self.groups.iter().any(|group| group.gid == uid);
                let gid = if taken { self.free_id() } else { uid };
                push_line(&mut self.group, &format!("{}:x:{gid}:", user.name));
                self.groups.push(Group { name: user.name.clone(), gid, members: Vec::new() });
                self.new_groups = true;
                gid
            }
        };
        let account = Account {
            name: user.name.clone(),
            uid,
            gid,
            home: if uid == 0 { "/root".into() } else { format!("/home/{}", user.name) },
            shell: user.shell.replace([':', '\n'], ""),
        };
        let Account { name, home, shell, .. } = &account;
        push_line(&mut self.passwd, &format!("{name}:x:{uid}:{gid}::{home}:{shell}"));
        // No password fits; keys and the host's sessions need none.
        push_line(&mut self.shadow, &format!("{name}:*:19000:0:99999:7:::"));
        self.accounts.push(account);
        self.new_accounts = true;
    }

    fn free_id(&self) -> u32 {
        let uids = self.accounts.iter().map(|account| account.uid);
        let taken: BTreeSet<u32> = uids.chain(self.groups.iter().map(|group| group.gid)).collect();
        IDS.into_iter().find(|id| !taken.contains(id)).unwrap_or(IDS.end)
    }

    /// Writes what changed.
    fn save(&self) -> Result<(), SetupError> {
        if self.new_groups {
            rewrite(GROUP, &self.group)?;
        }
        if self.new_accounts {
            rewrite(PASSWD, &self.passwd)?;
            let mut shadow = accounts::read(SHADOW).map_err(SetupError::file("read", SHADOW))?;
            let there = fs::exists(SHADOW).unwrap_or(false);
            self.shadow.lines().for_each(|line| push_line(&mut shadow, line));
            match there {
                true => rewrite(SHADOW, &shadow)?,
                false => replace(Path::new(SHADOW), shadow.as_bytes(), 0o600, None)
                    .map_err(SetupError::file("write", SHADOW))?,
            }
        }
        Ok(())
    }
}

/// Writes over a file that keeps its owner and mode.
fn rewrite(path: &str, content: &str) -> Result<(), SetupError> {
    fs::write(path, content).map_err(SetupError::file("write", path))
}

/// Appends a line; the text before may lack its last line break.
fn push_line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
}

/// The text of a group file with one more member in one group.
fn with_member(text: &str, group: &str, member: &str) -> String {
    let mut result = String::with_capacity(text.len() + member.len() + 1);
    for line in text.lines() {
        result.push_str(line);
        if line.split(':').next() == Some(group) {
            if !line.ends_with(':') {
                result.push(',');
            }
            result.push_str(member);
        }
        result.push('\n');
    }
    result
}

fn make_home(account: &Account) -> Result<(), SetupError> {
    let home = Path::new(&account.home);
    if home.exists() {
        return Ok(());
    }
    let made = (|| {
        if let Some(parent) = home.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::DirBuilder::new().mode(0o700).create(home)?;
        chown(home, Some(account.uid), Some(account.gid))?;
        copy_below(Path::new("/etc/skel"), home, account)
    })();
    made.map_err(SetupError::file("create", home))
}

/// Copies files, folders and links of a skeleton.
fn copy_below(from: &Path, to: &Path, owner: &Account) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&source)?;
        if metadata.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if metadata.is_dir() {
            fs::create_dir(&target)?;
            copy_below(&source, &target, owner)?;
        } else {
            let mode = metadata.permissions().mode() & 0o777;
            replace(&target, &fs::read(&source)?, mode, None)?;
        }
        lchown(&target, Some(owner.uid), Some(owner.gid))?;
    }
    Ok(())
}

fn write_keys(account: &Account, keys: &[String]) -> Result<(), SetupError> {
    let folder = Path::new(&account.home).join(".ssh");
    let file = folder.join("authorized_keys");
    let owner = Some((account.uid, account.gid));
    let written = (|| {
        if !folder.exists() {
            fs::DirBuilder::new().mode(0o700).create(&folder)?;
            chown(&folder, Some(account.uid), Some(account.gid))?;
        }
        let mut text = keys.join("\n");
        text.push('\n');
        replace(&file, text.as_bytes(), 0o600, owner)
    })();
    written.map_err(SetupError::file("write", &file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: Option<u32>, groups: &[&str]) -> User {
        User {
            name: name.into(),
            uid,
            groups: groups.iter().map(|&group| group.into()).collect(),
            shell: "/bin/bash".into(),
            authorized_keys: Vec::new(),
        }
    }

    fn database() -> Database {
        Database::new(
            "root:x:0:0:root:/root:/bin/bash".into(),
            "root:x:0:\naudio:x:29:\nvideo:x:44:other\nweb:x:1000:\n".into(),
        )
    }

    #[test]
    fn a_missing_account_gets_the_next_free_id_and_a_group_of_its_own() {
        let mut database = database();
        assert!(database.add(&user("ann", None, &[]), &mut Log::new()));
        let ann = database.account("ann").expect("is there");
        assert_eq!((ann.uid, ann.gid, ann.home.as_str()), (1001, 1001, "/home/ann"));
        assert!(database.passwd.ends_with("\nann:x:1001:1001::/home/ann:/bin/bash\n"));
        assert!(database.group.ends_with("\nann:x:1001:\n"));
    }

    #[test]
    fn groups_of_the_image_get_the_member_and_others_are_passed_over() {
        let mut database = database();
        database.add(&user("ann", Some(1005), &["audio", "video", "none"]), &mut Log::new());
        assert!(database.group.contains("audio:x:29:ann\n"));
        assert!(database.group.contains("video:x:44:other,ann\n"));
        assert_eq!(accounts::group_ids(&database.groups, "ann", 1005), [1005, 29, 44]);
    }

    #[test]
    fn an_account_of_the_image_stays_as_it_is() {
        let mut database = database();
        assert!(!database.add(&user("root", Some(7), &[]), &mut Log::new()));
        assert!(!database.new_accounts && !database.new_groups);
    }

    #[test]
    fn names_that_would_break_a_line_are_refused() {
        for name in ["", "a:b", "a\nb", "-x", "a b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("d.smith_2").is_ok());
    }
}
