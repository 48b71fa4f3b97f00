//! The annotated examples load without a word said, and together show every setting there is.
#![allow(clippy::disallowed_methods)] // tests read files

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use casemate_config::{Environment, Format, Origin, Source, json_schema, load};
use serde_json::Value;

fn examples() -> Vec<Source> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/config");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap(),
            format: Format::of_path(&path),
            origin: if path.ends_with("system.toml") { Origin::System } else { Origin::User },
            path: PathBuf::from(path.file_name().unwrap()),
        })
        .collect()
}

fn environment() -> Environment {
    Environment { home: Some("/home/alice".into()), user: "alice".into() }
}

#[test]
fn each_example_stands_on_its_own() {
    let examples = examples();
    assert!(examples.len() >= 8);
    for example in examples {
        let loaded = load(std::slice::from_ref(&example), &environment());
        assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
        assert!(!loaded.settings.compartments.is_empty());
        loaded.settings.assign(&Default::default(), &Default::default()).unwrap();
    }
}

/// Every key of every table of the schema, as `section.key`.
fn all_keys(schema: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let sections = schema["$defs"].as_object().unwrap();
    for (name, section) in sections.iter().chain([(&"top".to_owned(), schema)]) {
        // A template has the keys of a compartment.
        if name != "template" && name != "defaults" {
            let properties = section["properties"].as_object().unwrap();
            keys.extend(properties.keys().map(|key| format!("{name}.{key}")));
        }
    }
    keys
}

/// The keys an example uses: walked along the schema.
fn used(value: &Value, schema: &Value, name: &str, root: &Value, keys: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.trim_start_matches("#/$defs/");
        return used(value, &root["$defs"][name], name, root, keys);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().for_each(|schema| used(value, schema, name, root, keys));
    }
    match value {
        Value::Array(items) => {
            items.iter().for_each(|item| used(item, &schema["items"], "", root, keys));
        }
        Value::Object(table) => {
            for (key, value) in table {
                if let Some(known) = schema["properties"].get(key) {
                    keys.insert(format!("{name}.{key}"));
                    used(value, known, "", root, keys);
                } else {
                    used(value, &schema["additionalProperties"], "", root, keys);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_examples_show_every_setting() {
    let schema = json_schema();
    let mut keys = BTreeSet::new();
    for example in examples() {
        let value: Value = match example.format {
            Format::Toml => toml::from_str(&example.text).unwrap(),
            Format::Json => serde_json::from_str(&example.text).unwrap(),
        };
        used(&value, &schema, "top", &schema, &mut keys);
    }
    let missing: Vec<String> = all_keys(&schema).difference(&keys).cloned().collect();
    assert!(missing.is_empty(), "no example mentions {missing:?}");
}
