//! One table against its section: unknown keys, wrong kinds, values out of range.
//!
//! Works on what was written, file by file, before anything is inherited: a mistake in a template
//! is reported once, where it stands. Rules between settings belong to `build` and `cross`.

mod words;

use crate::diagnostic::{Concern, Diagnostic};
use crate::layers::{Context, size};
use crate::schema::{Fallback, Kind, Map, Section};
use crate::source::{Source, Span};
use crate::tree::{Entry, Node, Table, Value};
use crate::value::choice::{Word, unknown_word};
use crate::value::size::Size;
use crate::value::text::Format;

/// Everything wrong with one file, without regard to others.
pub(crate) fn check(context: Context<'_>, source: &Source, root: &Table) -> Vec<Diagnostic> {
    let concern = Concern::Everything(source.origin);
    let mut checker = Checker { context, concern, found: Vec::new() };
    checker.section(root, &crate::schema::top::TOP, None);
    checker.found
}

struct Checker<'a> {
    context: Context<'a>,
    /// Whom a finding concerns at this point of the tree.
    concern: Concern,
    found: Vec<Diagnostic>,
}

impl Checker<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic.concerning(self.concern.clone()));
    }

    /// `table_span`: where to point at when something is missing.
    fn section(&mut self, table: &Table, section: &'static Section, table_span: Option<Span>) {
        for entry in &table.entries {
            match section.key(&entry.key) {
                Some(key) if key.place.allows(section.role) => {
                    self.owned(entry, &key.kind);
                }
                Some(key) => {
                    let known = format!("`{}` cannot be set in {}", key.name, section.title);
                    self.report(
                        Diagnostic::error(known).at(entry.key_span).hint(words::misplaced(key)),
                    );
                }
                None => match section.rest {
                    Some(map) if entry.node.as_table().is_some() => self.map_entry(entry, map),
                    _ => self.report(words::unknown_key(entry, section)),
                },
            }
        }
        for key in section.allowed() {
            if matches!(key.fallback, Fallback::Required) && table.get(key.name).is_none() {
                self.report(
                    Diagnostic::error(format!("{} needs `{}`", section.title, key.name))
                        .at_some(table_span)
                        .hint(words::explained(key)),
                );
            }
        }
    }

    /// Checks the value; findings within concern what stands under this key.
    fn owned(&mut self, entry: &Entry, kind: &'static Kind) {
        let around = self.concern.clone();
        if let Kind::Table(Section { owner: Some(owner), .. }) = kind
            && let Some(concern) = owner(&entry.key)
        {
            self.concern = concern;
        }
        self.kind(&entry.key, &entry.node, kind, Some(entry.key_span));
        self.concern = around;
    }

    fn map_entry(&mut self, entry: &Entry, map: &'static Map) {
        let around = self.concern.clone();
        if let Kind::Table(Section { owner: Some(owner), .. }) = &map.of
            && let Some(concern) = owner(&entry.key)
        {
            self.concern = concern;
        }
        if let Err(flaw) = (map.key.check)(&entry.key) {
            self.report(Diagnostic::of_flaw(flaw, entry.key_span));
        }
        self.concern = around;
        self.owned(entry, &map.of);
    }

    fn kind(&mut self, name: &str, node: &Node, kind: &'static Kind, key_span: Option<Span>) {
        match (kind, &node.value) {
            (Kind::Bool, Value::Bool(_)) | (Kind::Prose, Value::Text(_)) => {}
            (Kind::Only(only), Value::Bool(flag)) if only == flag => {}
            (Kind::Integer { min, max }, Value::Integer(number)) => {
                if number.is_none_or(|number| number < *min || number > *max) {
                    self.out_of_range(name, node, &format!("from {min} to {max}"));
                }
            }
            (Kind::Number(allowed), Value::Integer(number)) => {
                if number.is_none_or(|number| !allowed.contains(&number)) {
                    let allowed: Vec<String> = allowed.iter().map(i64::to_string).collect();
                    self.out_of_range(name, node, &allowed.join(" or "));
                }
            }
            (Kind::Size { min_mib, max_mib }, Value::Integer(_) | Value::Text(_)) => {
                self.size(name, node, *min_mib, *max_mib);
            }
            (Kind::Text(format), Value::Text(text)) => self.text(node, text, format),
            (Kind::Word(words), Value::Text(text)) => self.word(name, node, text, words),
            (Kind::HostPath, Value::Text(_)) => {
                if let Err(flaw) = self.context.path(node) {
                    self.report(Diagnostic::of_flaw(flaw, node.span));
                }
            }
            (Kind::List(of), Value::List(items)) => {
                for item in items {
                    self.kind(name, item, of, None);
                }
            }
            (Kind::Table(section), Value::Table(table)) => {
                self.section(table, section, Some(key_span.unwrap_or(node.span)));
            }
            (Kind::Map(map), Value::Table(table)) => {
                for entry in &table.entries {
                    self.map_entry(entry, map);
                }
            }
            (Kind::Either(kinds), value) => {
                match kinds.iter().find(|kind| words::fits(kind, value)) {
                    Some(kind) => self.kind(name, node, kind, key_span),
                    None => self.wrong_kind(name, node, kind),
                }
            }
            _ => self.wrong_kind(name, node, kind),
        }
    }

    fn wrong_kind(&mut self, name: &str, node: &Node, kind: &'static Kind) {
        let message = format!("`{name}` must be {}, not {}", words::expected(kind), node.what());
        let hint = self.context.source_of(node).and_then(|source| {
            let raw = source.text.get(node.span.range())?;
            words::rewrite(name, raw, node, kind, source.format)
        });
        let mut diagnostic = Diagnostic::error(message).at(node.span);
        diagnostic.hint = hint;
        self.report(diagnostic);
    }

    fn out_of_range(&mut self, name: &str, node: &Node, range: &str) {
        let message = match node.value {
            Value::Integer(Some(number)) => format!("`{name}` cannot be {number}"),
            _ => format!("`{name}` cannot be that large"),
        };
        self.report(Diagnostic::error(message).at(node.span).hint(format!("it must be {range}")));
    }

    fn size(&mut self, name: &str, node: &Node, min_mib: u64, max_mib: u64) {
        let limits = || {
            let show = |mib| Size::from_mib(mib).map(|size| size.to_string()).unwrap_or_default();
            format!(
                "from {} to {}; a number without a unit counts MiB",
                show(min_mib),
                show(max_mib)
            )
        };
        if let Some(Err(flaw)) = node.as_text().map(str::parse::<Size>) {
            self.report(Diagnostic::of_flaw(flaw, node.span));
            return;
        }
        let size = size(node);
        if size.is_none_or(|size| size.mib() < min_mib || size.mib() > max_mib) {
            let message = match (size, &node.value) {
                (Some(size), _) => format!("`{name}` cannot be {size}"),
                (None, Value::Integer(Some(number))) => format!("`{name}` cannot be {number}"),
                (None, _) => format!("`{name}` cannot be that large"),
            };
            self.report(Diagnostic::error(message).at(node.span).hint(limits()));
        }
    }

    fn text(&mut self, node: &Node, text: &str, format: &'static Format) {
        if let Err(mut flaw) = (format.check)(text) {
            let source_text = self.context.source_of(node).map(|source| source.text.as_str());
            let place = match flaw.range.take() {
                Some(range) => node.part(source_text.unwrap_or_default(), range),
                None => node.span,
            };
            self.report(Diagnostic::of_flaw(flaw, place));
        }
    }

    fn word(&mut self, name: &str, node: &Node, text: &str, words: &[Word]) {
        if !words.iter().any(|word| word.word == text) {
            let mut flaw = unknown_word(text, words);
            flaw.message = format!("`{name}` cannot be {}", crate::value::text::quoted(text));
            self.report(Diagnostic::of_flaw(flaw, node.span));
        }
    }
}
