//! The link of a compartment to the host, the root helper's way: whether it can be had, and what is
//! asked for.

use std::path::PathBuf;

use casemate_config::{FirewallRule, NetworkSettings};
use serde::Serialize;

use crate::facts::HostFacts;
use crate::firewall::device;
use crate::helper::{HelperFacts, Order, Terms};
use crate::network::{Network, Way, link, reachable};
use crate::{Refusal, Request};

/// A link that the root helper makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ByHelper {
    /// The helper's socket.
    pub socket: PathBuf,
    /// Name of the TAP device.
    pub device: String,
    /// What it is asked for.
    pub order: Order,
    /// What it gives.
    pub terms: Terms,
}

/// What to do for links through the helper.
pub(crate) const SET_UP: &str = "run as root: systemctl enable --now casemate-netd.socket (or set mode = \"auto\" \
                      or \"rootless\"); the README says how to install it";

/// Why a link is not made by the helper.
pub(crate) enum Otherwise {
    /// There is none.
    Absent,
    /// It cannot; with a hint.
    Not(String, &'static str),
    /// No way could.
    Refused(Refusal),
}

/// The network by the root helper, where it gives what the configuration asks for.
pub(crate) fn by_helper(
    request: &Request<'_>,
    settings: &NetworkSettings,
    facts: &HostFacts,
) -> Result<Network, Otherwise> {
    let (socket, terms) = match &facts.network.helper {
        HelperFacts::Absent => return Err(Otherwise::Absent),
        HelperFacts::Refuses { reason } => {
            return Err(Otherwise::Not(format!("casemate-netd says: {reason}"), GRANT));
        }
        HelperFacts::Ready { socket, terms } => (socket, terms),
    };
    let link = link(request, settings).map_err(Otherwise::Refused)?;
    let compartment = request.compartment;
    let Some(parts) = request.link else { return Err(Otherwise::Absent) };
    let id = parts.id.get();
    let interface = settings.nat_interface.as_ref().map(ToString::to_string);
    let not = |reason: String, hint| Err(Otherwise::Not(reason, hint));
    if !link.behind.is_empty() {
        return not(
            "it is a router: the helper lets no address of a network behind it out".into(),
            "set mode = \"auto\" or \"rootless\"",
        );
    }
    if settings.ipv6 {
        return not(
            "`ipv6` would make the whole host a router of IPv6, which the helper does not".into(),
            "set mode = \"rootless\", which can",
        );
    }
    if request.instance.fresh {
        return not(
            "a fresh disposable would have its template's address, which is one of the host's"
                .into(),
            "set mode = \"auto\" or \"rootless\"",
        );
    }
    if settings.cidr != terms.cidr
        || settings.nat_enable != terms.nat
        || interface != terms.interface
    {
        return not(
            "`cidr` or `nat` in [network] differ from the system's configuration, which counts for \
             casemate-netd"
                .into(),
            "take them out of your own configuration",
        );
    }
    if let Some((first, last)) = terms.ids
        && !(first..=last).contains(&id)
    {
        return not(
            format!("id {id} is not among those granted to you, {first} to {last}"),
            "give the compartment an `id` among them",
        );
    }
    let bare = |rule: &FirewallRule| FirewallRule { comment: None, ..rule.clone() };
    let order = Order {
        compartment: compartment.name.clone(),
        id: parts.id,
        address: link.guest,
        mac: parts.mac,
        rules: compartment.firewall.iter().map(bare).collect(),
        default: compartment.firewall_default,
    };
    if let Err(error) = order.check() {
        return not(error.to_string(), "use fewer rules, or set mode = \"rootless\"");
    }
    reachable(compartment, &link, true).map_err(Otherwise::Refused)?;
    let way = Way::Helper(Box::new(ByHelper {
        socket: socket.clone(),
        device: device(id),
        order,
        terms: terms.clone(),
    }));
    let rules = compartment.firewall.iter().map(FirewallRule::to_string).collect();
    Ok(Network { link, rules, default: compartment.firewall_default, way, why: None })
}

/// What to do where the helper gives nothing.
const GRANT: &str = "root grants links in /etc/casemate/casemate.toml: [network] grants = [\"user=NAME\"]; \
                     without them, set mode = \"auto\" or \"rootless\"";
