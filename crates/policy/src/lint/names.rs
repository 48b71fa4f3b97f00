//! Names in a policy that nothing has.

use std::collections::BTreeSet;

use casemate_config::{Diagnostic, Span, nearest};

use crate::policy::Policy;
use crate::rule::{Action, Place, Rule};
use crate::system::System;
use crate::token::{Redirect, Token, Uuid};

/// What names there are.
pub(super) struct Names<'a> {
    policy: &'a Policy,
    system: &'a System,
    tags: BTreeSet<&'a str>,
    types: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn of(policy: &'a Policy, system: &'a System) -> Self {
        let all = || system.compartments().iter().chain([system.host()]);
        Self {
            policy,
            system,
            tags: all().flat_map(|c| &c.tags).map(String::as_str).collect(),
            types: all().map(|c| c.compartment_type.as_str()).collect(),
        }
    }

    /// The names in a rule that nothing has.
    pub(super) fn check(&self, rule: &Rule, found: &mut Vec<Diagnostic>) {
        let redirects = match &rule.action {
            Action::Allow(permission) => [permission.target.as_ref(), None],
            Action::Ask { permission, default_target } => {
                [permission.target.as_ref(), default_target.as_ref()]
            }
            Action::Deny { .. } | Action::Quarantine => [None, None],
        };
        let place = rule.place;
        self.word(&rule.source, place, found);
        if rule.target != rule.source {
            self.word(&rule.target, place, found);
        }
        for redirect in redirects.into_iter().flatten() {
            match redirect {
                Redirect::Name(name) | Redirect::DisposableOf(name) => {
                    self.compartment(name, place, found);
                }
                Redirect::Uuid(uuid) if self.system.index_of_uuid(*uuid).is_none() => {
                    self.uuid(*uuid, place, found);
                }
                Redirect::Uuid(_) | Redirect::Host | Redirect::Disposable => {}
            }
        }
    }

    fn word(&self, word: &Token, place: Place, found: &mut Vec<Diagnostic>) {
        match word {
            Token::Name(name) | Token::DisposableOf(name) => self.compartment(name, place, found),
            Token::Uuid(uuid) if self.system.index_of_uuid(*uuid).is_none() => {
                self.uuid(*uuid, place, found);
            }
            Token::Tag(tag) | Token::DisposableOfTag(tag) if !self.tags.contains(&**tag) => {
                let message = format!("no compartment has the tag `{tag}`");
                found.push(meant(self.nobody(message, place, tag), tag, self.tags.iter().copied()));
            }
            Token::Type(kind) if !self.types.contains(&**kind) => {
                let message = format!("no compartment is of type `{kind}`");
                found.push(meant(
                    self.nobody(message, place, kind),
                    kind,
                    self.types.iter().copied(),
                ));
            }
            _ => {}
        }
    }

    fn uuid(&self, uuid: Uuid, place: Place, found: &mut Vec<Diagnostic>) {
        let message = format!("no compartment has the UUID {uuid}");
        found.push(self.nobody(message, place, &uuid.to_string()));
    }

    /// A warning at the first word of a rule that ends in `name`.
    fn nobody(&self, message: String, place: Place, name: &str) -> Diagnostic {
        let words = self.policy.text(place).split([' ', '\t', ',']);
        let mut start = place.span.start as usize;
        for word in words {
            if word.ends_with(name) {
                let word = start..start + word.len();
                return Diagnostic::warning(message).at(Span::new(place.span.source, word));
            }
            start += word.len() + 1;
        }
        Diagnostic::warning(message).at(place.span)
    }

    fn compartment(&self, name: &str, place: Place, found: &mut Vec<Diagnostic>) {
        if self.system.index(name).is_none() {
            let known = self.system.compartments().iter().map(|c| c.name.as_str());
            let message = format!("there is no compartment `{name}`");
            found.push(meant(self.nobody(message, place, name), name, known));
        }
    }
}

fn meant<'a>(
    warning: Diagnostic,
    written: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Diagnostic {
    let same = known.clone().find(|known| known.eq_ignore_ascii_case(written));
    match same.or_else(|| nearest(written, known)) {
        Some(near) => warning.hint(format!("did you mean `{near}`?")),
        None => warning,
    }
}
