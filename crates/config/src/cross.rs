//! Rules between compartments, and between compartments and everything else.

mod devices;
mod references;

use std::collections::{BTreeMap, BTreeSet};

use crate::build::Draft;
use crate::diagnostic::{Concern, Diagnostic};
use crate::layers::{Context, View};
use crate::schema::compartment as key;
use crate::schema::lists::membership;
use crate::schema::top::{self, network, virtual_network};
use crate::sections::Sections;
use crate::settings::{Settings, VirtualNetwork};
use crate::source::{Origin, Span};
use crate::tree::{Node, Value};
use crate::value::name::{CompartmentName, NetworkName};
use crate::value::net::Ipv4Cidr;

/// Everything but networks: ids, devices, disks, and names that must exist.
pub(crate) fn check(
    sections: &Sections<'_>,
    settings: &Settings,
    drafts: &[Draft<'_>],
    found: &mut Vec<Diagnostic>,
) {
    references::ids(settings, drafts, found);
    references::macs(drafts, found);
    references::images(sections, drafts, found);
    references::default_disposables(sections, drafts, found);
    devices::pci(settings, drafts, found);
    devices::writable_disks(drafts, found);
}

/// One compartment's part in a network.
struct Member<'a> {
    draft: &'a Draft<'a>,
    router: bool,
    /// Where it says that it is a member.
    place: Span,
}

/// The virtual networks: each with exactly one router, members of one origin, disjoint.
pub(crate) fn networks(
    context: Context<'_>,
    sections: &Sections<'_>,
    settings: &Settings,
    drafts: &[Draft<'_>],
    found: &mut Vec<Diagnostic>,
) -> BTreeMap<NetworkName, VirtualNetwork> {
    let mut members: BTreeMap<NetworkName, Vec<Member>> = BTreeMap::new();
    // Broken compartments count too: a network does not lose its router by a typing error in it.
    for draft in drafts {
        for (entry, table) in draft.view.named(&key::NETWORKS) {
            if let Ok(name) = entry.key.parse() {
                let router = table.flag(&membership::ROUTER);
                let member = Member { draft, router, place: entry.key_span };
                members.entry(name).or_default().push(member);
            }
        }
    }
    let cidrs = cidrs(context, sections, settings, found);
    for declared in sections.networks.values() {
        let unused =
            declared.name.parse::<NetworkName>().is_ok_and(|name| !members.contains_key(&name));
        if unused {
            found.push(
                Diagnostic::warning(format!(
                    "no compartment is a member of network `{}`",
                    declared.name
                ))
                .at(declared.name_span)
                .hint(format!("add networks.{} = {{}} to compartments", declared.name))
                .concerning(Concern::Network(declared.name.to_owned())),
            );
        }
    }
    members
        .into_iter()
        .filter_map(|(name, members)| {
            let network = network_of(&name, &members, cidrs.get(&name).copied(), found)?;
            Some((name, network))
        })
        .collect()
}

fn network_of(
    name: &NetworkName,
    members: &[Member<'_>],
    cidr: Option<Ipv4Cidr>,
    found: &mut Vec<Diagnostic>,
) -> Option<VirtualNetwork> {
    let first = members.first()?;
    let concern = || Concern::Network(name.to_string());
    let mut routers = members.iter().filter(|member| member.router);
    let router = routers.next();
    match router {
        None => {
            let names: Vec<String> =
                members.iter().map(|member| format!("`{}`", member.draft.declared.name)).collect();
            found.push(
                Diagnostic::error(format!("network `{name}` has no router"))
                    .at(first.place)
                    .hint(format!(
                        "set networks.{name}.router = true in the one that connects the others; \
                         members are: {}",
                        names.join(", ")
                    ))
                    .concerning(concern()),
            );
        }
        Some(router) => {
            for second in routers {
                found.push(
                    Diagnostic::error(format!(
                        "network `{name}` has two routers: `{}` and `{}`",
                        router.draft.declared.name, second.draft.declared.name
                    ))
                    .at(second.place)
                    .related(router.place, "the other router")
                    .hint("leave router = true in one of them")
                    .concerning(concern()),
                );
            }
        }
    }
    // Two origins are two users of the machine: neither may join what the other set up.
    let origin = router.unwrap_or(first).draft.declared.origin;
    let keepers = members.iter().find(|member| member.draft.declared.origin == Origin::System);
    if let Some(keeper) = keepers {
        for member in members.iter().filter(|member| member.draft.declared.origin == Origin::User) {
            found.push(
                Diagnostic::error(format!("network `{name}` belongs to the system's compartments"))
                    .at(member.place)
                    .related(keeper.place, "used here")
                    .hint("choose another name for a network of your own")
                    .concerning(member.draft.concern()),
            );
        }
    }
    let origin = if keepers.is_some() { Origin::System } else { origin };
    let router: CompartmentName = router?.draft.declared.name.parse().ok()?;
    let clients: BTreeSet<CompartmentName> = members
        .iter()
        .filter(|member| !member.router && member.draft.declared.origin == origin)
        .filter_map(|member| member.draft.declared.name.parse().ok())
        .collect();
    Some(VirtualNetwork { name: name.clone(), origin, cidr, router, clients })
}

/// The networks users fixed; none overlaps another, the links, or (for the links) the pool.
fn cidrs(
    context: Context<'_>,
    sections: &Sections<'_>,
    settings: &Settings,
    found: &mut Vec<Diagnostic>,
) -> BTreeMap<NetworkName, Ipv4Cidr> {
    let links = settings.network.cidr;
    let roots = View::new(context, sections.roots.clone());
    let links_node = roots.table(&top::NETWORK).node(&network::CIDR);
    if links.overlaps(Ipv4Cidr::pool()) {
        found.push(
            Diagnostic::error(format!(
                "{links} overlaps {}, which virtual networks are cut from",
                Ipv4Cidr::pool()
            ))
            .at_some(links_node.map(|node| node.span))
            .hint("choose another private network, for example \"172.16.0.0/16\"")
            .concerning(Concern::Everything(Origin::System))
            .concerning(Concern::Everything(Origin::User)),
        );
    }
    let mut fixed: Vec<(&str, Ipv4Cidr, Span)> = Vec::new();
    for declared in sections.networks.values() {
        let view = View::new(context, vec![declared.table]);
        let Some(node) = view.node(&virtual_network::CIDR) else { continue };
        let Some(cidr) = view.text::<Ipv4Cidr>(&virtual_network::CIDR) else { continue };
        let error = |message: String| {
            Diagnostic::error(message)
                .at(node.span)
                .hint("choose a private network that nothing else uses")
                .concerning(Concern::Network(declared.name.to_owned()))
        };
        if cidr.overlaps(links) {
            found.push(error(format!("{cidr} overlaps {links}, the links to the host")));
        }
        match fixed.iter().find(|(_, other, _)| cidr.overlaps(*other)) {
            Some((other, other_cidr, place)) => found.push(
                error(format!("{cidr} overlaps {other_cidr} of network `{other}`"))
                    .related(*place, "the other network")
                    .concerning(Concern::Network((*other).to_owned())),
            ),
            None => fixed.push((declared.name, cidr, node.span)),
        }
    }
    let names = fixed.into_iter();
    names.filter_map(|(name, cidr, _)| Some((name.parse().ok()?, cidr))).collect()
}

/// The elements of a list that are texts.
fn texts<'a>(
    view: &View<'a>,
    key: &crate::schema::Key,
) -> impl Iterator<Item = (&'a str, &'a Node)> {
    view.list(key).iter().filter_map(|node| match &node.value {
        Value::Text(text) => Some((text.as_str(), node)),
        _ => None,
    })
}
