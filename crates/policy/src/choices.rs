//! What a question can offer, and what each rule adds to that or takes from it.

use std::collections::HashMap;

use crate::bits::Bits;
use crate::rule::{Action, Rule};
use crate::system::System;
use crate::token::{Redirect, Token};

/// What a rule adds to the choices of a question, or takes from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expansion {
    /// Nothing.
    None,
    /// One choice.
    One(u32),
    /// The set with this index.
    Set(u32),
}

/// What a question can offer, as numbers: compartment *i* is *i*, a disposable of it *n + i*, then
/// the host and a disposable of the caller's default.
pub(crate) struct Choices<'a> {
    system: &'a System,
    known: HashMap<Token, Expansion>,
    /// Those that expansions name.
    pub(crate) sets: Vec<Bits>,
}

impl<'a> Choices<'a> {
    pub(crate) fn new(system: &'a System) -> Self {
        Self { system, known: HashMap::new(), sets: Vec::new() }
    }

    /// How many there are.
    pub(crate) fn count(system: &System) -> usize {
        2 * system.compartments().len() + 2
    }

    /// The number of the host.
    pub(crate) fn host(system: &System) -> usize {
        2 * system.compartments().len()
    }

    /// The number of a disposable of the caller's default.
    pub(crate) fn disposable(system: &System) -> usize {
        2 * system.compartments().len() + 1
    }

    /// What a rule adds or takes.
    pub(crate) fn of(&mut self, rule: &Rule) -> Expansion {
        let permission = match &rule.action {
            Action::Allow(permission) | Action::Ask { permission, .. } => Some(permission),
            Action::Deny { .. } | Action::Quarantine => None,
        };
        match permission.and_then(|permission| permission.target.as_ref()) {
            Some(Redirect::Host) => self.one(Some(Self::host(self.system))),
            Some(Redirect::Disposable) => self.one(Some(Self::disposable(self.system))),
            Some(Redirect::Name(name)) => self.one(self.system.index(name)),
            Some(Redirect::Uuid(uuid)) => self.one(self.system.index_of_uuid(*uuid)),
            Some(Redirect::DisposableOf(name)) => self.disposable_of(name),
            None => self.of_token(&rule.target),
        }
    }

    fn of_token(&mut self, token: &Token) -> Expansion {
        match token {
            Token::Default => Expansion::None,
            Token::Host => self.one(Some(Self::host(self.system))),
            Token::Disposable => self.one(Some(Self::disposable(self.system))),
            Token::Name(name) => self.one(self.system.index(name)),
            Token::Uuid(uuid) => self.one(self.system.index_of_uuid(*uuid)),
            Token::DisposableOf(name) => self.disposable_of(name),
            wide => match self.known.get(wide) {
                Some(known) => *known,
                None => {
                    let made = self.set_of(wide);
                    self.known.insert(wide.clone(), made);
                    made
                }
            },
        }
    }

    fn one(&self, choice: Option<usize>) -> Expansion {
        let choice = choice.and_then(|choice| u32::try_from(choice).ok());
        choice.map_or(Expansion::None, Expansion::One)
    }

    fn disposable_of(&self, name: &str) -> Expansion {
        let index = self.system.index(name).filter(|_| self.system.is_template(name));
        self.one(index.map(|index| self.system.compartments().len() + index))
    }

    fn set_of(&mut self, token: &Token) -> Expansion {
        let compartments = self.system.compartments();
        let host = self.system.host();
        let mut set = Bits::new(Self::count(self.system));
        let mut empty = true;
        let mut add = |choice: usize| {
            set.insert(choice);
            empty = false;
        };
        for (index, compartment) in compartments.iter().enumerate() {
            let template = compartment.disposable_template;
            let (itself, fresh) = match token {
                Token::Everything | Token::AnyCompartment => (true, template),
                Token::Tag(tag) => (compartment.tags.contains(&**tag), false),
                Token::Type(kind) => (*compartment.compartment_type == **kind, false),
                Token::DisposableOfTag(tag) => {
                    (false, template && compartment.tags.contains(&**tag))
                }
                _ => (false, false),
            };
            if itself {
                add(index);
            }
            if fresh {
                add(compartments.len() + index);
            }
        }
        let with_host = match token {
            Token::Everything => true,
            Token::Tag(tag) => host.tags.contains(&**tag),
            Token::Type(kind) => *host.compartment_type == **kind,
            _ => false,
        };
        if with_host {
            add(Self::host(self.system));
        }
        if matches!(token, Token::Everything | Token::AnyCompartment) {
            add(Self::disposable(self.system));
        }
        if empty {
            return Expansion::None;
        }
        self.sets.push(set);
        Expansion::Set(u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX))
    }
}
