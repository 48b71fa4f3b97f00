//! A policy that was read: its rules, its text, and what is wrong with it.

use std::path::{Path, PathBuf};

use casemate_config::{Diagnostic, Span, position, render};

use crate::file::PolicyText;
use crate::rule::{Place, Rule};

/// The rules of a policy in the order of evaluation.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// First match decides.
    pub rules: Vec<Rule>,
    /// What was read; the spans of rules and diagnostics point into it.
    pub documents: Vec<PolicyText>,
    /// What is wrong with it.
    pub diagnostics: Vec<Diagnostic>,
    /// The files whose rules are left out for their errors.
    pub quarantined: Vec<PathBuf>,
}

impl Policy {
    /// Whether any file is wrong.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// File, line and column (from 1) where a span begins.
    pub fn position(&self, span: Span) -> Option<(&Path, usize, usize)> {
        position(&self.documents, span)
    }

    /// The text of a rule as it was written; empty for a file that is left out.
    pub fn text(&self, place: Place) -> &str {
        let span = place.span;
        let document = self.documents.get(span.source as usize);
        document.and_then(|d| d.text.get(span.start as usize..span.end as usize)).unwrap_or("")
    }

    /// The file a rule stands in.
    pub fn path(&self, place: Place) -> &Path {
        let document = self.documents.get(place.span.source as usize);
        document.map_or(Path::new(""), |document| &document.path)
    }

    /// All of `diagnostics` as text.
    pub fn render(&self, diagnostics: &[&Diagnostic], colour: bool) -> String {
        render(&self.documents, diagnostics, colour)
    }
}
