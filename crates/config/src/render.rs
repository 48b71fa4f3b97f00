//! Diagnostics as text for a terminal: file, line, caret, hint.
//!
//! Characters of the files that would steer a terminal are shown as harmless symbols.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Severity};
use crate::source::{Document, Span};

/// All of `diagnostics`, an empty line between them and a newline at the end of each.
///
/// `documents` are what their spans point into.
pub fn render<D: Document>(documents: &[D], diagnostics: &[&Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for diagnostic in diagnostics {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&renderer.render(&[group(documents, diagnostic)]));
        out.push('\n');
    }
    out
}

fn group<'a, D: Document>(documents: &'a [D], diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(one_line(&diagnostic.message));
    let mut group = Group::with_title(title);
    let mut shown: Vec<(u32, Snippet<'a, annotate_snippets::Annotation<'a>>)> = Vec::new();
    let main = diagnostic.place.map(|place| (place, AnnotationKind::Primary, None));
    let others = diagnostic
        .related
        .iter()
        .map(|related| (related.place, AnnotationKind::Context, Some(one_line(&related.text))));
    for (place, kind, text) in main.into_iter().chain(others) {
        let Some(document) = documents.get(place.source as usize) else { continue };
        let annotation = kind.span(visible(document.text(), place)).label(text);
        match shown.iter_mut().find(|(index, _)| *index == place.source) {
            Some((_, snippet)) => *snippet = snippet.clone().annotation(annotation),
            None => shown.push((
                place.source,
                Snippet::source(document.text())
                    .path(document.path().to_string_lossy())
                    .annotation(annotation),
            )),
        }
    }
    for (_, snippet) in shown {
        group = group.element(snippet);
    }
    match &diagnostic.hint {
        Some(hint) => group.element(Level::HELP.with_name("hint").message(one_line(hint))),
        None => group,
    }
}

/// The part of a span to underline: its first line, on character boundaries, within the text.
fn visible(text: &str, place: Span) -> std::ops::Range<usize> {
    let floor = |at: usize| {
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (floor(place.start as usize), floor(place.end as usize));
    let line_end = text[start..].find(['\n', '\r']).map_or(text.len(), |length| start + length);
    start..end.min(line_end).max(start)
}

/// Names come from files: whatever they hold, a message stays in its line.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
