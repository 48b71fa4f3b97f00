//! What is allowed and most likely not meant: rules that can never matter, and names of nothing.
//!
//! A rule is called unreachable only when one earlier rule alone matches everything it could match,
//! whatever compartments there are. Two rules that cover a third together are not looked for.

mod names;

use std::collections::{BTreeSet, HashMap};

use casemate_config::{Diagnostic, Span};

use crate::policy::Policy;
use crate::rule::{Action, Permission, Rule};
use crate::system::System;
use crate::token::{Redirect, Token};
use names::Names;

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
