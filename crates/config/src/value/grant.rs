//! Who may have links to the host through the root helper: one line of `key=value` words each.
//!
//! `user=NAME|group=NAME [ids=A-B] [links=N]`. The first line that names a person decides.

use crate::flaw::Flaw;
use crate::value::id::CompartmentId;
use crate::value::name::{GroupName, UserName};
use crate::value::text::{one_line, textual};

/// Links that one person may have at a time where his grant says nothing of it.
const LINKS: u32 = 16;

/// The most that a grant can give: one for each compartment that a /22 has room for.
const MOST_LINKS: u32 = 512;

/// What one person, or each person of a group, may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkGrant {
    /// Who.
    pub to: Grantee,
    /// The ids that his compartments may have, the first and the last; any when none.
    pub ids: Option<(CompartmentId, CompartmentId)>,
    /// Links at a time.
    pub links: u32,
}

/// Whom a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grantee {
    /// The user with this name.
    User(UserName),
    /// Each user of this group.
    Group(GroupName),
}

impl LinkGrant {
    /// Whether the id is among those it gives.
    pub fn covers(&self, id: CompartmentId) -> bool {
        self.ids.is_none_or(|(first, last)| (first..=last).contains(&id))
    }
}

impl std::str::FromStr for LinkGrant {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Flaw> {
        if !one_line(text) {
            return Err(Flaw::new("a grant must stand in one line"));
        }
        let (mut to, mut ids, mut links) = (Vec::new(), None, None);
        for word in text.split_whitespace() {
            let Some((key, value)) = word.split_once('=') else {
                return Err(Flaw::new(format!("`{word}` has no `=`"))
                    .hint("a grant is made of key=value words, for example user=alice"));
            };
            let twice = match key {
                "user" => {
                    to.push(Grantee::User(value.parse()?));
                    to.len() > 1
                }
                "group" => {
                    to.push(Grantee::Group(value.parse()?));
                    to.len() > 1
                }
                "ids" => ids.replace(range(value)?).is_some(),
                "links" => links.replace(count(value)?).is_some(),
                _ => {
                    return Err(Flaw::new(format!("`{key}` is not part of a grant"))
                        .hint("known are: user, group, ids, links"));
                }
            };
            if twice {
                return Err(Flaw::new(format!("`{key}` is one too many"))
                    .hint("write one grant for each user or group"));
            }
        }
        let Some(to) = to.pop() else {
            return Err(Flaw::new("this grant does not say whom it is for")
                .hint("begin it with user=NAME or group=NAME"));
        };
        Ok(Self { to, ids, links: links.unwrap_or(LINKS) })
    }
}

fn range(text: &str) -> Result<(CompartmentId, CompartmentId), Flaw> {
    let id = |text: &str| text.parse().ok().and_then(CompartmentId::new);
    text.split_once('-')
        .and_then(|(first, last)| Some((id(first)?, id(last)?)))
        .filter(|(first, last)| first <= last)
        .ok_or_else(|| {
            Flaw::new(format!("`{text}` is no range of ids"))
                .hint("two odd numbers from 3 on, the smaller first: ids=101-149")
        })
}

fn count(text: &str) -> Result<u32, Flaw> {
    text.parse().ok().filter(|number| (1..=MOST_LINKS).contains(number)).ok_or_else(|| {
        Flaw::new(format!("`{text}` is no number of links"))
            .hint(format!("a number from 1 to {MOST_LINKS}: links={LINKS}"))
    })
}

impl std::fmt::Display for LinkGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.to {
            Grantee::User(name) => write!(f, "user={name}")?,
            Grantee::Group(name) => write!(f, "group={name}")?,
        }
        if let Some((first, last)) = self.ids {
            write!(f, " ids={first}-{last}")?;
        }
        write!(f, " links={}", self.links)
    }
}

textual!(
    LinkGrant,
    "a grant of links",
    Some("(^|\\s)(user|group)="),
    "user=alice ids=101-149 links=8"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_and_printed() {
        let grant: LinkGrant = "user=alice ids=101-149".parse().expect("a grant");
        assert_eq!(grant.to_string(), "user=alice ids=101-149 links=16");
        let id = |number| CompartmentId::new(number).expect("odd");
        assert!(grant.covers(id(101)) && grant.covers(id(149)) && !grant.covers(id(151)));
        let grant: LinkGrant = "group=staff links=2".parse().expect("a grant");
        assert_eq!(grant.to_string(), "group=staff links=2");
        assert!(grant.covers(id(3)));
    }

    #[test]
    fn grants_that_mean_nothing_are_refused() {
        for text in [
            "",
            "alice",
            "ids=3-5",
            "user=a user=b",
            "user=a group=b",
            "user=a ids=4-8",
            "user=a ids=9-3",
            "user=a ids=3",
            "user=a links=0",
            "user=a links=513",
            "user=a nat=no",
            "user=../a",
            "user=a ids=3-5 ids=7-9",
            "user=a\ngroup=b",
        ] {
            assert!(text.parse::<LinkGrant>().is_err(), "{text}");
        }
    }
}
