//! JSON to the tree.

use jsonc_parser::ast::{Object, Value as Json};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use crate::diagnostic::Diagnostic;
use crate::parse::{MAX_DEPTH, too_deep};
use crate::source::Span;
use crate::tree::{Entry, Node, Table, Value};

/// RFC 8259 and nothing beyond.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

pub(super) fn read(source: u32, text: &str) -> (Table, Vec<Diagnostic>) {
    let mut reader = Reader { source, diagnostics: Vec::new() };
    let table = match parse_to_ast(text, &CollectOptions::default(), &STRICT) {
        Ok(parsed) => match parsed.value {
            Some(Json::Object(object)) => reader.table(object, 0),
            Some(other) => {
                let range = other.range();
                reader.fail("the configuration must be an object: { … }", range.start..range.end);
                Table::default()
            }
            None => {
                reader.fail("the file is empty; the smallest JSON configuration is {}", 0..0);
                Table::default()
            }
        },
        Err(error) => {
            let range = error.range();
            let reason = error.kind().to_string();
            let message = format!("could not read this as JSON: {}", lower_first(&reason));
            reader.fail(&message, range.start..range.end);
            Table::default()
        }
    };
    (table, reader.diagnostics)
}

/// The parser's sentences begin with a capital letter, ours continue one.
fn lower_first(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

struct Reader {
    source: u32,
    diagnostics: Vec<Diagnostic>,
}

impl Reader {
    fn fail(&mut self, message: &str, place: std::ops::Range<usize>) {
        self.diagnostics.push(Diagnostic::error(message).at(Span::new(self.source, place)));
    }

    fn table(&mut self, object: Object<'_>, depth: usize) -> Table {
        let mut table = Table::default();
        for property in object.properties {
            let name = property.name.range();
            let key_span = Span::new(self.source, name.start..name.end);
            let key = property.name.into_string();
            // A generated file writes null for what is not set.
            if matches!(property.value, Json::NullKeyword(_)) {
                continue;
            }
            if let Some(earlier) = table.entry(&key) {
                self.diagnostics.push(
                    Diagnostic::error(format!("`{key}` is written twice"))
                        .at(key_span)
                        .related(earlier.key_span, "first here"),
                );
                continue;
            }
            let node = self.node(property.value, depth + 1);
            table.entries.push(Entry { key, key_span, node });
        }
        table
    }

    fn node(&mut self, json: Json<'_>, depth: usize) -> Node {
        let range = json.range();
        let span = Span::new(self.source, range.start..range.end);
        if matches!(json, Json::Object(_) | Json::Array(_)) && depth > MAX_DEPTH {
            self.diagnostics.push(too_deep(span));
            return Node { span, value: Value::Other("something nested too deeply") };
        }
        let value = match json {
            Json::StringLit(text) => Value::Text(text.value.into_owned()),
            Json::NumberLit(number) if number.value.contains(['.', 'e', 'E']) => {
                Value::Other("a number with a fraction or exponent")
            }
            Json::NumberLit(number) => Value::Integer(number.value.parse().ok()),
            Json::BooleanLit(flag) => Value::Bool(flag.value),
            Json::Object(object) => Value::Table(self.table(object, depth)),
            Json::Array(array) => Value::List(
                array.elements.into_iter().map(|item| self.node(item, depth + 1)).collect(),
            ),
            Json::NullKeyword(_) => Value::Other("null"),
        };
        Node { span, value }
    }
}
