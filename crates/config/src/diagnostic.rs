//! What is wrong, where, and whom it keeps from working.

use crate::flaw::Flaw;
use crate::source::{Origin, Span};
use crate::value::choice::EngineKind;

/// One finding about the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether anything is refused because of it.
    pub severity: Severity,
    /// One sentence without a full stop.
    pub message: String,
    /// Where it stands; `None` for findings about the whole.
    pub place: Option<Span>,
    /// What to know about other places, or about the same.
    pub related: Vec<Related>,
    /// How to mend it.
    pub hint: Option<String>,
    /// What cannot be used while it lasts.
    pub concerns: Vec<Concern>,
}

/// Another place that explains a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub place: Span,
    /// What stands there.
    pub text: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// What it concerns is refused.
    Error,
    /// Most likely not what was meant; nothing is refused.
    Warning,
}

/// A part of the configuration that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// Every compartment of this origin; a finding about the system's concerns users' too.
    Everything(Origin),
    /// One compartment.
    Compartment(String),
    /// One template, and so all that inherit from it.
    Template(String),
    /// One image, and so all that start from it.
    Image(String),
    /// One virtual network, and so all its members.
    Network(String),
    /// One engine, and so all that run on it.
    Engine(EngineKind),
    /// The switch, and so all members of virtual networks.
    Switch,
}

impl Diagnostic {
    /// An error about the whole.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            place: None,
            related: Vec::new(),
            hint: None,
            concerns: Vec::new(),
        }
    }

    /// A warning about the whole.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    pub(crate) fn of_flaw(flaw: Flaw, place: Span) -> Self {
        Self { hint: flaw.hint, ..Self::error(flaw.message).at(place) }
    }

    /// With its place.
    pub fn at(mut self, place: Span) -> Self {
        self.place = Some(place);
        self
    }

    pub(crate) fn at_some(mut self, place: Option<Span>) -> Self {
        self.place = place;
        self
    }

    /// With another place that explains it.
    pub fn related(mut self, place: Span, text: impl Into<String>) -> Self {
        self.related.push(Related { place, text: text.into() });
        self
    }

    /// With how to mend it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn concerning(mut self, concern: Concern) -> Self {
        self.concerns.push(concern);
        self
    }

    /// Whether what it concerns is refused.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
