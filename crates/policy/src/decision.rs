//! What a policy says about a call.

use std::cmp::Ordering;
use std::fmt;

use crate::token::Redirect;

/// What is decided. Rules are named by their index in the order of evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Refused.
    Deny {
        /// Why.
        reason: Reason<'a>,
        /// The rule that matched, if any.
        rule: Option<usize>,
        /// Whether the user is told.
        notify: bool,
    },
    /// Done.
    Allow {
        /// The rule that matched.
        rule: usize,
        /// Where the call goes.
        target: Destination<'a>,
        /// Who the service runs as; the target's default when `None`.
        user: Option<&'a str>,
        /// Whether the user is told.
        notify: bool,
        /// Whether the target is started for it.
        autostart: bool,
    },
    /// The user decides.
    Ask {
        /// The rule that matched.
        rule: usize,
        /// What he may choose from, never empty, in the order of their text.
        choices: Vec<Destination<'a>>,
        /// The one that is offered first; always one of them.
        default: Option<Destination<'a>>,
        /// Who the service runs as; the target's default when `None`.
        user: Option<&'a str>,
        /// Whether the user is told.
        notify: bool,
        /// Whether the target is started for it.
        autostart: bool,
    },
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    /// A rule says so.
    Rule,
    /// No rule matches.
    NoRule,
    /// A file with errors stands before every rule that could decide.
    Quarantine,
    /// No disposable can be made from this.
    NoTemplate(&'a str),
    /// A rule sends the call to a compartment that is not there.
    NoSuchTarget(&'a Redirect),
    /// Neither the caller nor the rule names a target.
    NoTarget,
    /// The caller has no default disposable.
    NoDefaultDisposable,
    /// The target is down and the rule does not start it.
    NotRunning,
    /// A compartment cannot call itself.
    Loopback,
    /// There is nothing to choose from.
    NoChoice,
}

/// Where a call can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination<'a> {
    /// The host.
    Host,
    /// A compartment.
    Compartment(&'a str),
    /// A fresh disposable made from this compartment.
    DisposableOf(&'a str),
    /// A fresh disposable of the caller's default template. Only a question with `target=@dispvm`
    /// leaves it at that.
    Disposable,
}

impl Destination<'_> {
    /// The words it is written with.
    fn parts(&self) -> (&str, &str) {
        match self {
            Self::Host => ("dom0", ""),
            Self::Compartment(name) => (name, ""),
            Self::DisposableOf(name) => ("@dispvm:", name),
            Self::Disposable => ("@dispvm", ""),
        }
    }
}

impl Ord for Destination<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((a, b), (c, d)) = (self.parts(), other.parts());
        a.bytes().chain(b.bytes()).cmp(c.bytes().chain(d.bytes()))
    }
}

impl PartialOrd for Destination<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Destination<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = self.parts();
        formatter.write_str(first)?;
        formatter.write_str(second)
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule => formatter.write_str("a rule denies it"),
            Self::NoRule => formatter.write_str("no rule matches"),
            Self::Quarantine => formatter.write_str(
                "no rule before a file with errors decides, and what stands \
                     in that file is not known",
            ),
            Self::NoTemplate(name) => write!(formatter, "no disposable is made from `{name}`"),
            Self::NoSuchTarget(target) => {
                write!(formatter, "the rule sends it to `{target}`, which does not exist")
            }
            Self::NoTarget => formatter.write_str("neither the call nor the rule names a target"),
            Self::NoDefaultDisposable => {
                formatter.write_str("the caller has no default disposable")
            }
            Self::NotRunning => {
                formatter.write_str("the target is not running, and the rule does not start it")
            }
            Self::Loopback => formatter.write_str("a compartment does not call itself"),
            Self::NoChoice => formatter.write_str("there is nothing to choose from"),
        }
    }
}

impl Decision<'_> {
    /// The rule that matched, if any.
    pub fn rule(&self) -> Option<usize> {
        match self {
            Self::Deny { rule, .. } => *rule,
            Self::Allow { rule, .. } | Self::Ask { rule, .. } => Some(*rule),
        }
    }
}
