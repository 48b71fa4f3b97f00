//! Why there is no network, in words for whoever started the compartment.

use std::io;
use std::path::PathBuf;

/// What did not work.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// A call of the kernel.
    #[error("could not {what}")]
    Call {
        /// What it was to do.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The order cannot be understood.
    #[error("could not understand the order")]
    Order(#[source] serde_json::Error),
    /// An answer of the kernel is not what it should be.
    #[error("could not understand the kernel's answer about {0}")]
    Netlink(&'static str),
    /// The firewall was not loaded.
    #[error("could not load the firewall: {said}")]
    Nft {
        /// What nft said.
        said: String,
    },
    /// A program could not be started.
    #[error("could not start {program}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// SIGTERM.
    #[error("was told to end")]
    ToldToEnd,
    /// pasta has ended; what it said stands before this.
    #[error(
        "pasta, which leads outside, has ended (has the host a default route? The log of processes says more)"
    )]
    PastaEnded,
}

/// Gives an error of the kernel its sentence.
pub trait While<T> {
    /// `could not {what}`.
    fn while_(self, what: impl Into<String>) -> Result<T, KeeperError>;
}

impl<T, E: Into<io::Error>> While<T> for Result<T, E> {
    fn while_(self, what: impl Into<String>) -> Result<T, KeeperError> {
        self.map_err(|error| KeeperError::Call { what: what.into(), source: error.into() })
    }
}

/// The error and its causes in one line.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
