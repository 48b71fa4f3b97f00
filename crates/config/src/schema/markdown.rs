//! The reference of all settings, generated from the schema.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::schema::{Fallback, Key, Kind, Section, compartment, top};
use crate::shipped;

/// The reference page: every section with every key, its kind, default and meaning.
pub fn reference_markdown() -> String {
    let mut out = String::from(
        "# Configuration reference\n\nGenerated from the schema; do not edit.\n\n\
         TOML or JSON, the same keys. Inheritance: what a compartment sets wins over its template, \
         that over the template's own template, and all over `[defaults]`. Single values override, \
         tables merge by key, lists replace.\n",
    );
    let mut seen = BTreeSet::new();
    section(&top::TOP, &mut out, &mut seen);
    out
}

fn section(section_: &'static Section, out: &mut String, seen: &mut BTreeSet<&'static str>) {
    if !seen.insert(section_.title) {
        return;
    }
    let title = if section_.header.is_empty() { "Top level" } else { section_.header };
    let title = if title.starts_with('[') { format!("`{title}`") } else { title.to_owned() };
    // Templates and defaults have the keys of a compartment.
    if std::ptr::eq(section_, &compartment::TEMPLATE_TABLE)
        || std::ptr::eq(section_, &compartment::DEFAULTS)
    {
        let all: BTreeSet<&str> = section_.keys.iter().map(|key| key.name).collect();
        let allowed: BTreeSet<&str> = section_.allowed().map(|key| key.name).collect();
        let without: Vec<String> =
            all.difference(&allowed).map(|name| format!("`{name}`")).collect();
        let _ = write!(
            out,
            "\n## {title}\n\n{}\n\nThe keys of `[compartment.NAME]`, without {}.\n",
            section_.doc,
            without.join(" and ")
        );
        if std::ptr::eq(section_, &compartment::TEMPLATE_TABLE) {
            let shipped = shipped::TEMPLATES.trim_end();
            let _ = write!(
                out,
                "\nThese exist without being declared. A declared one of the same name takes their \
                 place.\n\n```toml\n{shipped}\n```\n"
            );
        }
        return;
    }
    let _ = write!(
        out,
        "\n## {title}\n\n{}\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
        section_.doc
    );
    for key in section_.keys {
        let meaning = key.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let cells =
            [format!("`{}`", key.name), kind(&key.kind), default(key), meaning + &words(&key.kind)];
        let _ = writeln!(out, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    for key in section_.keys {
        for nested in tables(&key.kind) {
            section(nested, out, seen);
        }
    }
    if let Some(rest) = section_.rest {
        for nested in tables(&rest.of) {
            section(nested, out, seen);
        }
    }
}

/// The sections a value may be made of.
pub(crate) fn tables(kind: &'static Kind) -> Vec<&'static Section> {
    match kind {
        Kind::Table(section) => vec![section],
        Kind::List(of) => tables(of),
        Kind::Map(map) => tables(&map.of),
        Kind::Either(kinds) => kinds.iter().flat_map(tables).collect(),
        _ => Vec::new(),
    }
}

fn kind(kind_: &Kind) -> String {
    match kind_ {
        Kind::Bool => "true or false".into(),
        Kind::Only(flag) => format!("`{flag}`"),
        Kind::Integer { min, max } if *min == i64::MIN && *max == i64::MAX => "whole number".into(),
        Kind::Integer { min, max } => format!("whole number, {min} to {max}"),
        Kind::Number(numbers) => {
            numbers.iter().map(|number| format!("`{number}`")).collect::<Vec<_>>().join(" or ")
        }
        Kind::Size { .. } => "size".into(),
        Kind::Text(format) => format.what.into(),
        Kind::Prose => "text".into(),
        Kind::HostPath => "path".into(),
        Kind::Word(words) => {
            words.iter().map(|word| format!("`\"{}\"`", word.word)).collect::<Vec<_>>().join(", ")
        }
        Kind::List(of) => format!("list: {}", kind(of)),
        Kind::Table(_) => "table".into(),
        Kind::Map(map) => format!("table by name: {}", kind(&map.of)),
        Kind::Either(kinds) => kinds.iter().map(kind).collect::<Vec<_>>().join(", or "),
    }
}

fn default(key: &Key) -> String {
    match &key.fallback {
        Fallback::Required => "*required*".into(),
        Fallback::Unset(what) => (*what).into(),
        Fallback::Bool(flag) => format!("`{flag}`"),
        Fallback::Integer(number) => format!("`{number}`"),
        Fallback::Text(text) => format!("`\"{text}\"`"),
        Fallback::Empty => "empty".into(),
    }
}

fn words(kind_: &Kind) -> String {
    match kind_ {
        Kind::Word(words) => words
            .iter()
            .map(|word| {
                let doc = word.doc.trim().trim_end_matches('.');
                format!(" `\"{}\"`: {doc}.", word.word)
            })
            .collect(),
        _ => String::new(),
    }
}
