//! What a helper that was killed left: devices and tables by their names, and forwarding. Whoever
//! starts next removes it before anything else; the compartments whose links they were have heard of
//! the end, and shut down.

use std::path::Path;

use casemate_netns::error::KeeperError;
use casemate_netns::{netlink, nft};
use casemate_plan::firewall::{PREFIX, removal};
use nix::net::if_::if_nameindex;
use serde::Deserialize;

use crate::forwarding::Forwarding;

/// Removes it. Returns what was done, a sentence each.
///
/// # Errors
/// See [`KeeperError`].
pub(crate) fn mend(program: &Path, state: &Path) -> Result<Vec<String>, KeeperError> {
    let mut done = Vec::new();
    let requests = netlink::Socket::open(netlink::Groups::NONE)?;
    for device in devices() {
        if requests.remove(&device)? {
            done.push(format!("removed the interface {device}, which was left"));
        }
    }
    let mut left = tables(program)?;
    left.sort();
    left.dedup();
    if !left.is_empty() {
        nft::load(program, &left.iter().map(|name| removal(name)).collect::<String>())?;
        done.extend(left.iter().map(|name| format!("removed the tables {name}, which were left")));
    }
    if Forwarding::new(program, state).restore()? {
        done.push("switched net.ipv4.ip_forward off, as it was before".into());
    }
    Ok(done)
}

/// Whether a name is one of the helper's: the prefix and a number.
fn is_own(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn devices() -> Vec<String> {
    let interfaces = if_nameindex();
    let names = interfaces.iter().flat_map(|all| all.iter());
    names
        .filter_map(|interface| interface.name().to_str().ok().map(String::from))
        .filter(|name| is_own(name))
        .collect()
}

/// What `nft --json list tables` prints (libnftables-json(5)).
#[derive(Deserialize)]
struct Listed {
    nftables: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    table: Option<Table>,
}

#[derive(Deserialize)]
struct Table {
    name: String,
}

fn tables(program: &Path) -> Result<Vec<String>, KeeperError> {
    let text = nft::tables(program)?;
    let listed: Listed = serde_json::from_str(&text).map_err(KeeperError::Order)?;
    let names = listed.nftables.into_iter().filter_map(|entry| Some(entry.table?.name));
    Ok(names.filter(|name| is_own(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_prefix_and_a_number_is_the_helpers() {
        assert!(is_own("cmtap3") && is_own("cmtap16777215"));
        for other in ["cmtap", "cmtap3a", "mycmtap3", "cmtap-3", "eth0", "casemate"] {
            assert!(!is_own(other), "{other}");
        }
    }
}
