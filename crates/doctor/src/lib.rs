//! What is wrong with a machine or a guest, each finding with its reason and its mend.
//!
//! Pure: facts in, a [`Report`] out. `casemate-host` looks at the machine, a session in the guest
//! at the guest; what a guest says is hostile, and is parsed strictly and within limits here.
//!
//! ```text
//! host::FILES ─▶ casemate-host reads them ─▶ Machine ─▶ host::examine ─▶ Report
//! guest::question ─▶ a session as root answers ─▶ guest::examine ─▶ Report
//! ```
//!
//! Three answers are kept apart: it is good, something was found, it could not be looked at.

pub mod guest;
pub mod host;
mod page;
mod report;

pub use page::page;
pub use report::{Finding, Report, Unseen};
