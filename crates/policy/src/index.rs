//! The rules compiled for one system: which rules each caller, each target and each call can meet,
//! as sets that are intersected.
//!
//! A decision is three look-ups by name and a walk over words of 64 rules. What it costs in memory
//! is a bit for each rule and each compartment (three times), so it grows with their product and
//! with nothing a single line could blow up.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::bits::{Bits, RuleSet};
use crate::choices::{Choices, Expansion};
use crate::request::Caller;
use crate::rule::Rule;
use crate::system::System;
use crate::token::Token;

/// Numbers of rules, in order.
type List = Vec<u32>;

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

/// The rules by what they match.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    total: usize,
    any_service: Option<RuleSet>,
    by_service: HashMap<Box<str>, Calls>,
    source_words: HashMap<Token, List>,
    target_words: HashMap<Token, List>,
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
        let mut calls: HashMap<&str, (List, HashMap<&str, List>)> = HashMap::new();
        let mut sources: HashMap<&Token, List> = HashMap::new();
        let mut targets: HashMap<&Token, List> = HashMap::new();
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
        let set = |list: List| (!list.is_empty()).then(|| RuleSet::new(list, total));
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
        let owned = |words: HashMap<&Token, List>| {
            words.into_iter().map(|(word, list)| (word.clone(), list)).collect()
        };
        let (source_words, target_words) = (owned(sources), owned(targets));
        let rows = |words: &HashMap<Token, List>, source: bool| -> Vec<Bits> {
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
fn row(total: usize, words: &[Token], by_word: &HashMap<Token, List>) -> Bits {
    let mut bits = Bits::new(total);
    for rule in words.iter().filter_map(|word| by_word.get(word)).flatten() {
        bits.insert(*rule as usize);
    }
    bits
}
