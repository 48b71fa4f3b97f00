//! A call that somebody wants to make, as a policy sees it.

use casemate_config::Flaw;

use crate::token::{Redirect, Token, Uuid, name};

/// Who wants to call which service where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The service.
    pub service: &'a str,
    /// Its argument, beginning with `+`; `+` alone is the empty one.
    pub argument: &'a str,
    /// Who calls.
    pub source: Caller<'a>,
    /// Where.
    pub target: Wanted<'a>,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'a> {
    /// The host.
    Host,
    /// A compartment.
    Compartment(&'a str),
}

/// Where a call shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Nothing was named.
    Default,
    /// The host.
    Host,
    /// The host by the word `@adminvm`, which `@tag:` and `@type:` of the target's column do not
    /// match in qrexec. Only test vectors ask so; [`Request::new`] never does.
    HostWord,
    /// A compartment, or nothing that exists.
    Compartment(&'a str),
    /// A compartment, or nothing that exists.
    Uuid(Uuid),
    /// A fresh disposable of the caller's default template.
    Disposable,
    /// A fresh disposable made from this compartment.
    DisposableOf(&'a str),
}

impl<'a> Request<'a> {
    /// A call of `service` with `argument`, empty or beginning with `+`.
    ///
    /// # Errors
    /// A word that no such thing can be called.
    pub fn new(
        service: &'a str,
        argument: &'a str,
        source: &'a str,
        target: &'a str,
    ) -> Result<Self, Flaw> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if service.is_empty() || !service.bytes().all(letter) {
            return Err(Flaw::new(format!("`{service}` is no service"))
                .hint("services have letters, digits, `.`, `_` and `-`"));
        }
        let argument = if argument.is_empty() { "+" } else { argument };
        if !argument.starts_with('+') || !argument.bytes().all(|byte| letter(byte) || byte == b'+')
        {
            return Err(Flaw::new(format!("`{argument}` is no argument"))
                .hint("arguments begin with `+`; letters, digits, `+`, `.`, `_` and `-` follow"));
        }
        let caller = match Token::source(source)? {
            Token::Host => Caller::Host,
            Token::Name(_) => Caller::Compartment(source),
            _ => {
                return Err(Flaw::new(format!("`{source}` is not one caller"))
                    .hint("name a compartment, or the host as `@adminvm`"));
            }
        };
        Ok(Self { service, argument, source: caller, target: Wanted::parse(target)? })
    }

    /// The same call, its target in the words of qrexec: see [`Wanted::HostWord`].
    pub fn as_qrexec(self, target: &str) -> Self {
        let by_word = self.target == Wanted::Host && target.starts_with('@');
        Self { target: if by_word { Wanted::HostWord } else { self.target }, ..self }
    }
}

impl<'a> Wanted<'a> {
    /// The target of a request: empty, `@default`, or what may stand after `target=`.
    ///
    /// # Errors
    /// It names no single place.
    pub fn parse(word: &'a str) -> Result<Self, Flaw> {
        if word.is_empty() || word == "@default" {
            return Ok(Self::Default);
        }
        Ok(match Redirect::parse(word)? {
            Redirect::Host => Self::Host,
            Redirect::Disposable => Self::Disposable,
            Redirect::Uuid(uuid) => Self::Uuid(uuid),
            Redirect::Name(_) => Self::Compartment(word),
            Redirect::DisposableOf(_) => Self::DisposableOf(&word["@dispvm:".len()..]),
        })
    }
}

/// A service and its argument, written together: `gpg.Sign+key`. Without `+` it is the empty one.
pub fn split_call(text: &str) -> (&str, &str) {
    match text.find('+') {
        Some(at) => text.split_at(at),
        None => (text, "+"),
    }
}

/// Whether a word can be the name of a compartment.
pub fn is_name(word: &str) -> bool {
    name(word).is_some()
}
