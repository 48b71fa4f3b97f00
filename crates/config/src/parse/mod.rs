//! From text to the tree; the only place that knows the two syntaxes.

mod json;
mod toml;

use crate::diagnostic::{Concern, Diagnostic};
use crate::source::{Format, Source, Span};
use crate::tree::Table;

/// Deeper nesting than this is refused; the schema itself needs six levels.
const MAX_DEPTH: usize = 32;

/// What was understood of a source, and what was wrong with its syntax.
///
/// After a syntax error the table holds what could be recovered: enough to know which names were
/// declared, not enough to judge them.
pub(crate) fn parse(index: u32, source: &Source) -> (Table, Vec<Diagnostic>) {
    let (table, mut diagnostics) = match source.format {
        Format::Toml => toml::read(index, &source.text),
        Format::Json => json::read(index, &source.text),
    };
    for diagnostic in &mut diagnostics {
        diagnostic.concerns.push(Concern::Everything(source.origin));
    }
    (table, diagnostics)
}

fn too_deep(place: Span) -> Diagnostic {
    Diagnostic::error(format!("more than {MAX_DEPTH} tables or lists within each other"))
        .at(place)
        .hint("no setting is nested that deeply")
}
