//! The schema, said once: every section, key, kind, default and explanation.
//!
//! Checking, reading, "did you mean", the JSON Schema and the reference all go by these tables.
//! Each section is a module with one static per key; readers name the static, so a misspelt key
//! does not compile.

pub(crate) mod compartment;
pub(crate) mod guest;
pub(crate) mod json;
pub(crate) mod lists;
pub(crate) mod markdown;
pub(crate) mod top;

use crate::diagnostic::Concern;
use crate::value::choice::Word;
use crate::value::text::{Format, Textual};

/// One setting.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) fallback: Fallback,
    pub(crate) place: Place,
    /// Markdown, one or more lines.
    pub(crate) doc: &'static str,
}

/// What a setting is when it is not written.
pub(crate) enum Fallback {
    /// It must be written.
    Required,
    /// It has no value; what then happens, in words.
    Unset(&'static str),
    Bool(bool),
    Integer(i64),
    Text(&'static str),
    /// An empty list or table.
    Empty,
}

/// Where a setting of a compartment may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Anywhere,
    /// In compartments and templates.
    NotInDefaults,
    /// In compartments.
    OnlyCompartment,
}

/// The shape of a value.
pub(crate) enum Kind {
    Bool,
    /// Just this one of the two.
    Only(bool),
    Integer {
        min: i64,
        max: i64,
    },
    /// One of these numbers.
    Number(&'static [i64]),
    /// MiB as a number, or text with a unit.
    Size {
        min_mib: u64,
        max_mib: u64,
    },
    /// Text that obeys a rule.
    Text(&'static Format),
    /// Any text.
    Prose,
    /// One of these words.
    Word(&'static [Word]),
    /// A path of the host; see `value::path::resolve`.
    HostPath,
    List(&'static Kind),
    Table(&'static Section),
    /// Names of the user's choice.
    Map(&'static Map),
    /// The first whose basic type fits.
    Either(&'static [Kind]),
}

/// A table whose keys the user chooses.
pub(crate) struct Map {
    pub(crate) key: &'static Format,
    pub(crate) of: Kind,
}

/// A table with fixed keys.
pub(crate) struct Section {
    /// As in "not a setting of …".
    pub(crate) title: &'static str,
    /// Where it is written: `[compartment.NAME]`.
    pub(crate) header: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [&'static Key],
    /// Sub-tables beside the fixed keys.
    pub(crate) rest: Option<&'static Map>,
    pub(crate) role: Role,
    /// Whom its errors concern, by the key it stands under; `None`: as the table around it.
    pub(crate) owner: Option<fn(&str) -> Option<Concern>>,
}

/// Which of the tables that share the settings of a compartment this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Compartment,
    Template,
    Defaults,
    Other,
}

impl Section {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name).copied()
    }

    /// The keys that may stand in this table.
    pub(crate) fn allowed(&self) -> impl Iterator<Item = &'static Key> {
        let role = self.role;
        self.keys.iter().copied().filter(move |key| key.place.allows(role))
    }
}

impl Place {
    pub(crate) fn allows(self, role: Role) -> bool {
        match self {
            Self::Anywhere => true,
            Self::NotInDefaults => role != Role::Defaults,
            Self::OnlyCompartment => role == Role::Compartment,
        }
    }
}

/// The kind of a text type.
pub(crate) const fn text<T: Textual>() -> Kind {
    Kind::Text(T::FORMAT)
}

/// Defines the keys of a section as statics, and the list of them as `KEYS`.
macro_rules! keys {
    ($(
        $(#[doc = $doc:literal])+
        $key:ident = $name:literal: $kind:expr, $fallback:expr $(, $place:ident)?;
    )*) => {
        $(
            $(#[doc = $doc])+
            pub(crate) static $key: $crate::schema::Key = $crate::schema::Key {
                name: $name,
                kind: $kind,
                fallback: $fallback,
                place: $crate::schema::keys!(@place $($place)?),
                doc: concat!($($doc, "\n"),+),
            };
        )*
        pub(crate) static KEYS: &[&$crate::schema::Key] = &[$(&$key),*];
    };
    (@place) => { $crate::schema::Place::Anywhere };
    (@place $place:ident) => { $crate::schema::Place::$place };
}
pub(crate) use keys;

/// A section with nothing special about it.
pub(crate) const fn section(
    title: &'static str,
    header: &'static str,
    doc: &'static str,
    keys: &'static [&'static Key],
) -> Section {
    Section { title, header, doc, keys, rest: None, role: Role::Other, owner: None }
}
