//! The JSON Schema (draft 2020-12) of the configuration, for editors.

use serde_json::{Map as Object, Value, json};

use crate::schema::{Fallback, Key, Kind, Map, Section, top};
use crate::value::text::Format;

/// A JSON Schema of the configuration file, in its TOML and its JSON form alike.
pub fn json_schema() -> Value {
    let mut definitions = Object::new();
    let mut schema = of_section(&top::TOP, &mut definitions);
    if let Value::Object(schema) = &mut schema {
        schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        schema.insert("title".into(), json!("casemate configuration"));
        schema.insert("$defs".into(), Value::Object(definitions));
    }
    schema
}

fn of_section(section: &'static Section, definitions: &mut Object<String, Value>) -> Value {
    let mut properties = Object::new();
    let mut required = Vec::new();
    for key in section.allowed() {
        if matches!(key.fallback, Fallback::Required) {
            required.push(json!(key.name));
        }
        properties.insert(key.name.into(), of_key(key, definitions));
    }
    let rest = match section.rest {
        Some(map) => of_kind(&map.of, definitions),
        None => json!(false),
    };
    let mut schema = json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "additionalProperties": rest,
    });
    if let Value::Object(schema) = &mut schema
        && !required.is_empty()
    {
        schema.insert("required".into(), Value::Array(required));
    }
    schema
}

fn of_key(key: &'static Key, definitions: &mut Object<String, Value>) -> Value {
    let mut schema = of_kind(&key.kind, definitions);
    let default = match &key.fallback {
        Fallback::Required | Fallback::Unset(_) | Fallback::Empty => None,
        Fallback::Bool(flag) => Some(json!(flag)),
        Fallback::Integer(number) => Some(json!(number)),
        Fallback::Text(text) => Some(json!(text)),
    };
    if let Value::Object(schema) = &mut schema {
        let doc = key.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        schema.insert("description".into(), json!(doc));
        if let Some(default) = default {
            schema.insert("default".into(), default);
        }
    }
    schema
}

fn of_kind(kind: &'static Kind, definitions: &mut Object<String, Value>) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Only(flag) => json!({ "const": flag }),
        Kind::Integer { min, max } if *min == i64::MIN && *max == i64::MAX => {
            json!({ "type": "integer" })
        }
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Number(numbers) => json!({ "enum": numbers }),
        Kind::Size { min_mib, max_mib } => json!({ "anyOf": [
            { "type": "integer", "minimum": min_mib, "maximum": max_mib },
            { "type": "string", "pattern": "^\\s*[0-9]+\\s*([KkMmGgTt](i?B|b)?)?\\s*$" },
        ] }),
        Kind::Text(format) => of_format(format),
        Kind::Prose => json!({ "type": "string" }),
        Kind::HostPath => json!({ "type": "string", "minLength": 1 }),
        Kind::Word(words) => {
            let words: Vec<&str> = words.iter().map(|word| word.word).collect();
            json!({ "enum": words })
        }
        Kind::List(of) => json!({ "type": "array", "items": of_kind(of, definitions) }),
        Kind::Table(section) => reference(section, definitions),
        Kind::Map(Map { key, of }) => {
            let names = key.pattern.map_or(json!({}), |pattern| json!({ "pattern": pattern }));
            json!({
                "type": "object",
                "propertyNames": names,
                "additionalProperties": of_kind(of, definitions),
            })
        }
        Kind::Either(kinds) => {
            let any: Vec<Value> = kinds.iter().map(|kind| of_kind(kind, definitions)).collect();
            json!({ "anyOf": any })
        }
    }
}

fn of_format(format: &Format) -> Value {
    match format.pattern {
        Some(pattern) => {
            json!({ "type": "string", "pattern": pattern, "examples": [format.example] })
        }
        None => json!({ "type": "string" }),
    }
}

/// Sections are written once under `$defs`, by title.
fn reference(section: &'static Section, definitions: &mut Object<String, Value>) -> Value {
    let article =
        ["a ", "an ", "the "].into_iter().find_map(|word| section.title.strip_prefix(word));
    let name = article.unwrap_or(section.title).replace("'s", "").replace(' ', "-");
    if !definitions.contains_key(&name) {
        definitions.insert(name.clone(), Value::Null);
        let schema = of_section(section, definitions);
        definitions.insert(name.clone(), schema);
    }
    json!({ "$ref": format!("#/$defs/{name}") })
}
