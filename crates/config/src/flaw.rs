//! What is wrong with one piece of text, before anybody knows which file it stood in.
//!
//! Every typed value parses with `FromStr<Err = Flaw>`; the checker turns a flaw into a
//! diagnostic by adding the place.

use std::ops::Range;

/// Why a text is not the value it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Flaw {
    /// One sentence without a full stop, standing on its own.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
    /// The bytes of the text at fault; the whole text when `None`.
    pub range: Option<Range<usize>>,
}

impl Flaw {
    /// The whole text is at fault.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, range: None }
    }

    /// With how to mend it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn at(mut self, range: Range<usize>) -> Self {
        self.range = Some(range);
        self
    }
}
