//! Virtual networks: who is a member, who routes, and which addresses they have.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::Draft;
use crate::diagnostic::{Concern, Diagnostic};
use crate::layers::{Context, View};
use crate::schema::compartment as key;
use crate::schema::lists::membership;
use crate::schema::top::{self, network, virtual_network};
use crate::sections::{Declared, Sections};
use crate::settings::{Settings, VirtualNetwork};
use crate::source::{Origin, Span};
use crate::value::name::NetworkName;
use crate::value::net::Ipv4Cidr;

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
    for (name, members) in &mut members {
        keep_one_origin(name, members, found);
    }
    for declared in sections.networks.values() {
        declaration(declared, &members, found);
    }
    circles(&members, found);
    let cidrs = cidrs(context, sections, settings, found);
    members
        .into_iter()
        .filter_map(|(name, members)| {
            let network = network_of(&name, &members, cidrs.get(&name).copied(), found)?;
            Some((name, network))
        })
        .collect()
}

/// Two origins are two users of the machine: neither may join what the other set up. Where the
/// system's compartments use a name, users' are turned away.
fn keep_one_origin(name: &NetworkName, members: &mut Vec<Member<'_>>, found: &mut Vec<Diagnostic>) {
    let system = |member: &Member| member.draft.declared.origin == Origin::System;
    let Some(keeper) = members.iter().find(|member| system(member)).map(|keeper| keeper.place)
    else {
        return;
    };
    members.retain(|member| {
        if !system(member) {
            found.push(
                Diagnostic::error(format!("network `{name}` belongs to the system's compartments"))
                    .at(member.place)
                    .related(keeper, "used here")
                    .hint("choose another name for a network of your own")
                    .concerning(member.draft.concern()),
            );
        }
        system(member)
    });
}

/// A declaration without members does nothing; one of the system's networks by a user is refused.
fn declaration(
    declared: &Declared<'_>,
    members: &BTreeMap<NetworkName, Vec<Member<'_>>>,
    found: &mut Vec<Diagnostic>,
) {
    let Ok(name) = declared.name.parse::<NetworkName>() else { return };
    match members.get(&name).and_then(|members| members.first()) {
        None => found.push(
            Diagnostic::warning(format!("no compartment is a member of network `{name}`"))
                .at(declared.name_span)
                .hint(format!("add networks.{name} = {{}} to compartments"))
                .concerning(Concern::Network(name.to_string())),
        ),
        Some(member) if declared.origin > member.draft.declared.origin => found.push(
            Diagnostic::error(format!("network `{name}` belongs to the system's compartments"))
                .at(declared.name_span)
                .related(member.place, "used here")
                .hint("choose another name for a network of your own")
                .concerning(Concern::Everything(Origin::User)),
        ),
        Some(_) => {}
    }
}

/// `None` after an error that concerns the network, and so all its members.
fn network_of(
    name: &NetworkName,
    members: &[Member<'_>],
    cidr: Option<Ipv4Cidr>,
    found: &mut Vec<Diagnostic>,
) -> Option<VirtualNetwork> {
    let first = members.first()?;
    let concern = || Concern::Network(name.to_string());
    let mut routers = members.iter().filter(|member| member.router);
    let Some(router) = routers.next() else {
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
        return None;
    };
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
    let Ok(router_name) = router.draft.declared.name.parse() else {
        found.push(
            Diagnostic::error(format!("the router of network `{name}` has an impossible name"))
                .at(router.place)
                .related(router.draft.declared.name_span, "this one")
                .concerning(concern()),
        );
        return None;
    };
    let clients = members.iter().filter(|member| !member.router);
    Some(VirtualNetwork {
        name: name.clone(),
        origin: first.draft.declared.origin,
        cidr,
        router: router_name,
        clients: clients.filter_map(|member| member.draft.declared.name.parse().ok()).collect(),
    })
}

/// A client is started after its router: nobody may be behind himself, over however many networks.
fn circles(members: &BTreeMap<NetworkName, Vec<Member<'_>>>, found: &mut Vec<Diagnostic>) {
    let steps: Vec<Step<'_>> = members
        .iter()
        .flat_map(|(network, members)| {
            let router = members.iter().find(|member| member.router);
            let clients = members.iter().filter(|member| !member.router);
            clients.filter_map(move |client| {
                let (client, place) = (client.draft.declared.name, client.place);
                Some(Step { network, client, router: router?.draft.declared.name, place })
            })
        })
        .collect();
    let mut told: BTreeSet<&str> = BTreeSet::new();
    for begin in &steps {
        let Some(circle) = circle(&steps, begin) else { continue };
        if circle.iter().any(|step| told.contains(step.client)) {
            continue;
        }
        told.extend(circle.iter().map(|step| step.client));
        let list = circle.iter().map(|step| {
            format!("`{}` behind `{}` in network `{}`", step.client, step.router, step.network)
        });
        let list = list.collect::<Vec<_>>().join(", ");
        let mut error = Diagnostic::error(format!("routers are clients of each other: {list}"))
            .at(begin.place)
            .hint("a client is started after its router; let one of them be no client");
        for step in &circle {
            error = error.concerning(Concern::Network(step.network.to_string()));
        }
        found.push(error);
    }
}

/// A client and whom it is behind.
struct Step<'a> {
    network: &'a NetworkName,
    client: &'a str,
    router: &'a str,
    place: Span,
}

/// The way from the client of `begin` from router to router back to it, if there is one.
fn circle<'s, 'a>(steps: &'s [Step<'a>], begin: &'s Step<'a>) -> Option<Vec<&'s Step<'a>>> {
    let mut seen = BTreeSet::from([begin.router]);
    let mut ways = vec![vec![begin]];
    while let Some(way) = ways.pop() {
        let end = way.last()?.router;
        if end == begin.client {
            return Some(way);
        }
        for step in steps.iter().filter(|step| step.client == end) {
            if seen.insert(step.router) {
                ways.push(way.iter().copied().chain([step]).collect());
            }
        }
    }
    None
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
