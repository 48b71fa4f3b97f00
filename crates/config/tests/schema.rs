//! The generated pages: what they say is what the reader does.
#![allow(clippy::disallowed_methods)] // tests read files and the environment

use std::fs;
use std::path::Path;

use casemate_config::{Environment, Format, Origin, Source, json_schema, load, reference_markdown};
use serde_json::Value;

#[test]
fn the_reference_is_as_expected() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference.md");
    let text = reference_markdown();
    if std::env::var_os("CASEMATE_BLESS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap_or_default(), text, "CASEMATE_BLESS=1 rewrites it");
}

#[test]
fn every_section_of_the_json_schema_is_closed_and_explained() {
    let schema = json_schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    for (name, section) in schema["$defs"].as_object().unwrap() {
        let rest = &section["additionalProperties"];
        assert!(*rest == Value::Bool(false) || name == "network-table", "{name} is open");
        for (key, property) in section["properties"].as_object().unwrap() {
            let explained = property["description"].as_str().is_some_and(|text| text.len() > 8);
            assert!(explained, "{name}.{key} is not explained");
        }
    }
}

/// A default that is written down changes nothing.
#[test]
fn defaults_of_the_schema_are_valid_and_are_the_defaults() {
    let schema = json_schema();
    let defaults = schema["$defs"]["compartment"]["properties"].as_object().unwrap();
    let table: serde_json::Map<String, Value> = defaults
        .iter()
        .filter_map(|(key, property)| Some((key.clone(), property.get("default")?.clone())))
        .collect();
    assert!(table.len() > 10);
    let of = |compartment: Value| {
        let source = Source {
            path: "casemate.json".into(),
            text: serde_json::json!({ "compartment": { "a": compartment } }).to_string(),
            format: Format::Json,
            origin: Origin::System,
        };
        let loaded = load(&[source], &Environment { home: None, user: "root".into() });
        assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
        loaded.settings
    };
    let (written, unwritten) = (of(Value::Object(table)), of(serde_json::json!({})));
    assert_eq!(written.compartments, unwritten.compartments);
}
