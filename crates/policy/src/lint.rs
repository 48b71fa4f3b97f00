//! What is allowed and most likely not meant: rules that can never matter, and names of nothing.
//!
//! A rule is called unreachable only when one earlier rule alone matches everything it could match,
//! whatever compartments there are. Two rules that cover a third together are not looked for.

use std::collections::{BTreeSet, HashMap};

use casemate_config::{Diagnostic, Span, nearest};

use crate::parse::Policy;
use crate::rule::{Action, Permission, Place, Rule};
use crate::system::System;
use crate::token::{Redirect, Token, Uuid};

/// Findings that are reported; a policy with more has one cause for most of them.
const MAX_LINTS: usize = 200;

/// What a rule matches, word for word.
type Key<'a> = (Option<&'a str>, Option<&'a str>, &'a Token, &'a Token);

impl Policy {
    /// Warnings about rules that can never match, or match what cannot be done, and about names
    /// that nothing in `system` has.
    pub fn lint(&self, system: &System) -> Vec<Diagnostic> {
        let names = Names::of(self, system);
        let mut seen: HashMap<Key<'_>, usize> = HashMap::new();
        // A line of a file that is included twice is two rules: nothing is said of it as one.
        let mut lines: HashMap<Span, usize> = HashMap::new();
        self.rules.iter().for_each(|rule| *lines.entry(rule.place.span).or_default() += 1);
        let mut found = Vec::new();
        let asks = self.rules.iter().any(offers);
        for (number, rule) in self.rules.iter().enumerate() {
            if found.len() >= MAX_LINTS {
                found.push(Diagnostic::warning("there is more to say; the rest is left out"));
                break;
            }
            if rule.action == Action::Quarantine {
                continue;
            }
            let once = lines.get(&rule.place.span) == Some(&1);
            if let Some(by) = covering(rule, &seen) {
                if !once {
                    continue;
                }
                let warning = Diagnostic::warning("this rule decides nothing").at(rule.place.span);
                let text = "everything it could match, this one matches first";
                let warning = warning.related(self.rules[by].place.span, text);
                found.push(if asks && !matches!(rule.action, Action::Deny { .. }) {
                    warning.hint("questions of the same service may still offer its target")
                } else {
                    warning
                });
            } else {
                names.check(rule, &mut found);
                pointless(rule, system, &mut found);
            }
            seen.entry(key(rule)).or_insert(number);
        }
        found
    }
}

/// Whether the rule asks about what other rules name.
fn offers(rule: &Rule) -> bool {
    matches!(&rule.action, Action::Ask { permission, .. } if permission.target.is_none())
}

fn key(rule: &Rule) -> Key<'_> {
    (rule.service.as_deref(), rule.argument.as_deref(), &rule.source, &rule.target)
}

/// The first of the earlier rules that alone covers this one.
fn covering<'a>(rule: &'a Rule, seen: &HashMap<Key<'a>, usize>) -> Option<usize> {
    let (service, argument, source, target) = key(rule);
    let calls: BTreeSet<_> = [(service, argument), (service, None), (None, None)].into();
    let wider = |token: &'a Token| -> Vec<&'a Token> {
        let all = [Some(token), wide(token), Some(&Token::Everything)];
        all.into_iter().flatten().collect()
    };
    let (sources, targets) = (wider(source), wider(target));
    let mut first: Option<usize> = None;
    for (service, argument) in calls {
        for &source in &sources {
            for &target in &targets {
                if let Some(&number) = seen.get(&(service, argument, source, target)) {
                    first = Some(first.map_or(number, |first| first.min(number)));
                }
            }
        }
    }
    first
}

/// `@anyvm`, when it matches everything the word does: the host may have tags and a type.
fn wide(token: &Token) -> Option<&'static Token> {
    match token {
        Token::Everything | Token::Host | Token::Tag(_) | Token::Type(_) => None,
        _ => Some(&Token::AnyCompartment),
    }
}

/// Rules that match and then can do nothing.
fn pointless(rule: &Rule, system: &System, found: &mut Vec<Diagnostic>) {
    let warning = |message: &str| Diagnostic::warning(message).at(rule.place.span);
    let down = |target: Option<&Redirect>| {
        matches!(target, Some(Redirect::Disposable | Redirect::DisposableOf(_)))
            || (target.is_none()
                && matches!(
                    rule.target,
                    Token::Disposable | Token::DisposableOf(_) | Token::DisposableOfTag(_)
                ))
    };
    let no_template = |target: Option<&Redirect>| match (target, &rule.target) {
        (Some(Redirect::DisposableOf(name)), _) | (None, Token::DisposableOf(name)) => {
            system.named(name).is_some_and(|compartment| !compartment.disposable_template)
        }
        _ => false,
    };
    match &rule.action {
        Action::Allow(permission) => {
            let target = permission.target.as_ref();
            if !permission.autostart && down(target) {
                found.push(
                    warning("this rule refuses what it matches: no disposable runs already")
                        .hint("leave out autostart=no"),
                );
            }
            if itself(rule, permission) {
                found.push(warning(
                    "this rule refuses what it matches: a compartment does not call itself",
                ));
            }
            if no_template(target) {
                found.push(template_missing(warning(
                    "no disposable can be made from what this names",
                )));
            }
        }
        Action::Ask { permission, default_target } => {
            let target = permission.target.as_ref();
            if !permission.autostart && target.is_some() && down(target) {
                found.push(
                    warning("this rule refuses what it matches: no disposable runs already")
                        .hint("leave out autostart=no"),
                );
            }
            if no_template(target) {
                found.push(template_missing(warning(
                    "no disposable can be made from what this names",
                )));
            }
            if let (Some(target), Some(default)) = (target, default_target)
                && (target != default || *default == Redirect::Disposable)
                && !matches!((target, default), (Redirect::DisposableOf(_), Redirect::Disposable))
                && !matches!((target, default), (Redirect::Uuid(_), Redirect::Name(_)))
                && !matches!((target, default), (Redirect::Name(_), Redirect::Uuid(_)))
            {
                found.push(
                    warning("default_target= is none of the choices and is left out")
                        .hint("target= leaves one choice only"),
                );
            }
        }
        Action::Deny { .. } | Action::Quarantine => {}
    }
}

fn template_missing(warning: Diagnostic) -> Diagnostic {
    warning.hint("give the compartment disposable-template = true")
}

/// Whether a call allowed by this rule could only come back to where it came from.
fn itself(rule: &Rule, permission: &Permission) -> bool {
    match (&rule.source, &permission.target) {
        (Token::Name(source), Some(Redirect::Name(target))) => source == target,
        (Token::Uuid(source), Some(Redirect::Uuid(target))) => source == target,
        (Token::Host, Some(Redirect::Host)) => true,
        (Token::Name(_) | Token::Uuid(_) | Token::Host, None) => rule.source == rule.target,
        _ => false,
    }
}

/// What names there are.
struct Names<'a> {
    policy: &'a Policy,
    system: &'a System,
    tags: BTreeSet<&'a str>,
    types: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    fn of(policy: &'a Policy, system: &'a System) -> Self {
        let all = || system.compartments().iter().chain([system.host()]);
        Self {
            policy,
            system,
            tags: all().flat_map(|c| &c.tags).map(String::as_str).collect(),
            types: all().map(|c| c.compartment_type.as_str()).collect(),
        }
    }

    /// The names in a rule that nothing has.
    fn check(&self, rule: &Rule, found: &mut Vec<Diagnostic>) {
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
