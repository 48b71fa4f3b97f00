//! The configuration as written: a neutral tree, the same from TOML and from JSON.
//!
//! Any key and any value may stand here. Every node knows its place.

use crate::source::Span;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// A value of any kind.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Bool(bool),
    /// `None`: beyond 64 bits.
    Integer(Option<i64>),
    Text(String),
    List(Vec<Node>),
    Table(Table),
    /// What no setting is made of; the word names it in messages.
    Other(&'static str),
}

/// Keys in the order they were written; no key twice.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
}

/// One `key = value`.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) node: Node,
}

impl Table {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }
}

impl Node {
    pub(crate) fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for "not text but …".
    pub(crate) fn what(&self) -> &'static str {
        match &self.value {
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            Value::Integer(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(what) => what,
        }
    }

    /// The place of a part of its text. Only possible when the text stands in the file as it is,
    /// without escapes; otherwise the place of the whole.
    pub(crate) fn part(&self, source_text: &str, part: std::ops::Range<usize>) -> Span {
        let whole = self.span.range();
        let Some((text, raw)) = self.as_text().zip(source_text.get(whole.clone())) else {
            return self.span;
        };
        if raw.len() != text.len() + 2 || raw.get(1..raw.len() - 1) != Some(text) {
            return self.span;
        }
        let start = whole.start + 1;
        Span::new(self.span.source, start + part.start..start + part.end)
    }
}
