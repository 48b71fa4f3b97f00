//! casemate-wayland: the windows of one compartment on the user's desktop, inside a border that they
//! cannot cover, forge or leave.
//!
//! It stands between the compartment's clients and the compositor. For each client it has one
//! connection to the compositor; what passes is named in [`protocol`], everything else does not
//! exist. Clients cannot reach one another's connections; what they share, selections and the
//! focus, is in [`compartment`].
//!
//! ```text
//! client ──socket──▶ Client ──socket──▶ compositor
//!                      │ selections, focus
//! client ──socket──▶ Client ──socket──▶ compositor
//!                      │
//!                   control ──▶ broker (the supervisor)
//! ```
//!
//! One thread, one loop ([`server`]); no memory of a client is mapped; no file and no socket is
//! opened once it runs ([`confine`]). The design is in `docs/design/0014-windows.md`.

#![forbid(unsafe_code)]

pub mod arguments;
pub mod client;
pub mod compartment;
pub mod confine;
pub mod connector;
pub mod control;
mod fault;
mod geometry;
pub mod label;
pub mod limits;
pub mod name;
pub mod protocol;
pub mod sandbox;
pub mod server;
pub mod settings;
pub mod socket;
pub mod wire;

pub use fault::Fault;
