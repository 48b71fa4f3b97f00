//! Several files as one: who declares what, and who declares it twice.

use std::collections::BTreeMap;

use crate::diagnostic::{Concern, Diagnostic};
use crate::schema::{Key, top};
use crate::source::{Origin, Source, Span};
use crate::tree::{Node, Table};

/// A named table and where its name stands.
#[derive(Clone, Copy)]
pub(crate) struct Declared<'a> {
    pub(crate) name: &'a str,
    pub(crate) name_span: Span,
    pub(crate) origin: Origin,
    pub(crate) table: &'a Table,
}

/// Names of one sort, each with its first declaration.
pub(crate) type Names<'a> = BTreeMap<&'a str, Declared<'a>>;

/// All files together.
pub(crate) struct Sections<'a> {
    pub(crate) compartments: Names<'a>,
    pub(crate) templates: Names<'a>,
    /// Templates that come with casemate.
    pub(crate) shipped: Names<'a>,
    pub(crate) images: Names<'a>,
    /// Declared virtual networks; others exist by being named in a compartment.
    pub(crate) networks: Names<'a>,
    /// `[defaults]` of each file that has one, the last file first.
    pub(crate) defaults: Vec<(Origin, &'a Table)>,
    /// Whole files, the last one first.
    pub(crate) roots: Vec<&'a Table>,
    pub(crate) found: Vec<Diagnostic>,
}

impl<'a> Sections<'a> {
    /// The template that `name` means to somebody of this origin: a declared one before a shipped
    /// one, but for the system never a user's where there is a shipped one.
    pub(crate) fn template(&self, name: &str, origin: Origin) -> Option<Declared<'a>> {
        let shipped = self.shipped.get(name);
        match self.templates.get(name) {
            Some(declared) if origin == Origin::System && declared.origin == Origin::User => {
                Some(*shipped.unwrap_or(declared))
            }
            declared => declared.or(shipped).copied(),
        }
    }
}

/// Collects the declarations of files given in order of increasing precedence, and the templates
/// that come with casemate.
pub(crate) fn collect<'a>(
    files: &'a [(&'a Source, Table)],
    shipped: &'a (&'a Source, Table),
) -> Sections<'a> {
    let mut found = Vec::new();
    let mut names = |files: &'a [(&'a Source, Table)],
                     key: &Key,
                     concern: fn(String) -> Concern| {
        let mut names = Names::new();
        for (source, root) in files {
            let Some(table) = root.get(key.name).and_then(Node::as_table) else { continue };
            for entry in &table.entries {
                // `[network]` also holds settings of its own.
                let own_key = std::ptr::eq(key, &top::NETWORK)
                    && top::NETWORK_TABLE.key(&entry.key).is_some();
                let Some(table) = entry.node.as_table().filter(|_| !own_key) else { continue };
                let declared = Declared {
                    name: &entry.key,
                    name_span: entry.key_span,
                    origin: source.origin,
                    table,
                };
                match names.get(declared.name) {
                    None => {
                        names.insert(declared.name, declared);
                    }
                    Some(first) => {
                        let message =
                            format!("{} `{}` is declared in two files", key.name, declared.name);
                        found.push(
                            Diagnostic::error(message)
                                .at(declared.name_span)
                                .related(first.name_span, "first here")
                                .hint("keep one, or rename one")
                                .concerning(concern(declared.name.to_owned())),
                        );
                    }
                }
            }
        }
        names
    };
    let compartments = names(files, &top::COMPARTMENT, Concern::Compartment);
    let templates = names(files, &top::TEMPLATE, Concern::Template);
    let shipped = names(std::slice::from_ref(shipped), &top::TEMPLATE, Concern::Template);
    let images = names(files, &top::IMAGE, Concern::Image);
    let networks = names(files, &top::NETWORK, Concern::Network);
    let newest_first = || files.iter().rev();
    let defaults = newest_first().filter_map(|(source, root)| {
        Some((source.origin, root.get(top::DEFAULTS.name)?.as_table()?))
    });
    Sections {
        compartments,
        templates,
        shipped,
        images,
        networks,
        defaults: defaults.collect(),
        roots: newest_first().map(|(_, root)| root).collect(),
        found,
    }
}
