//! The rules compiled for one system: which rules each caller, each target and each call can meet,
//! as sets that are intersected.
//!
//! A decision is three look-ups by name and a walk over words of 64 rules. What it costs in memory
//! is a bit for each rule and each compartment (three times), so it grows with their product and
//! with nothing a single line could blow up.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::bits::{Bits, RuleSet};
use crate::request::Caller;
use crate::rule::{Action, Rule};
use crate::system::System;
use crate::token::{Redirect, Token};

/// The rules for a service.
#[derive(Clone, Debug, Default)]
struct Calls {
    any_argument: Option<RuleSet>,
    by_argument: HashMap<Box<str>, RuleSet>,
}

/// Where a call shall go, looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Nothing, or nothing that exists.
    Default,
    /// The host.
    Host,
    /// The host, but not by its tags and its type.
    HostWord,
    /// The compartment with this index.
    Compartment(usize),
    /// A fresh disposable of the caller's default template.
    Disposable,
    /// A fresh disposable of the compartment with this index.
    DisposableOf(usize),
}

/// What a rule adds to the choices of a question, or takes from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expansion {
    /// Nothing.
    None,
    /// One choice.
    One(u32),
    /// The set with this index in [`Index::sets`].
    Set(u32),
}

/// The rules by what they match.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    total: usize,
    any_service: Option<RuleSet>,
    by_service: HashMap<Box<str>, Calls>,
    source_words: HashMap<Token, Vec<u32>>,
    target_words: HashMap<Token, Vec<u32>>,
    /// Rules whose SOURCE is the compartment, by index; the host's at the end.
    sources: Vec<Bits>,
    /// Rules whose TARGET is the compartment, by index; the host's at the end.
    targets: Vec<Bits>,
    /// Rules whose TARGET is a disposable of the compartment and nothing wider, by index.
    disposables: Vec<Bits>,
    host_word: Bits,
    default: Bits,
    disposable: Bits,
    /// Rules whose TARGET is `*` or `@anyvm`.
    wide: Bits,
    expansions: Vec<Expansion>,
    sets: Vec<Bits>,
}

/// The rules that match a target.
pub(crate) struct Targets<'a> {
    first: &'a Bits,
    second: Option<Cow<'a, Bits>>,
}

impl Targets<'_> {
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.first.word(index) | self.second.as_ref().map_or(0, |second| second.word(index))
    }

    pub(crate) fn contains(&self, rule: usize) -> bool {
        self.word(rule / 64) >> (rule % 64) & 1 == 1
    }
}

impl Index {
    pub(crate) fn new(rules: &[Rule], system: &System) -> Self {
        let total = rules.len();
        let mut any = Vec::new();
        let mut calls: HashMap<&str, (Vec<u32>, HashMap<&str, Vec<u32>>)> = HashMap::new();
        let mut sources: HashMap<&Token, Vec<u32>> = HashMap::new();
        let mut targets: HashMap<&Token, Vec<u32>> = HashMap::new();
        for (number, rule) in (0..).zip(rules) {
            sources.entry(&rule.source).or_default().push(number);
            targets.entry(&rule.target).or_default().push(number);
            let Some(service) = &rule.service else {
                any.push(number);
                continue;
            };
            let calls = calls.entry(service).or_default();
            match &rule.argument {
                Some(argument) => calls.1.entry(argument).or_default().push(number),
                None => calls.0.push(number),
            }
        }
        let set = |list: Vec<u32>| (!list.is_empty()).then(|| RuleSet::new(list, total));
        let by_service = calls
            .into_iter()
            .map(|(service, (any, by_argument))| {
                let by_argument = by_argument
                    .into_iter()
                    .map(|(argument, list)| (argument.into(), RuleSet::new(list, total)))
                    .collect();
                (service.into(), Calls { any_argument: set(any), by_argument })
            })
            .collect();
        let owned = |words: HashMap<&Token, Vec<u32>>| {
            words.into_iter().map(|(word, list)| (word.clone(), list)).collect()
        };
        let (source_words, target_words) = (owned(sources), owned(targets));
        let rows = |words: &HashMap<Token, Vec<u32>>, source: bool| -> Vec<Bits> {
            let all = system.compartments().iter().map(|compartment| {
                let mut own = System::words(compartment, false);
                if let Some(template) = compartment.made_from.as_ref().filter(|_| source) {
                    own.extend(system.disposable_words(template));
                }
                row(total, &own, words)
            });
            let host = System::words(system.host(), true);
            all.chain([row(total, &host, words)]).collect()
        };
        let wide = [Token::Everything, Token::AnyCompartment];
        let with = |word: Token| row(total, &[wide.as_slice(), &[word]].concat(), &target_words);
        let disposables = system.compartments().iter();
        let mut choices = Choices::new(system);
        Self {
            total,
            any_service: set(any),
            by_service,
            sources: rows(&source_words, true),
            targets: rows(&target_words, false),
            disposables: disposables
                .map(|compartment| system.disposable_words(&compartment.name))
                .map(|words| row(total, &words, &target_words))
                .collect(),
            host_word: row(total, &[Token::Everything, Token::Host], &target_words),
            default: with(Token::Default),
            disposable: with(Token::Disposable),
            wide: row(total, &wide, &target_words),
            expansions: rules.iter().map(|rule| choices.of(rule)).collect(),
            sets: choices.sets,
            source_words,
            target_words,
        }
    }

    /// The rules whose SOURCE is `caller`.
    pub(crate) fn source(&self, caller: Caller<'_>, system: &System) -> Cow<'_, Bits> {
        match caller {
            Caller::Host => Cow::Borrowed(&self.sources[self.sources.len() - 1]),
            Caller::Compartment(name) => match system.index(name) {
                Some(index) => Cow::Borrowed(&self.sources[index]),
                None => {
                    let words =
                        [Token::Everything, Token::AnyCompartment, Token::Name(name.into())];
                    Cow::Owned(row(self.total, &words, &self.source_words))
                }
            },
        }
    }

    /// The rules whose TARGET is `goal`, for a caller with this default template for disposables.
    pub(crate) fn target(
        &self,
        goal: Goal,
        default_disposable: Option<&str>,
        system: &System,
    ) -> Targets<'_> {
        let (first, second) = match goal {
            Goal::Default => (&self.default, None),
            Goal::Host => (&self.targets[self.targets.len() - 1], None),
            Goal::HostWord => (&self.host_word, None),
            Goal::Compartment(index) => (&self.targets[index], None),
            Goal::DisposableOf(index) => {
                (&self.wide, Some(Cow::Borrowed(&self.disposables[index])))
            }
            Goal::Disposable => {
                let second = default_disposable.map(|name| match system.index(name) {
                    Some(index) => Cow::Borrowed(&self.disposables[index]),
                    None => {
                        let words = [Token::DisposableOf(name.into())];
                        Cow::Owned(row(self.total, &words, &self.target_words))
                    }
                });
                (&self.disposable, second)
            }
        };
        Targets { first, second }
    }

    /// The up to three sets of rules for a call: those for its argument, for any, and for any
    /// service.
    pub(crate) fn calls(&self, service: &str, argument: &str) -> [Option<&RuleSet>; 3] {
        let calls = self.by_service.get(service);
        [
            calls.and_then(|calls| calls.by_argument.get(argument)),
            calls.and_then(|calls| calls.any_argument.as_ref()),
            self.any_service.as_ref(),
        ]
    }

    /// The first rule that all three have.
    pub(crate) fn first(
        &self,
        calls: [Option<&RuleSet>; 3],
        source: &Bits,
        target: &Targets<'_>,
    ) -> Option<usize> {
        let mut end = self.total;
        for set in calls.into_iter().flatten() {
            end = set.first(end, |index| source.word(index) & target.word(index)).unwrap_or(end);
        }
        (end < self.total).then_some(end)
    }

    /// All rules of a call that a caller meets, whatever the target.
    pub(crate) fn met(&self, calls: [Option<&RuleSet>; 3], source: &Bits) -> Vec<usize> {
        let mut all = Bits::new(self.total);
        calls.into_iter().flatten().for_each(|set| set.add_to(&mut all));
        all.iter().filter(|rule| source.contains(*rule)).collect()
    }

    /// Adds to the choices what a rule adds, or takes from them what it takes.
    pub(crate) fn apply(&self, rule: usize, takes: bool, choices: &mut Bits) {
        match (self.expansions[rule], takes) {
            (Expansion::None, _) => {}
            (Expansion::One(choice), false) => choices.insert(choice as usize),
            (Expansion::One(choice), true) => choices.remove(choice as usize),
            (Expansion::Set(set), false) => choices.add(&self.sets[set as usize]),
            (Expansion::Set(set), true) => choices.subtract(&self.sets[set as usize]),
        }
    }
}

/// The rules that have one of these words.
fn row(total: usize, words: &[Token], by_word: &HashMap<Token, Vec<u32>>) -> Bits {
    let mut bits = Bits::new(total);
    for rule in words.iter().filter_map(|word| by_word.get(word)).flatten() {
        bits.insert(*rule as usize);
    }
    bits
}

/// What a question can offer, as numbers: compartment *i* is *i*, a disposable of it *n + i*, then
/// the host and a disposable of the caller's default.
pub(crate) struct Choices<'a> {
    system: &'a System,
    known: HashMap<Token, Expansion>,
    sets: Vec<Bits>,
}

impl<'a> Choices<'a> {
    fn new(system: &'a System) -> Self {
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

    fn of(&mut self, rule: &Rule) -> Expansion {
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
