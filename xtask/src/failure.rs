//! Errors that end xtask with an exit code of their own.

use std::fmt;

/// Exit code when the host lacks something, as casemate's.
pub(crate) const HOST_NOT_READY: u8 = 4;

/// What the host lacks; the text says what to do about it.
#[derive(Debug)]
pub(crate) struct HostNotReady(pub(crate) String);

impl fmt::Display for HostNotReady {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for HostNotReady {}

/// The exit code for an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<HostNotReady>() { HOST_NOT_READY } else { 1 }
}
