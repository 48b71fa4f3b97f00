//! The result of loading: valid settings, and everything to say about the rest.

use std::collections::BTreeMap;

use crate::diagnostic::{Concern, Diagnostic};
use crate::render;
use crate::settings::Settings;
use crate::source::{self, Source, Span};

/// What `load` found.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is valid.
    pub settings: Settings,
    /// Everything found, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    pub(crate) sources: Vec<Source>,
    /// What each declared compartment needs to be free of errors.
    pub(crate) needs: BTreeMap<String, Vec<Concern>>,
}

impl Loaded {
    /// The files that were read, in the order of their precedence.
    pub fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        // What is shipped is part of the program.
        self.sources.iter().map(|source| source.path.as_path()).filter(|path| path.is_absolute())
    }

    /// All diagnostics as text.
    pub fn render(&self, colour: bool) -> String {
        let all: Vec<&Diagnostic> = self.diagnostics.iter().collect();
        self.render_some(&all, colour)
    }

    /// Some diagnostics as text, those of `Settings::assign` too.
    pub fn render_some(&self, diagnostics: &[&Diagnostic], colour: bool) -> String {
        render::render(&self.sources, diagnostics, colour)
    }

    /// Whether anything at all is refused.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The errors that keep this compartment from working: its own, those of its templates, image
    /// and networks, and those about everything. For an undeclared name only the last.
    pub fn errors_for(&self, name: &str) -> Vec<&Diagnostic> {
        let needs = self.needs.get(name).map(Vec::as_slice).unwrap_or_default();
        self.diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.is_error())
            .filter(|diagnostic| {
                diagnostic.concerns.iter().any(|concern| {
                    needs.contains(concern)
                        || (needs.is_empty() && matches!(concern, Concern::Everything(_)))
                })
            })
            .collect()
    }

    /// The path, line and column (both from 1, in characters) where a span begins.
    pub fn position(&self, span: Span) -> Option<(&std::path::Path, usize, usize)> {
        source::position(&self.sources, span)
    }
}
