//! Tables laid over each other: how templates, defaults and drop-ins combine.
//!
//! The rule: single values override, tables merge by key, lists replace. A `View` keeps its tables
//! nearest first and copies nothing.

use std::path::{Path, PathBuf};

use crate::schema::{Fallback, Key, Place};
use crate::source::{Environment, Origin, Source};
use crate::tree::{Entry, Node, Table, Value};
use crate::value::path;
use crate::value::size::Size;

/// What reading needs beside the tree.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) sources: &'a [Source],
    pub(crate) env: &'a Environment,
}

impl Context<'_> {
    pub(crate) fn source_of(&self, node: &Node) -> Option<&Source> {
        self.sources.get(node.span.source as usize)
    }

    /// The path a text node means.
    pub(crate) fn path(&self, node: &Node) -> Result<PathBuf, crate::Flaw> {
        let source = self.source_of(node);
        let text = node.as_text().unwrap_or_default();
        if text.starts_with('~') && source.is_some_and(|source| source.origin == Origin::System) {
            return Err(crate::Flaw::new("`~` has no meaning in the system's configuration")
                .hint("it would be another folder for every reader; write an absolute path"));
        }
        let folder = source.map_or(Path::new(""), Source::folder);
        path::resolve(text, folder, self.env.home.as_deref())
    }
}

/// Tables that apply together, the nearest first.
///
/// Reading takes only what fits; what does not was reported by `check` and counts as not written.
#[derive(Clone)]
pub(crate) struct View<'a> {
    context: Context<'a>,
    tables: Vec<&'a Table>,
}

impl<'a> View<'a> {
    pub(crate) fn new(context: Context<'a>, tables: Vec<&'a Table>) -> Self {
        Self { context, tables }
    }

    /// The same over one table: an element of a list, which nothing is merged into.
    pub(crate) fn of(&self, table: &'a Table) -> Self {
        Self { context: self.context, tables: vec![table] }
    }

    pub(crate) fn context(&self) -> Context<'a> {
        self.context
    }

    pub(crate) fn entry(&self, key: &Key) -> Option<&'a Entry> {
        // What may not stand in every table is not inherited either.
        let reach = if key.place == Place::Anywhere { self.tables.len() } else { 1 };
        self.tables.iter().take(reach).find_map(|table| table.entry(key.name))
    }

    /// The value in force.
    pub(crate) fn node(&self, key: &Key) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// Whether the nearest table has the key itself, not by inheritance.
    pub(crate) fn is_own(&self, key: &Key) -> bool {
        self.tables.first().is_some_and(|table| table.get(key.name).is_some())
    }

    pub(crate) fn flag(&self, key: &Key) -> bool {
        match self.node(key).map(|node| &node.value) {
            Some(Value::Bool(flag)) => *flag,
            _ => matches!(key.fallback, Fallback::Bool(true)),
        }
    }

    pub(crate) fn integer(&self, key: &Key) -> Option<i64> {
        match self.node(key).map(|node| &node.value) {
            Some(Value::Integer(Some(number))) => Some(*number),
            _ => match key.fallback {
                Fallback::Integer(number) => Some(number),
                _ => None,
            },
        }
    }

    pub(crate) fn size(&self, key: &Key) -> Option<Size> {
        self.node(key).and_then(size).or(match key.fallback {
            Fallback::Integer(mib) => u64::try_from(mib).ok().and_then(Size::from_mib),
            _ => None,
        })
    }

    /// A word or a text with a rule; else the fallback.
    pub(crate) fn text<T: std::str::FromStr>(&self, key: &Key) -> Option<T> {
        let written = self.node(key).and_then(Node::as_text).and_then(|text| text.parse().ok());
        written.or_else(|| match key.fallback {
            Fallback::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    pub(crate) fn path(&self, key: &Key) -> Option<PathBuf> {
        let node = self.node(key).filter(|node| node.as_text().is_some())?;
        self.context.path(node).ok()
    }

    pub(crate) fn list(&self, key: &Key) -> &'a [Node] {
        match self.node(key).map(|node| &node.value) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    pub(crate) fn texts<T: std::str::FromStr>(&self, key: &Key) -> Vec<T> {
        let texts = self.list(key).iter().filter_map(Node::as_text);
        texts.filter_map(|text| text.parse().ok()).collect()
    }

    /// The elements of a list that are tables, each with its place.
    pub(crate) fn tables(&self, key: &Key) -> Vec<(&'a Node, View<'a>)> {
        let list = self.list(key).iter();
        list.filter_map(|node| Some((node, self.of(node.as_table()?)))).collect()
    }

    /// The tables under a key, merged.
    pub(crate) fn table(&self, key: &Key) -> View<'a> {
        self.under(key.name)
    }

    fn under(&self, name: &str) -> View<'a> {
        let written = self.tables.iter().filter_map(|table| table.get(name));
        View { context: self.context, tables: written.map_while(Node::as_table).collect() }
    }

    /// All keys of the merged table with the value in force, sorted.
    pub(crate) fn entries(&self) -> Vec<&'a Entry> {
        let mut entries: Vec<&'a Entry> = Vec::new();
        for table in &self.tables {
            for entry in &table.entries {
                if !entries.iter().any(|nearer| nearer.key == entry.key) {
                    entries.push(entry);
                }
            }
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries
    }

    /// The sub-tables of a table by name, each merged.
    pub(crate) fn named(&self, key: &Key) -> Vec<(&'a Entry, View<'a>)> {
        let table = self.table(key);
        let entries = table.entries().into_iter();
        entries.map(|entry| (entry, table.under(&entry.key))).collect()
    }
}

/// A size as a node has it.
pub(crate) fn size(node: &Node) -> Option<Size> {
    match &node.value {
        Value::Integer(Some(mib)) => u64::try_from(*mib).ok().and_then(Size::from_mib),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}
