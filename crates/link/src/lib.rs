//! The link process: decodes what one guest sends and carries session data.
//!
//! It stands between the guest and everything else. The supervisor never sees a guest's bytes,
//! only the bounded, typed [`orders::Report`]s this process makes of them; a client's session
//! socket is handed over to it, so data takes no detour.
//!
//! ```text
//!  VMM ══ agent port ══▶ port::Port ─ frames ─▶ relay::Relay ─▶ session::Session ══▶ client
//!  VMM ══ console ═════▶ console::Console ──▶ viewers, log
//!  supervisor ══ orders ══▶ relay::Relay ══ reports ══▶ supervisor
//! ```
//!
//! It owns no secret, opens no file, and can do nothing with a kernel but read, write and wait
//! ([`seccomp`]). One thread, one epoll, no lock.

mod calls;
mod console;
pub mod orders;
mod port;
mod queue;
mod relay;
pub mod seccomp;
mod session;

pub use relay::{Descriptors, Relay, RelayError};
