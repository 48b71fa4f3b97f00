//! Texts that obey a rule: the machinery behind every name-like type.
//!
//! A type made by `text_type!` holds a string that passed its check; the rule, an example and a
//! pattern for the JSON Schema stand beside it once.

use crate::flaw::Flaw;

/// How a kind of text looks, for people and for the JSON Schema.
pub(crate) struct Format {
    /// What it is called in a sentence: "a PCI address".
    pub(crate) what: &'static str,
    /// ECMA 262 regular expression; never stricter than `check`.
    pub(crate) pattern: Option<&'static str>,
    /// A good one.
    pub(crate) example: &'static str,
    /// The rule itself.
    pub(crate) check: fn(&str) -> Result<(), Flaw>,
}

/// A value written as text.
pub(crate) trait Textual: std::str::FromStr<Err = Flaw> {
    /// Its rule.
    const FORMAT: &'static Format;
}

/// Implements `Textual` for a type with a hand-written `FromStr`.
macro_rules! textual {
    ($type:ty, $what:literal, $pattern:expr, $example:literal) => {
        impl $crate::value::text::Textual for $type {
            const FORMAT: &'static $crate::value::text::Format = &$crate::value::text::Format {
                what: $what,
                pattern: $pattern,
                example: $example,
                check: |text| text.parse::<$type>().map(drop),
            };
        }
    };
}
pub(crate) use textual;

/// Defines a string type whose content passed `good` and then `also`.
macro_rules! text_type {
    (
        $(#[doc = $doc:literal])+
        $name:ident: $what:literal, $rule:literal, $pattern:expr, $example:literal,
        $good:expr $(, also $also:expr)?
    ) => {
        $(#[doc = $doc])+
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::flaw::Flaw;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let good: fn(&str) -> bool = $good;
                if !good(text) {
                    return Err($crate::flaw::Flaw::new(format!(
                        concat!("{} is not ", $what),
                        $crate::value::text::quoted(text)
                    ))
                    .hint(concat!($rule, ", for example \"", $example, "\"")));
                }
                $( let also: fn(&str) -> Result<(), $crate::flaw::Flaw> = $also; also(text)?; )?
                Ok(Self(text.to_owned()))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::flaw::Flaw;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        $crate::value::text::textual!($name, $what, $pattern, $example);
    };
}
pub(crate) use text_type;

/// The text in quotes for a message, shortened when long; its control characters made visible.
pub(crate) fn quoted(text: &str) -> String {
    if text.is_empty() {
        return "an empty text".to_owned();
    }
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// First byte, all further bytes, and length within limits.
pub(crate) fn spelled(
    text: &str,
    longest: usize,
    first: fn(u8) -> bool,
    rest: fn(u8) -> bool,
) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= longest
        && bytes.first().is_some_and(|byte| first(*byte))
        && bytes.iter().skip(1).all(|byte| rest(*byte))
}

/// No control characters (C0, DEL, C1), so that it can be shown and stored in one line.
pub(crate) fn one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
