//! TOML to the tree.

use ::toml::de::{DeArray, DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::parse::{MAX_DEPTH, too_deep};
use crate::source::Span;
use crate::tree::{Entry, Node, Table, Value};

pub(super) fn read(source: u32, text: &str) -> (Table, Vec<Diagnostic>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { source, diagnostics: Vec::new() };
    for error in &errors {
        let place = error.span().unwrap_or(0..0);
        reader.diagnostics.push(
            Diagnostic::error(format!("could not read this as TOML: {}", error.message()))
                .at(Span::new(source, place)),
        );
    }
    let table = reader.table(document.get_ref(), 0);
    (table, reader.diagnostics)
}

struct Reader {
    source: u32,
    diagnostics: Vec<Diagnostic>,
}

impl Reader {
    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().clone().into_owned(),
                key_span: Span::new(self.source, key.span()),
                node: self.node(value.get_ref(), value.span(), depth + 1),
            })
            .collect();
        // The parser sorts by name; messages should follow the file.
        entries.sort_by_key(|entry| entry.key_span);
        Table { entries }
    }

    fn list(&mut self, list: &DeArray<'_>, depth: usize) -> Vec<Node> {
        list.iter().map(|item| self.node(item.get_ref(), item.span(), depth + 1)).collect()
    }

    fn node(&mut self, value: &DeValue<'_>, place: std::ops::Range<usize>, depth: usize) -> Node {
        let span = Span::new(self.source, place);
        let nested = matches!(value, DeValue::Array(_) | DeValue::Table(_));
        if nested && depth > MAX_DEPTH {
            self.diagnostics.push(too_deep(span));
            return Node { span, value: Value::Other("something nested too deeply") };
        }
        let value = match value {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(number) => {
                Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
            }
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(_) => Value::Other("a date or time"),
            DeValue::Array(list) => Value::List(self.list(list, depth)),
            DeValue::Table(table) => Value::Table(self.table(table, depth)),
        };
        Node { span, value }
    }
}
