//! Numbers that must be unique, and names that must exist.

use std::collections::BTreeMap;

use crate::build::Draft;
use crate::diagnostic::{Concern, Diagnostic};
use crate::schema::compartment as key;
use crate::schema::lists::membership;
use crate::sections::Sections;
use crate::settings::Settings;
use crate::source::{Origin, Span};
use crate::suggest;
use crate::value::id::CompartmentId;
use crate::value::mac::MacAddr;
use crate::value::name::{CompartmentName, ImageName};

pub(super) fn ids(settings: &Settings, drafts: &[Draft<'_>], found: &mut Vec<Diagnostic>) {
    let largest = settings.network.largest_id();
    let mut seen: BTreeMap<CompartmentId, (&Draft, Span)> = BTreeMap::new();
    for draft in drafts {
        let Some(node) = draft.view.node(&key::ID) else { continue };
        let number = draft.view.integer(&key::ID).and_then(|id| u32::try_from(id).ok());
        let Some(id) = number.and_then(CompartmentId::new) else { continue };
        if id > largest {
            found.push(
                Diagnostic::error(format!("`id` cannot be {id} in {}", settings.network.cidr))
                    .at(node.span)
                    .hint(format!("the largest is {largest}; a wider `[network] cidr` allows more"))
                    .concerning(draft.concern()),
            );
        }
        match seen.get(&id) {
            None => {
                seen.insert(id, (draft, node.span));
            }
            Some((first, place)) => found.push(
                Diagnostic::error(format!(
                    "compartments `{}` and `{}` have the same id {id}",
                    first.declared.name, draft.declared.name
                ))
                .at(node.span)
                .related(*place, "first here")
                .hint("change one of them, or leave it out to have one assigned")
                .concerning(first.concern())
                .concerning(draft.concern()),
            ),
        }
    }
}

pub(super) fn macs(drafts: &[Draft<'_>], found: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<MacAddr, (&Draft, Span)> = BTreeMap::new();
    for draft in drafts {
        for (_, table) in draft.view.named(&key::NETWORKS) {
            let Some(node) = table.node(&membership::MAC_ADDRESS) else { continue };
            let Some(mac) = table.text::<MacAddr>(&membership::MAC_ADDRESS) else { continue };
            match seen.get(&mac) {
                None => {
                    seen.insert(mac, (draft, node.span));
                }
                Some((first, place)) => {
                    let diagnostic = Diagnostic::error(format!(
                        "interfaces of `{}` and `{}` have the same MAC address {mac}",
                        first.declared.name, draft.declared.name
                    ))
                    .at(node.span)
                    .concerning(first.concern())
                    .concerning(draft.concern());
                    found.push(if *place == node.span {
                        diagnostic.hint("both inherit it; set it in each compartment instead")
                    } else {
                        diagnostic
                            .related(*place, "first here")
                            .hint("change one of them, or leave it out to have one derived")
                    });
                }
            }
        }
    }
}

pub(super) fn images(sections: &Sections<'_>, drafts: &[Draft<'_>], found: &mut Vec<Diagnostic>) {
    for draft in drafts {
        let Some(image) = draft.view.text::<ImageName>(&key::IMAGE) else { continue };
        // The system has a `debian` of its own, whatever a user declares under that name.
        if image.as_str() == ImageName::DEFAULT {
            continue;
        }
        if let Some(declared) = sections.images.get(image.as_str()) {
            if draft.declared.origin == Origin::System && declared.origin == Origin::User {
                let message =
                    format!("image `{image}` belongs to a user, not to the system's configuration");
                found.push(
                    Diagnostic::error(message)
                        .at_some(draft.view.node(&key::IMAGE).map(|node| node.span))
                        .related(declared.name_span, "declared here")
                        .concerning(draft.concern()),
                );
            }
            continue;
        }
        let known = sections.images.keys().copied().chain([ImageName::DEFAULT]);
        let hint = match suggest::nearest(image.as_str(), known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("declare it as [image.{image}]"),
        };
        found.push(
            Diagnostic::error(format!("there is no image `{image}`"))
                .at_some(draft.view.node(&key::IMAGE).map(|node| node.span))
                .hint(hint)
                .concerning(draft.concern()),
        );
    }
}

pub(super) fn default_disposables(
    sections: &Sections<'_>,
    drafts: &[Draft<'_>],
    found: &mut Vec<Diagnostic>,
) {
    let by_name: BTreeMap<&str, &Draft> =
        drafts.iter().map(|draft| (draft.declared.name, draft)).collect();
    for draft in drafts {
        let Some(name) = draft.view.text::<CompartmentName>(&key::DEFAULT_DISPOSABLE) else {
            continue;
        };
        let place = draft.view.node(&key::DEFAULT_DISPOSABLE).map(|node| node.span);
        let diagnostic = match by_name.get(name.as_str()) {
            Some(target)
                if draft.declared.origin == Origin::System
                    && target.declared.origin == Origin::User =>
            {
                let message = format!(
                    "compartment `{name}` belongs to a user, not to the system's configuration"
                );
                Diagnostic::error(message).related(target.declared.name_span, "declared here")
            }
            Some(target) if target.view.flag(&key::DISPOSABLE_TEMPLATE) => continue,
            Some(target) => {
                Diagnostic::error(format!("no disposables can be made from compartment `{name}`"))
                    .related(target.declared.name_span, "declared here")
                    .hint(format!("add disposable-template = true to [compartment.{name}]"))
            }
            None => {
                let known =
                    by_name.values().filter(|known| known.view.flag(&key::DISPOSABLE_TEMPLATE));
                let hint =
                    match suggest::nearest(name.as_str(), known.map(|known| known.declared.name)) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None if sections.templates.contains_key(name.as_str()) => {
                            "name a compartment with disposable-template = true, not a template"
                                .to_owned()
                        }
                        None => {
                            format!("declare [compartment.{name}] with disposable-template = true")
                        }
                    };
                Diagnostic::error(format!("there is no compartment `{name}`")).hint(hint)
            }
        };
        found.push(
            diagnostic
                .at_some(place)
                .concerning(Concern::Compartment(draft.declared.name.to_owned())),
        );
    }
}
