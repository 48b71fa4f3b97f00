//! What supervisors and the root helper `casemate-netd` say to each other: JSON, one message a
//! packet of a sequenced-packet socket. The helper answers with [`FromKeeper`], as the keeper of a
//! rootless network does.
//!
//! Requests are a stranger's bytes. [`decode`] is the only reader of them: a length first, then
//! types that cannot hold anything else than what they say. No text of a request comes further than
//! that; the firewall is rendered from the types, by the helper.
//!
//! [`FromKeeper`]: crate::network::FromKeeper

use std::net::Ipv4Addr;
use std::path::PathBuf;

use casemate_config::{
    CompartmentId, CompartmentName, Destination, FirewallAction, FirewallRule, Ipv4Cidr, MacAddr,
};
use serde::{Deserialize, Serialize};

/// Where the helper listens.
pub const SOCKET: &str = "/run/casemate-netd/socket";

/// The longest request, in bytes: each rule has some 100.
pub const LONGEST_REQUEST: usize = 64 * 1024;

/// Rules of one link.
pub const MOST_RULES: usize = 256;

/// Names in them: each is asked for again and again.
pub const MOST_NAMES: usize = 32;

/// From a supervisor, or a command of the user, to the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToHelper {
    /// What may I have? Answered by [`Terms`], or a refusal.
    Terms,
    /// A link, for as long as this connection is there.
    Link(Box<Order>),
    /// How many packets met which rule of this connection's link?
    Counters,
    /// What did a helper that was killed leave, and what was done about it?
    Repair,
}

/// A link that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Order {
    /// Whose it will be, for messages.
    pub compartment: CompartmentName,
    /// The number of its /31.
    pub id: CompartmentId,
    /// The guest's address, as it was planned.
    pub address: Ipv4Addr,
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// Its rules.
    #[serde(with = "rules")]
    pub rules: Vec<FirewallRule>,
    /// What happens to what no rule matches.
    #[serde(with = "action")]
    pub default: FirewallAction,
}

/// What the system's configuration gives a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Terms {
    /// The network that links are cut from.
    pub cidr: Ipv4Cidr,
    /// Packets leave with the host's address.
    pub nat: bool,
    /// The only interface they leave by; any when none.
    pub interface: Option<String>,
    /// The ids that his compartments may have, the first and the last; any when none.
    pub ids: Option<(u32, u32)>,
}

/// Whether the helper is there for this user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum HelperFacts {
    /// It is not set up, or nobody asked.
    #[default]
    Absent,
    /// It is, and gives him nothing, or does not answer.
    Refuses {
        /// Why, for a person.
        reason: String,
    },
    /// It is.
    Ready {
        /// Its socket.
        socket: PathBuf,
        /// What it gives him.
        terms: Terms,
    },
}

/// Why bytes are no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Longer than any.
    #[error("the request is longer than {LONGEST_REQUEST} bytes")]
    Long,
    /// Not what it should be.
    #[error("the request cannot be understood")]
    Malformed(#[source] serde_json::Error),
    /// More rules, or names in them, than a link may have.
    #[error("a link can have {most} {what}, and this one has {count}")]
    Many {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
        /// How many there are.
        count: usize,
    },
}

/// Reads one request.
///
/// # Errors
/// See [`RequestError`].
pub fn decode(bytes: &[u8]) -> Result<ToHelper, RequestError> {
    if bytes.len() > LONGEST_REQUEST {
        return Err(RequestError::Long);
    }
    let request: ToHelper = serde_json::from_slice(bytes).map_err(RequestError::Malformed)?;
    if let ToHelper::Link(order) = &request {
        order.check()?;
    }
    Ok(request)
}

impl Order {
    /// # Errors
    /// [`RequestError::Many`].
    pub(crate) fn check(&self) -> Result<(), RequestError> {
        let named = |rule: &&FirewallRule| matches!(rule.destination, Destination::Host(_));
        let names = self.rules.iter().filter(named).count();
        for (what, most, count) in
            [("rules", MOST_RULES, self.rules.len()), ("names in rules", MOST_NAMES, names)]
        {
            if count > most {
                return Err(RequestError::Many { what, most, count });
            }
        }
        Ok(())
    }
}

mod rules {
    //! Rules, in the language of the configuration.
    use casemate_config::FirewallRule;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        rules: &[FirewallRule],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(rules.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Vec<FirewallRule>, D::Error> {
        let lines = Vec::<String>::deserialize(deserializer)?;
        let rule = |line: &String| line.parse().map_err(|flaw| D::Error::custom(as_text(flaw)));
        lines.iter().map(rule).collect()
    }

    fn as_text(flaw: casemate_config::Flaw) -> String {
        flaw.message
    }
}

mod action {
    //! `accept` or `drop`.
    use casemate_config::FirewallAction;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        action: &FirewallAction,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(action)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<FirewallAction, D::Error> {
        let word = String::deserialize(deserializer)?;
        word.parse().map_err(|flaw: casemate_config::Flaw| D::Error::custom(flaw.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(rules: &[&str]) -> Order {
        Order {
            compartment: "web".parse().expect("a name"),
            id: CompartmentId::new(7).expect("odd"),
            address: "172.16.200.7".parse().expect("an address"),
            mac: "02:00:00:12:34:56".parse().expect("an address"),
            rules: rules.iter().map(|rule| rule.parse().expect("a rule")).collect(),
            default: FirewallAction::Drop,
        }
    }

    #[test]
    fn requests_are_read_as_they_were_written() {
        let rules = ["action=accept special=dns", "action=drop proto=tcp dst4=10.0.0.0/8"];
        for request in [
            ToHelper::Terms,
            ToHelper::Counters,
            ToHelper::Repair,
            ToHelper::Link(Box::new(order(&rules))),
        ] {
            let bytes = serde_json::to_vec(&request).expect("JSON");
            assert_eq!(decode(&bytes).expect("a request"), request);
        }
    }

    #[test]
    fn nothing_but_what_the_types_can_hold_is_read() {
        let whole = serde_json::to_string(&ToHelper::Link(Box::new(order(&[])))).expect("JSON");
        for (from, to) in [
            ("\"web\"", "\"../web\""),
            ("\"id\":7", "\"id\":8"),
            ("\"id\":7", "\"id\":-1"),
            ("02:00", "03:00"),
            ("172.16.200.7", "172.16.200.7/8"),
            ("\"rules\":[]", "\"rules\":[\"action=accept\\n}\"]"),
            ("\"rules\":[]", "\"rules\":[\"action=accept; flush ruleset\"]"),
            ("\"drop\"", "\"accept; flush ruleset\""),
            ("\"id\":7", "\"id\":7,\"device\":\"eth0\""),
        ] {
            let changed = whole.replace(from, to);
            assert_ne!(changed, whole, "{from}");
            assert!(decode(changed.as_bytes()).is_err(), "{changed}");
        }
        for end in 0..whole.len() {
            assert!(decode(&whole.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn many_rules_and_names_are_refused_and_long_requests_not_looked_at() {
        let rules = vec!["action=accept"; MOST_RULES + 1];
        let bytes = |order| serde_json::to_vec(&ToHelper::Link(Box::new(order))).expect("JSON");
        assert!(matches!(decode(&bytes(order(&rules))), Err(RequestError::Many { .. })));
        assert!(decode(&bytes(order(&rules[1..]))).is_ok());
        let names = vec!["action=accept dsthost=a.example"; MOST_NAMES + 1];
        let told = decode(&bytes(order(&names))).expect_err("too many").to_string();
        assert_eq!(told, "a link can have 32 names in rules, and this one has 33");
        assert!(matches!(decode(&vec![b' '; LONGEST_REQUEST + 1]), Err(RequestError::Long)));
    }
}
