//! The audit log: what was decided and done, one line of JSON each, and each bound to the one before by
//! its digest. A record that was changed, removed or moved is found; see [`verify`].
//!
//! ```text
//! audit/audit.jsonl            records, oldest first; written by every supervisor and command
//!       audit-000000000017.jsonl   files that had grown too long, by the number of their first record
//!       audit.lock             who writes has it
//!       forward/               how far records were sent elsewhere
//! ```
//! It says that something happened and to whom, never what was in it: no argument of a command, no
//! content of a file, no secret. What it is worth against somebody who may write to it is in
//! docs/design/0016.

mod chain;
mod forwarded;
mod log;
mod record;

pub use chain::{Break, Entry, Head, Reader, Verified, verify};
pub use forwarded::{Forwarded, Progress};
pub use log::{Log, LogError};
pub use record::{Event, Record, TimeError, parse_since};
