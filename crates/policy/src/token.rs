//! Words of a policy that stand for compartments: in the columns SOURCE and TARGET, and after
//! `target=`.
//!
//! A word that no compartment, tag or type can be called is an error here, because a rule that
//! denies must not be without effect for a slip of the pen. Whether what is named exists is asked
//! later, by [`crate::lint`].

use std::fmt;
use std::str::FromStr;

use casemate_config::{Flaw, nearest};

/// Bytes of a name, tag or type.
const MAX_NAME: usize = 64;

/// Words with a meaning of their own, for "did you mean".
const WORDS: [&str; 8] =
    ["@adminvm", "@anyvm", "@default", "@dispvm", "@dispvm:", "@host", "@tag:", "@type:"];

/// A UUID (RFC 9562) in its usual form: 8-4-4-4-12 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(u128);

impl Uuid {
    /// The one that means the host.
    pub const HOST: Self = Self(0);
}

impl FromStr for Uuid {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Flaw> {
        let flaw = || {
            Flaw::new(format!("`{text}` is no UUID"))
                .hint("a UUID is written as in 12345678-9abc-4def-8123-456789abcdef")
        };
        let parts = || text.split('-');
        if !parts().map(str::len).eq([8, 4, 4, 4, 12]) {
            return Err(flaw());
        }
        parts()
            .flat_map(str::chars)
            .try_fold(0, |number, digit| Some(number << 4 | u128::from(digit.to_digit(16)?)))
            .map(Self)
            .ok_or_else(flaw)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let part = |range: std::ops::Range<usize>| &digits[range];
        write!(
            formatter,
            "{}-{}-{}-{}-{}",
            part(0..8),
            part(8..12),
            part(12..16),
            part(16..20),
            part(20..32)
        )
    }
}

/// What stands in the column SOURCE or TARGET.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Token {
    /// `*`: everything, the host too.
    Everything,
    /// `@anyvm`: everything but the host.
    AnyCompartment,
    /// `@adminvm`, `@host`, `dom0` or the UUID of zeros.
    Host,
    /// `@default`: no target was named. Never a source.
    Default,
    /// `@dispvm`: a fresh disposable of the source's default template. Never a source.
    Disposable,
    /// A compartment.
    Name(Box<str>),
    /// A compartment.
    Uuid(Uuid),
    /// `@tag:T`: what has the tag.
    Tag(Box<str>),
    /// `@type:T`: what is of the type.
    Type(Box<str>),
    /// `@dispvm:NAME`: a fresh disposable made from NAME.
    DisposableOf(Box<str>),
    /// `@dispvm:@tag:T`: a fresh disposable made from what has the tag.
    DisposableOfTag(Box<str>),
}

/// What may stand after `target=` and `default_target=`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Redirect {
    /// The host.
    Host,
    /// A fresh disposable of the source's default template.
    Disposable,
    /// A compartment.
    Name(Box<str>),
    /// A compartment.
    Uuid(Uuid),
    /// A fresh disposable made from this compartment.
    DisposableOf(Box<str>),
}

impl Token {
    /// A word of the column SOURCE.
    ///
    /// # Errors
    /// It has no meaning there.
    pub fn source(word: &str) -> Result<Self, Flaw> {
        match Self::target(word)? {
            Self::Default | Self::Disposable => Err(Flaw::new(format!("`{word}` is no source"))
                .hint(
                    "a call comes from a compartment, `@anyvm`, `@adminvm`, `@tag:` or `@type:`",
                )),
            token => Ok(token),
        }
    }

    /// A word of the column TARGET.
    ///
    /// # Errors
    /// It has no meaning there.
    pub fn target(word: &str) -> Result<Self, Flaw> {
        let named = |rest: &str, make: fn(Box<str>) -> Self| match name(rest) {
            Some(name) => Ok(make(name)),
            None => Err(bad_name(word, rest)),
        };
        if let Some(rest) = word.strip_prefix("uuid:") {
            let uuid = rest.parse()?;
            return Ok(if uuid == Uuid::HOST { Self::Host } else { Self::Uuid(uuid) });
        }
        match word {
            "*" => return Ok(Self::Everything),
            "dom0" | "@adminvm" | "@host" => return Ok(Self::Host),
            "@anyvm" => return Ok(Self::AnyCompartment),
            "@default" => return Ok(Self::Default),
            "@dispvm" => return Ok(Self::Disposable),
            _ if !word.starts_with('@') => return named(word, Self::Name),
            _ => {}
        }
        if let Some(rest) = word.strip_prefix("@dispvm:@tag:") {
            named(rest, Self::DisposableOfTag)
        } else if let Some(rest) = word.strip_prefix("@dispvm:") {
            named(rest, Self::DisposableOf)
        } else if let Some(rest) = word.strip_prefix("@tag:") {
            named(rest, Self::Tag)
        } else if let Some(rest) = word.strip_prefix("@type:") {
            named(rest, Self::Type)
        } else {
            Err(unknown_word(word))
        }
    }
}

impl Redirect {
    /// The value of `target=` or `default_target=`.
    ///
    /// # Errors
    /// It names no single place.
    pub fn parse(word: &str) -> Result<Self, Flaw> {
        match Token::target(word)? {
            Token::Host => Ok(Self::Host),
            Token::Disposable => Ok(Self::Disposable),
            Token::Name(name) => Ok(Self::Name(name)),
            Token::Uuid(uuid) => Ok(Self::Uuid(uuid)),
            Token::DisposableOf(name) => Ok(Self::DisposableOf(name)),
            _ => Err(Flaw::new(format!("`{word}` is not one place a call could go to"))
                .hint("name a compartment, `@adminvm`, `@dispvm` or `@dispvm:NAME`")),
        }
    }
}

/// A name, tag or type: letters, digits, `.`, `_` and `-`, at most 64.
pub(crate) fn name(text: &str) -> Option<Box<str>> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let good = !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(letter);
    good.then(|| text.into())
}

fn bad_name(word: &str, rest: &str) -> Flaw {
    if rest.is_empty() {
        return Flaw::new(format!("`{word}` names nothing")).hint(format!("write {word}NAME"));
    }
    let flaw = Flaw::new(format!("`{word}` is no compartment, tag or type"));
    match word.strip_prefix('$') {
        Some(rest) => flaw.hint(format!("did you mean `@{rest}`?")),
        None => flaw.hint(format!(
            "names have letters, digits, `.`, `_` and `-`, and at most {MAX_NAME} of them"
        )),
    }
}

fn unknown_word(word: &str) -> Flaw {
    let flaw = Flaw::new(format!("`{word}` has no meaning"));
    match nearest(word, WORDS) {
        Some(known) => flaw.hint(format!("did you mean `{known}`?")),
        None => flaw.hint(
            "words are @adminvm, @anyvm, @default, @dispvm, @dispvm:NAME, @dispvm:@tag:TAG, \
             @tag:TAG and @type:TYPE",
        ),
    }
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => formatter.write_str("*"),
            Self::AnyCompartment => formatter.write_str("@anyvm"),
            Self::Host => formatter.write_str("@adminvm"),
            Self::Default => formatter.write_str("@default"),
            Self::Disposable => formatter.write_str("@dispvm"),
            Self::Name(name) => formatter.write_str(name),
            Self::Uuid(uuid) => write!(formatter, "uuid:{uuid}"),
            Self::Tag(tag) => write!(formatter, "@tag:{tag}"),
            Self::Type(kind) => write!(formatter, "@type:{kind}"),
            Self::DisposableOf(name) => write!(formatter, "@dispvm:{name}"),
            Self::DisposableOfTag(tag) => write!(formatter, "@dispvm:@tag:{tag}"),
        }
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => formatter.write_str("@adminvm"),
            Self::Disposable => formatter.write_str("@dispvm"),
            Self::Name(name) => formatter.write_str(name),
            Self::Uuid(uuid) => write!(formatter, "uuid:{uuid}"),
            Self::DisposableOf(name) => write!(formatter, "@dispvm:{name}"),
        }
    }
}
