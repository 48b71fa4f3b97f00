//! What the system's configuration gives whom. It is read again for each request: what root takes
//! back is not given again, without a word to the helper.

use std::ffi::CString;
use std::path::Path;

use casemate_config::{CompartmentId, Grantee, LinkGrant, NetworkSettings};
use casemate_netns::error::sentence;
use casemate_plan::helper::Terms;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// Links of root, who needs no grant.
const OF_ROOT: u32 = 512;

/// What one user may have.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    /// His name.
    pub(crate) user: String,
    /// The system's settings.
    pub(crate) network: NetworkSettings,
    /// The ids of his compartments; any when none.
    pub(crate) ids: Option<(CompartmentId, CompartmentId)>,
    /// Links at a time.
    pub(crate) links: u32,
}

impl Allowed {
    /// For this user, or why he gets nothing, for a person.
    pub(crate) fn of(uid: Uid, config: Option<&Path>) -> Result<Self, String> {
        let loaded = casemate_host::configuration::system(config)
            .map_err(|error| format!("the system's configuration: {}", sentence(&error)))?;
        if let Some(error) = loaded.errors_for("").first() {
            return Err(format!("the system's configuration has an error: {}", error.message));
        }
        let network = loaded.settings.network;
        if uid.is_root() {
            return Ok(Self { user: "root".into(), network, ids: None, links: OF_ROOT });
        }
        let Ok(Some(user)) = User::from_uid(uid) else {
            return Err(format!("user {uid} has no name on this machine"));
        };
        let groups = CString::new(user.name.as_str())
            .ok()
            .and_then(|name| getgrouplist(&name, user.gid).ok())
            .unwrap_or_default();
        match network.grants.iter().find(|grant| is_for(grant, &user.name, &groups)) {
            Some(LinkGrant { ids, links, .. }) => {
                let (ids, links) = (*ids, *links);
                Ok(Self { user: user.name, network, ids, links })
            }
            None => Err(format!(
                "user `{}` has no grant of links (`grants` in [network] of the system's \
                 configuration)",
                user.name
            )),
        }
    }

    /// The same, as it is told.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            cidr: self.network.cidr,
            nat: self.network.nat_enable,
            interface: self.network.nat_interface.as_ref().map(ToString::to_string),
            ids: self.ids.map(|(first, last)| (first.get(), last.get())),
        }
    }
}

fn is_for(grant: &LinkGrant, user: &str, groups: &[Gid]) -> bool {
    match &grant.to {
        Grantee::User(name) => name.as_str() == user,
        Grantee::Group(name) => {
            let found = Group::from_name(name.as_str()).ok().flatten();
            found.is_some_and(|group| groups.contains(&group.gid))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(uid: u32, text: &str) -> Result<Allowed, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("casemate.toml");
        std::fs::write(&path, text).expect("written");
        Allowed::of(Uid::from_raw(uid), Some(&path))
    }

    #[test]
    fn root_needs_no_grant_and_others_have_what_theirs_says() {
        let nobody = User::from_name("nobody").expect("a list").expect("every machine has him");
        let group = Group::from_gid(nobody.gid).expect("a list").expect("his group");
        assert_eq!(allowed(0, "").expect("root").links, OF_ROOT);
        let uid = nobody.uid.as_raw();
        let refused = allowed(uid, "[network]\ngrants = [\"user=root\"]").expect_err("none");
        assert!(refused.contains("`nobody` has no grant"), "{refused}");
        let text = "[network]\ngrants = [\"user=nobody ids=11-19 links=2\", \"user=nobody\"]";
        let found = allowed(uid, text).expect("the first that names him");
        assert_eq!((found.links, found.terms().ids), (2, Some((11, 19))));
        let text = format!("[network]\ngrants = [\"group={}\"]", group.name);
        assert!(allowed(uid, &text).is_ok());
        assert!(allowed(uid, "[network]\ngrants = [\"group=root\"]").is_err());
    }

    #[test]
    fn broken_configuration_gives_nobody_anything() {
        for text in ["[network", "[network]\ngrants = [\"user=a;b\"]", "[network]\ncidr = 3"] {
            assert!(allowed(0, text).is_err(), "{text}");
        }
    }
}
