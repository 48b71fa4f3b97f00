//! Networks, addresses of their members, and every MAC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::assign::{AssignedCompartment, AssignedIds, AssignedMember, AssignedNetwork};
use crate::diagnostic::{Concern, Diagnostic};
use crate::settings::{Settings, VirtualNetwork};
use crate::value::id::CompartmentId;
use crate::value::mac::MacAddr;
use crate::value::name::{CompartmentName, NetworkName};
use crate::value::net::Ipv4Cidr;

type Ids = BTreeMap<CompartmentName, CompartmentId>;

/// A network and the addresses in it, before MACs are known.
pub(super) struct Addresses {
    cidr: Ipv4Cidr,
    members: BTreeMap<CompartmentName, Ipv4Addr>,
}

/// A network for every name and an address for every member, and the former ones of those gone.
pub(super) fn addresses(
    settings: &Settings,
    prior: &AssignedIds,
    ids: &Ids,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<NetworkName, Addresses> {
    let mut given = BTreeMap::new();
    for (name, cidr) in cidrs(settings, prior, diagnostics) {
        let empty = BTreeMap::new();
        let before = prior.networks.get(&name).map_or(&empty, |network| &network.members);
        let mut members = Members { cidr, given: BTreeMap::new(), taken: BTreeSet::new() };
        if let Some(network) = settings.networks.get(&name) {
            members.place(network, ids, prior, before, diagnostics);
        }
        for (member, assigned) in before {
            members.give(member, assigned.address);
        }
        given.insert(name, Addresses { cidr, members: members.given });
    }
    given
}

/// Disjoint networks: the user's, then the former ones, then the lowest free /24 of the pool.
fn cidrs(
    settings: &Settings,
    prior: &AssignedIds,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<NetworkName, Ipv4Cidr> {
    let mut given: BTreeMap<NetworkName, Ipv4Cidr> = BTreeMap::new();
    let free = |cidr: Ipv4Cidr, given: &BTreeMap<NetworkName, Ipv4Cidr>| {
        !cidr.overlaps(settings.network.cidr) && !given.values().any(|other| cidr.overlaps(*other))
    };
    // What the user fixed was checked for overlaps when it was loaded.
    given.extend(settings.networks.values().filter_map(|net| Some((net.name.clone(), net.cidr?))));
    let (present, gone): (Vec<_>, Vec<_>) =
        prior.networks.iter().partition(|(name, _)| settings.networks.contains_key(*name));
    for (name, network) in present.iter().chain(&gone) {
        if !given.contains_key(*name) && free(network.cidr, &given) {
            given.insert((*name).clone(), network.cidr);
        }
    }
    let mut reclaimable: Vec<NetworkName> =
        gone.iter().rev().map(|(name, _)| (*name).clone()).collect();
    for network in settings.networks.values() {
        while !given.contains_key(&network.name) {
            if let Some(cidr) = (0..=255).map(Ipv4Cidr::of_pool).find(|cidr| free(*cidr, &given)) {
                given.insert(network.name.clone(), cidr);
            } else if let Some(name) = reclaimable.pop() {
                given.remove(&name);
            } else {
                diagnostics.push(
                    Diagnostic::error(format!(
                        "no network is left for `{}` in {}",
                        network.name,
                        Ipv4Cidr::pool()
                    ))
                    .hint(format!("set `cidr` in [network.{}]", network.name))
                    .concerning(Concern::Network(network.name.to_string())),
                );
                break;
            }
        }
    }
    given
}

struct Members {
    cidr: Ipv4Cidr,
    given: BTreeMap<CompartmentName, Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
}

impl Members {
    /// Gives the address unless it or the name is taken, or no client may have it.
    fn give(&mut self, member: &CompartmentName, address: Ipv4Addr) -> bool {
        let last = self.cidr.net().broadcast();
        let usable = self.cidr.net().contains(&address)
            && address != self.cidr.net().network()
            && Some(address) != self.cidr.host(1)
            && address != last;
        let new = usable && !self.given.contains_key(member) && self.taken.insert(address);
        if new {
            self.given.insert(member.clone(), address);
        }
        new
    }

    fn place(
        &mut self,
        network: &VirtualNetwork,
        ids: &Ids,
        prior: &AssignedIds,
        before: &BTreeMap<CompartmentName, AssignedMember>,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        if let Some(first) = self.cidr.host(1) {
            self.given.insert(network.router.clone(), first);
        }
        // A client keeps its address, unless the user gave it another id since.
        for client in &network.clients {
            let same_id =
                prior.compartments.get(client).map(|known| known.id) == ids.get(client).copied();
            if let Some(known) = before.get(client).filter(|_| same_id) {
                self.give(client, known.address);
            }
        }
        for client in &network.clients {
            let by_id = ids.get(client).and_then(|id| self.cidr.host(id.get()));
            if let Some(address) = by_id {
                self.give(client, address);
            }
        }
        // Ids are odd: even addresses are nobody's, so that these stay when others come. What
        // belonged to somebody who is gone is taken last.
        let gone: BTreeSet<Ipv4Addr> = before
            .iter()
            .filter(|(name, _)| !network.clients.contains(*name))
            .map(|(_, member)| member.address)
            .collect();
        let host = |offset| self.cidr.host(offset);
        let even = (2..self.cidr.size()).step_by(2).filter_map(host);
        let odd = (3..self.cidr.size()).step_by(2).filter_map(host);
        let (fresh, used): (Vec<_>, Vec<_>) =
            even.chain(odd).partition(|address| !gone.contains(address));
        let mut free = fresh.into_iter().chain(used);
        for client in &network.clients {
            if self.given.contains_key(client) || free.any(|address| self.give(client, address)) {
                continue;
            }
            diagnostics.push(
                Diagnostic::error(format!(
                    "no address is left for compartment `{client}` in network `{}` ({})",
                    network.name, self.cidr
                ))
                .hint(format!("widen `cidr` in [network.{}]", network.name))
                .concerning(Concern::Network(network.name.to_string())),
            );
        }
    }
}

/// Everything together, each MAC unique: the user's, then former ones, then derived ones.
pub(super) fn with_macs(
    settings: &Settings,
    prior: &AssignedIds,
    ids: &Ids,
    networks: &BTreeMap<NetworkName, Addresses>,
) -> AssignedIds {
    // `None` as network: the link to the host.
    type Port<'a> = (Option<&'a NetworkName>, &'a CompartmentName);
    let links = ids.keys().map(|name| (None, name));
    let members = networks
        .iter()
        .flat_map(|(name, network)| network.members.keys().map(move |member| (Some(name), member)));
    let ports: Vec<Port> = links.chain(members).collect();

    let mut given: BTreeMap<Port, MacAddr> = BTreeMap::new();
    let mut taken: BTreeSet<MacAddr> = BTreeSet::new();
    let fixed = |(network, member): &Port| {
        let compartment = settings.compartments.get(*member)?;
        compartment.networks.get((*network)?)?.mac_address
    };
    let former = |(network, member): &Port| match network {
        None => Some(prior.compartments.get(*member)?.mac),
        Some(network) => Some(prior.networks.get(*network)?.members.get(*member)?.mac),
    };
    let present = |(_, member): &Port| settings.compartments.contains_key(*member);
    let wishes = ports.iter().map(|port| (port, fixed(port)));
    let wishes =
        wishes.chain(ports.iter().filter(|port| present(port)).map(|port| (port, former(port))));
    let wishes = wishes.chain(ports.iter().map(|port| (port, former(port))));
    for (port, mac) in wishes {
        if let Some(mac) = mac.filter(|mac| !given.contains_key(port) && taken.insert(*mac)) {
            given.insert(*port, mac);
        }
    }
    for port in &ports {
        if given.contains_key(port) {
            continue;
        }
        let (scope, network) = port.0.map_or(("link", ""), |name| ("network", name.as_str()));
        let fresh = (0..)
            .map(|attempt| MacAddr::derived(scope, network, port.1.as_str(), attempt))
            .find(|mac| taken.insert(*mac));
        if let Some(mac) = fresh {
            given.insert(*port, mac);
        }
    }

    let compartments = ids.iter().filter_map(|(name, id)| {
        let mac = *given.get(&(None, name))?;
        Some((name.clone(), AssignedCompartment { id: *id, mac }))
    });
    let with_members = networks.iter().map(|(name, network)| {
        let members = network.members.iter().filter_map(|(member, address)| {
            let mac = *given.get(&(Some(name), member))?;
            Some((member.clone(), AssignedMember { address: *address, mac }))
        });
        (name.clone(), AssignedNetwork { cidr: network.cidr, members: members.collect() })
    });
    AssignedIds { compartments: compartments.collect(), networks: with_members.collect() }
}
