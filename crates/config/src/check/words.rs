//! The wording of findings: what was expected, what was probably meant.

use crate::diagnostic::Diagnostic;
use crate::schema::markdown::tables;
use crate::schema::{Key, Kind, Place, Role, Section};
use crate::source::Format;
use crate::suggest;
use crate::tree::{Entry, Node, Value};

/// Words from other systems for settings of a compartment.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("autorun", "autostart"),
    ("cores", "cpus"),
    ("dispvm", "disposable"),
    ("disks", "additional-disks"),
    ("gui", "gpu"),
    ("hypervisor", "engine"),
    ("maxmem", "memory"),
    ("mem", "memory"),
    ("netvm", "networks"),
    ("network", "networks"),
    ("packages", "programs"),
    ("ram", "memory"),
    ("vcpu", "cpus"),
    ("vcpus", "cpus"),
];

pub(super) fn unknown_key(entry: &Entry, section: &'static Section) -> Diagnostic {
    let name = crate::value::text::quoted(&entry.key);
    let diagnostic = Diagnostic::error(format!("{name} is not a setting of {}", section.title))
        .at(entry.key_span);
    let hint = match section.role {
        Role::Other => None,
        _ => OTHER_WORDS.iter().find(|(word, _)| *word == entry.key).map(|(_, known)| *known),
    };
    let hint = hint
        .or_else(|| suggest::nearest(&entry.key, section.allowed().map(|key| key.name)))
        .map(|near| format!("did you mean `{near}`?"))
        .or_else(|| below(&entry.key, section))
        .unwrap_or_else(|| all_keys(section));
    diagnostic.hint(hint)
}

/// The key exists, one table further down.
fn below(name: &str, section: &'static Section) -> Option<String> {
    section.allowed().find_map(|key| {
        let Kind::Table(nested) = key.kind else { return None };
        nested.key(name).map(|found| format!("did you mean `{}.{}`?", key.name, found.name))
    })
}

fn all_keys(section: &'static Section) -> String {
    let known: Vec<&str> = section.allowed().map(|key| key.name).collect();
    if known.len() > 15 {
        format!("the configuration reference lists all settings of {}", section.title)
    } else {
        format!("known are: {}", known.join(", "))
    }
}

pub(super) fn misplaced(key: &Key) -> &'static str {
    match key.place {
        Place::OnlyCompartment => "it belongs to one compartment: set it in [compartment.NAME]",
        Place::NotInDefaults | Place::Anywhere => "set it in [compartment.NAME] or [template.NAME]",
    }
}

/// What a key is for: the first sentence of its explanation.
pub(super) fn explained(key: &Key) -> String {
    let line = key.doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = line.split(". ").next().unwrap_or_default().trim_end_matches('.');
    let mut letters = sentence.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    format!("`{}`: {}", key.name, first.into_iter().chain(letters).collect::<String>())
}

/// Whether the basic type of the value is that of the kind.
pub(super) fn fits(kind: &Kind, value: &Value) -> bool {
    match (kind, value) {
        (Kind::Only(only), Value::Bool(flag)) => only == flag,
        (Kind::Bool, Value::Bool(_))
        | (Kind::Integer { .. } | Kind::Number(_) | Kind::Size { .. }, Value::Integer(_))
        | (
            Kind::Size { .. } | Kind::Text(_) | Kind::Prose | Kind::Word(_) | Kind::HostPath,
            Value::Text(_),
        )
        | (Kind::List(_), Value::List(_))
        | (Kind::Table(_) | Kind::Map(_), Value::Table(_)) => true,
        (Kind::Either(kinds), value) => kinds.iter().any(|kind| fits(kind, value)),
        _ => false,
    }
}

/// What a value of this kind is, with article.
pub(super) fn expected(kind: &'static Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Only(flag) => flag.to_string(),
        Kind::Integer { .. } | Kind::Number(_) => "a whole number".into(),
        Kind::Size { .. } => "a size such as 1024 or \"4GiB\"".into(),
        Kind::Text(format) => format!("{} such as \"{}\"", format.what, format.example),
        Kind::Prose => "text".into(),
        Kind::HostPath => "a path in quotes".into(),
        Kind::Word(words) => {
            let words: Vec<String> =
                words.iter().map(|word| format!("\"{}\"", word.word)).collect();
            words.join(" or ")
        }
        Kind::List(of) => match tables(of).first() {
            Some(_) => "a list of tables".into(),
            None => "a list".into(),
        },
        Kind::Table(_) | Kind::Map(_) => "a table".into(),
        Kind::Either(kinds) => kinds.iter().map(expected).collect::<Vec<_>>().join(", or "),
    }
}

/// The value as it was probably meant.
pub(super) fn rewrite(
    name: &str,
    raw: &str,
    node: &Node,
    kind: &'static Kind,
    format: Format,
) -> Option<String> {
    let line = |value: String| match format {
        Format::Toml => format!("write {name} = {value}"),
        Format::Json => format!("write \"{name}\": {value}"),
    };
    if raw.len() > 60 || raw.contains('\n') {
        return None;
    }
    match (kind, &node.value) {
        (Kind::List(of), value) if fits(of, value) => Some(line(format!("[{raw}]"))),
        (Kind::Bool, Value::Text(text)) => match text.as_str() {
            "yes" | "on" | "true" | "enable" | "enabled" => Some(line("true".into())),
            "no" | "off" | "false" | "disable" | "disabled" => Some(line("false".into())),
            _ => None,
        },
        (Kind::Bool, Value::Integer(Some(number @ (0 | 1)))) => {
            Some(line((*number == 1).to_string()))
        }
        (Kind::Integer { .. } | Kind::Number(_), Value::Text(text)) => {
            text.parse::<i64>().ok().map(|number| line(number.to_string()))
        }
        (Kind::Text(_) | Kind::Prose | Kind::Word(_), Value::Integer(_) | Value::Other(_)) => {
            Some(line(format!("\"{raw}\"")))
        }
        (Kind::Word(words), Value::Bool(flag)) => {
            let word = if *flag { "yes" } else { "no" };
            words.iter().any(|known| known.word == word).then(|| line(format!("\"{word}\"")))
        }
        (Kind::Map(map), Value::List(items)) => {
            let first = items.first().and_then(Node::as_text)?;
            tables(&map.of).first().map(|_| line(format!("{{ {first} = {{}} }}")))
        }
        _ => None,
    }
}
