//! Why a client is disconnected.

use std::io;

use crate::wire::WireError;

/// Why a client is disconnected; the others live on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It went away.
    #[error("it has left")]
    Left,
    /// It said something that the protocol does not allow, or that it may not say.
    #[error("{why}")]
    Protocol {
        /// Its object.
        object: u32,
        /// A code of that object's interface, or one of `wl_display`.
        code: u32,
        /// What.
        why: String,
    },
    /// It wanted too many of something.
    #[error("more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many it may have.
        limit: u64,
    },
    /// Its bytes are no messages.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Its socket failed.
    #[error("could not use its socket")]
    Socket(#[source] io::Error),
    /// The compositor could not be reached for it, or misses something.
    #[error("could not connect it to the compositor: {0}")]
    Upstream(String),
    /// The compositor disconnected it.
    #[error("the compositor ended it: {0}")]
    Ended(String),
    /// A mistake of this program.
    #[error("bug: {0}")]
    Bug(&'static str),
}

/// Codes of `wl_display.error`.
pub(crate) mod code {
    /// No such object.
    pub(crate) const INVALID_OBJECT: u32 = 0;
    /// No such request, or not valid.
    pub(crate) const INVALID_METHOD: u32 = 1;
    /// Too much of something.
    pub(crate) const NO_MEMORY: u32 = 2;
    /// Anything else.
    pub(crate) const IMPLEMENTATION: u32 = 3;
}

impl Fault {
    /// A request that is not allowed.
    pub(crate) fn protocol(object: u32, why: impl Into<String>) -> Self {
        Self::Protocol { object, code: code::INVALID_METHOD, why: why.into() }
    }

    /// Too many of something.
    pub(crate) fn limit(what: &'static str, limit: usize) -> Self {
        Self::Limit { what, limit: limit as u64 }
    }

    /// Object and code of the error that the client is told.
    pub(crate) fn told(&self) -> (u32, u32) {
        match self {
            Self::Protocol { object, code, .. } => (*object, *code),
            Self::Limit { .. } => (1, code::NO_MEMORY),
            Self::Wire(_) => (1, code::INVALID_METHOD),
            _ => (1, code::IMPLEMENTATION),
        }
    }
}
