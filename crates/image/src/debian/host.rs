//! What the host tells a build: its release and package sources, and which privileges this
//! process has.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use super::DebianError;
use super::sources::SourceFile;
use crate::command::{APT_CONFIG, NEWUIDMAP};

/// Bit of CAP_SYS_ADMIN in the kernel's `include/uapi/linux/capability.h`.
const CAP_SYS_ADMIN: u32 = 21;

/// How the root folder is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// By an ordinary user, in a user namespace of his subordinate ids.
    Subordinate,
    /// By root, with mounts in a namespace of their own.
    Root,
    /// By a root who may not mount, as in many containers.
    Contained,
}

impl Privilege {
    /// What this process can do.
    pub(crate) fn of_this_process() -> Result<Self, DebianError> {
        if geteuid().is_root() {
            return Ok(match may_mount() {
                true => Self::Root,
                false => Self::Contained,
            });
        }
        NEWUIDMAP.find()?;
        let user = User::from_uid(geteuid()).ok().flatten();
        let user = user.map_or_else(|| geteuid().to_string(), |user| user.name);
        for file in ["/etc/subuid", "/etc/subgid"].map(PathBuf::from) {
            let list = fs::read_to_string(&file).unwrap_or_default();
            if !lists(&list, &user) {
                return Err(DebianError::NoSubordinateIds { user, file });
            }
        }
        Ok(Self::Subordinate)
    }

    /// The mode of mmdebstrap for it. Its `unshare` leaves root's ids alone and unshares only
    /// the mounts.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::Subordinate | Self::Root => "unshare",
            Self::Contained => "root",
        }
    }
}

/// Whether a list of subordinate ids, in the format of `subuid(5)`, has a line for `user`.
fn lists(list: &str, user: &str) -> bool {
    list.lines().any(|line| line.split(':').next() == Some(user))
}

fn may_mount() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> CAP_SYS_ADMIN & 1 == 1)
}

/// The codename of the host's release, when the host is Debian.
pub(super) fn debian_codename() -> Option<String> {
    codename(&fs::read_to_string("/etc/os-release").ok()?)
}

/// Reads `os-release(5)`.
fn codename(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        let value =
            os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(value.trim().trim_matches('"'))
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME").map(str::to_owned))?
}

/// The host's package sources, in the order apt reads them. What cannot be read is left out:
/// without sources, mmdebstrap's own are used.
pub(super) fn package_sources() -> Vec<SourceFile> {
    let mut parts: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    parts.sort_unstable();
    let main = PathBuf::from("/etc/apt/sources.list");
    [main].iter().chain(&parts).filter_map(|path| read(path)).collect()
}

/// The proxies apt is told to use on this host, as environment variables: mmdebstrap's apt does
/// not read the host's settings, and as settings of its own they would stay in the image.
pub(super) fn apt_proxies() -> Vec<(&'static str, String)> {
    let mut proxies = Vec::new();
    let Ok(call) = APT_CONFIG.command(["dump", "--format", "%f=%v%n", "Acquire"]) else {
        return proxies;
    };
    let _ = call.run(|line| proxies.extend(proxy(line)));
    proxies.retain(|(name, _)| std::env::var_os(name).is_none());
    proxies
}

fn proxy(line: &str) -> Option<(&'static str, String)> {
    let (key, value) = line.split_once('=')?;
    let name = match key {
        "Acquire::http::Proxy" => "http_proxy",
        "Acquire::https::Proxy" => "https_proxy",
        _ => return None,
    };
    (!value.is_empty() && value != "DIRECT").then(|| (name, value.to_owned()))
}

fn read(path: &Path) -> Option<SourceFile> {
    let extension = path.extension().and_then(OsStr::to_str);
    let text = fs::read_to_string(path).ok()?;
    match extension? {
        "list" => Some(SourceFile::OneLine(text)),
        "sources" => Some(SourceFile::Stanzas(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codename_is_that_of_debian_only() {
        let debian = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(codename(debian).as_deref(), Some("bookworm"));
        assert_eq!(codename(&debian.replace("ID=debian", "ID=\"other\"")), None);
        assert_eq!(codename("ID=debian\n"), None);
    }

    #[test]
    fn proxies_of_apt_become_variables() {
        let address = "http://proxy.example:3128";
        let line = format!("Acquire::http::Proxy={address}");
        assert_eq!(proxy(&line), Some(("http_proxy", address.to_owned())));
        for line in ["Acquire::http::Proxy=DIRECT", "Acquire::http::Timeout=3", "Acquire"] {
            assert_eq!(proxy(line), None);
        }
    }

    #[test]
    fn subordinate_ids_belong_to_the_whole_name() {
        let list = "alice:100000:65536\nbob:165536:65536\n";
        assert!(lists(list, "bob"));
        assert!(!lists(list, "bo"));
        assert!(!lists("", "bob"));
    }
}
