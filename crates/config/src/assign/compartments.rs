//! Ids of compartments.

use std::collections::{BTreeMap, BTreeSet};

use crate::assign::AssignedIds;
use crate::compartment::Compartment;
use crate::diagnostic::{Concern, Diagnostic};
use crate::settings::Settings;
use crate::source::Origin;
use crate::value::grant::{Grantee, LinkGrant};
use crate::value::id::CompartmentId;
use crate::value::name::CompartmentName;

/// An id for every compartment, and the former ones of names that are gone.
pub(super) fn ids(
    settings: &Settings,
    prior: &AssignedIds,
    running: &BTreeSet<CompartmentName>,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<CompartmentName, CompartmentId> {
    let largest = settings.network.largest_id();
    let mut given: BTreeMap<CompartmentName, CompartmentId> = BTreeMap::new();
    let mut taken: BTreeSet<CompartmentId> = BTreeSet::new();
    let mut give = |name: &CompartmentName, id: CompartmentId, taken: &mut BTreeSet<_>| {
        if id <= largest && !given.contains_key(name) && taken.insert(id) {
            given.insert(name.clone(), id);
        }
    };
    let (present, gone): (Vec<_>, Vec<_>) =
        prior.compartments.iter().partition(|(name, _)| settings.compartments.contains_key(*name));
    for compartment in settings.compartments.values() {
        let Some(id) = compartment.id else { continue };
        let holder = gone.iter().find(|(name, held)| held.id == id && running.contains(*name));
        match holder {
            None => give(&compartment.name, id, &mut taken),
            Some((holder, _)) => diagnostics.push(
                Diagnostic::error(format!(
                    "id {id} of compartment `{}` is in use: `{holder}`, declared elsewhere, runs \
                     with it",
                    compartment.name,
                ))
                .at(compartment.declared)
                .hint(format!("choose another `id`, or run: casemate stop {holder}"))
                .concerning(Concern::Compartment(compartment.name.to_string())),
            ),
        }
    }
    for (name, assigned) in present.iter().chain(&gone) {
        give(name, assigned.id, &mut taken);
    }

    // What needs an address comes before what only wants a number.
    let mut new: Vec<_> =
        settings.compartments.values().filter(|new| !given.contains_key(&new.name)).collect();
    new.sort_by_key(|compartment| (!compartment.host_networking, compartment.name.clone()));
    let mut free =
        (CompartmentId::MIN.get()..=largest.get()).step_by(2).filter_map(CompartmentId::new);
    let mut reclaimable: Vec<CompartmentName> = gone
        .iter()
        .map(|(name, _)| (*name).clone())
        .filter(|name| {
            let keeps = settings.broken.contains_key(name.as_str()) || running.contains(name);
            given.contains_key(name) && !keeps
        })
        .rev()
        .collect();
    for compartment in new {
        let id = granted(settings, compartment)
            .find(|id| *id <= largest && !taken.contains(id))
            .or_else(|| free.find(|id| !taken.contains(id)))
            .or_else(|| reclaimable.pop().and_then(|name| given.remove(&name)));
        match id {
            Some(id) => {
                taken.insert(id);
                given.insert(compartment.name.clone(), id);
            }
            None => diagnostics.push(
                Diagnostic::error(format!(
                    "no id is left for compartment `{}`: {} has room for {}",
                    compartment.name,
                    settings.network.cidr,
                    (largest.get() - 1) / 2,
                ))
                .at(compartment.declared)
                .hint("widen `[network] cidr`, for example to a /16")
                .concerning(Concern::Compartment(compartment.name.to_string())),
            ),
        }
    }
    given
}

/// The ids of which the system lets its owner have a link, for a user's compartment that wants one.
fn granted(
    settings: &Settings,
    compartment: &Compartment,
) -> impl Iterator<Item = CompartmentId> + use<> {
    let wants = compartment.origin == Origin::User && compartment.host_networking;
    let of_owner = |grant: &&LinkGrant| match &grant.to {
        Grantee::User(name) => compartment.users.contains(name),
        Grantee::Group(_) => false,
    };
    let grant = settings.network.grants.iter().find(of_owner).filter(|_| wants);
    let ids = grant.and_then(|grant| grant.ids);
    let range = ids.map(|(first, last)| (first.get()..=last.get()).step_by(2));
    range.into_iter().flatten().filter_map(CompartmentId::new)
}
