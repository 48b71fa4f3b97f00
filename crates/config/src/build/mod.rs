//! From checked tables to settings.
//!
//! Building is lenient: a value that `check` rejected counts as not written, so that one mistake
//! does not hide the next. Whatever an error concerns is left out at the very end.

mod compartment;
mod guest;
mod image;
mod storage;
mod top;

use std::collections::{BTreeMap, BTreeSet};

use crate::compartment::Compartment;
use crate::diagnostic::{Concern, Diagnostic};
use crate::inherit::{self, ancestry};
use crate::layers::{Context, View};
use crate::loaded::Loaded;
use crate::schema::compartment as key;
use crate::sections::{Declared, Sections, collect};
use crate::settings::Settings;
use crate::source::{Environment, Origin, Source};
use crate::tree::Table;
use crate::value::choice::EngineKind;
use crate::{check, cross, parse, shipped};

/// A declared compartment on its way to being valid.
pub(crate) struct Draft<'a> {
    pub(crate) declared: Declared<'a>,
    /// Everything that applies to it.
    pub(crate) view: View<'a>,
    /// What must be free of errors for it to work.
    pub(crate) needs: Vec<Concern>,
    /// `None`: too little was readable.
    pub(crate) compartment: Option<Compartment>,
}

impl Draft<'_> {
    pub(crate) fn concern(&self) -> Concern {
        Concern::Compartment(self.declared.name.to_owned())
    }
}

/// Reads, checks and completes the configuration.
///
/// `sources` in order of increasing precedence: the system's main file, its drop-ins in name
/// order, then a user's the same way. Never fails as a whole: what is valid is in the settings,
/// everything else is in the diagnostics.
pub fn load(sources: &[Source], env: &Environment) -> Loaded {
    let mut all = sources.to_vec();
    all.push(shipped::source());
    let context = Context { sources: &all, env };
    let mut syntax: Vec<Diagnostic> = Vec::new();
    let mut found: Vec<Diagnostic> = Vec::new();
    let mut unreadable: BTreeSet<u32> = BTreeSet::new();
    let mut files: Vec<(&Source, Table)> = Vec::new();
    for (index, source) in (0..).zip(sources) {
        let (table, errors) = parse::parse(index, source);
        if !errors.is_empty() {
            unreadable.insert(index);
        }
        syntax.extend(errors);
        found.extend(check::check(context, source, &table));
        files.push((source, table));
    }

    // Its place in `all`; what is shipped has no errors, as a test shows.
    let at = u32::try_from(sources.len()).unwrap_or(u32::MAX);
    let (templates, _) = parse::parse(at, &all[sources.len()]);
    let shipped = (&all[sources.len()], templates);
    let mut sections = collect(&files, &shipped);
    found.append(&mut sections.found);
    inherit::check_templates(&sections, &mut found);
    let drafts: Vec<Draft> = sections
        .compartments
        .values()
        .map(|declared| draft(context, &sections, *declared, &mut found))
        .collect();
    let roots = View::new(context, sections.roots.clone());
    let mut settings = top::settings(&roots, &mut found);
    settings.images = image::images(context, &sections, &mut found);
    settings.networks = cross::networks(context, &sections, &settings, &drafts, &mut found);
    cross::check(&sections, &settings, &drafts, &mut found);

    found.retain(|diagnostic| !follows_from_half_a_file(diagnostic, sources, &unreadable, &drafts));
    let diagnostics = tidy(syntax.into_iter().chain(found));
    let needs = drafts.iter().map(|draft| (draft.declared.name.to_owned(), draft.needs.clone()));
    let needs: BTreeMap<String, Vec<Concern>> = needs.collect();
    keep_valid(&mut settings, drafts, &diagnostics);
    Loaded { settings, diagnostics, sources: all, needs }
}

fn draft<'a>(
    context: Context<'a>,
    sections: &Sections<'a>,
    declared: Declared<'a>,
    found: &mut Vec<Diagnostic>,
) -> Draft<'a> {
    let ancestry = ancestry(sections, &declared, found);
    let view = View::new(context, ancestry.tables);
    let mut needs =
        vec![Concern::Compartment(declared.name.to_owned()), Concern::Everything(Origin::System)];
    if declared.origin == Origin::User {
        needs.push(Concern::Everything(Origin::User));
    }
    needs.extend(ancestry.templates.iter().map(|name| Concern::Template((*name).to_owned())));
    needs.extend(view.text::<EngineKind>(&key::ENGINE).map(Concern::Engine));
    needs.extend(view.text::<String>(&key::IMAGE).map(Concern::Image));
    let networks = view.named(&key::NETWORKS);
    if !networks.is_empty() {
        needs.push(Concern::Switch);
    }
    needs.extend(networks.iter().map(|(entry, _)| Concern::Network(entry.key.clone())));
    let compartment = compartment::compartment(&view, &declared, found);
    Draft { declared, view, needs, compartment }
}

/// Whether a finding stands in a file with syntax errors, of which too little was understood for it
/// to be worth saying. All that it concerns is refused anyway; where a user's file would keep a
/// system's compartment from working it is kept.
fn follows_from_half_a_file(
    diagnostic: &Diagnostic,
    sources: &[Source],
    unreadable: &BTreeSet<u32>,
    drafts: &[Draft<'_>],
) -> bool {
    let Some(place) = diagnostic.place.filter(|place| unreadable.contains(&place.source)) else {
        return false;
    };
    let system = |draft: &&Draft| draft.declared.origin == Origin::System;
    sources.get(place.source as usize).is_some_and(|source| source.origin == Origin::System)
        || !drafts
            .iter()
            .filter(system)
            .any(|draft| diagnostic.concerns.iter().any(|concern| draft.needs.contains(concern)))
}

/// One mistake, one diagnostic, in the order of the files.
///
/// A mistake in a template is found again in every compartment that inherits it.
fn tidy(found: impl Iterator<Item = Diagnostic>) -> Vec<Diagnostic> {
    let mut tidy: Vec<Diagnostic> = Vec::new();
    let mut first: BTreeMap<(Option<crate::Span>, String), usize> = BTreeMap::new();
    for diagnostic in found {
        match first.entry((diagnostic.place, diagnostic.message.clone())) {
            std::collections::btree_map::Entry::Occupied(at) => {
                let known = &mut tidy[*at.get()];
                for concern in diagnostic.concerns {
                    if !known.concerns.contains(&concern) {
                        known.concerns.push(concern);
                    }
                }
            }
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(tidy.len());
                tidy.push(diagnostic);
            }
        }
    }
    // Findings about no place come last.
    tidy.sort_by_key(|diagnostic| (diagnostic.place.is_none(), diagnostic.place));
    tidy
}

/// Fills in the compartments, images and networks that no error concerns.
fn keep_valid(settings: &mut Settings, drafts: Vec<Draft<'_>>, diagnostics: &[Diagnostic]) {
    let mut reasons: BTreeMap<&Concern, &str> = BTreeMap::new();
    for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
        for concern in &diagnostic.concerns {
            reasons.entry(concern).or_insert(&diagnostic.message);
        }
    }
    for draft in drafts {
        let reason = draft.needs.iter().find_map(|need| reasons.get(need));
        match (reason, draft.compartment) {
            (None, Some(compartment)) => {
                settings.compartments.insert(compartment.name.clone(), compartment);
            }
            (reason, _) => {
                // Every refusal is accompanied by an error; the text is for the impossible case.
                let reason = reason.map_or("could not be read", |reason| reason);
                settings.broken.insert(draft.declared.name.to_owned(), reason.to_owned());
            }
        }
    }
    let sound = |concern: Concern| !reasons.contains_key(&concern);
    settings.images.retain(|name, _| sound(Concern::Image(name.to_string())));
    settings.networks.retain(|name, _| sound(Concern::Network(name.to_string())));
    let compartments = &settings.compartments;
    for network in settings.networks.values_mut() {
        network.clients.retain(|client| compartments.contains_key(client));
    }
}
