//! One compartment's life, kept by one process.
//!
//! ```text
//!            keeper: claims, prepares, announces, clears up
//!               │
//!            runtime: one select over everything that can happen
//!    events ▼        ▲ effects
//!             life: the pure state machine
//! ```
//!
//! [`prepare`] gathers what a plan needs and is shared with the command line; [`control`] is the
//! interface of the control socket, `serve` its connections; `crew` starts and kills the
//! processes; `monitor` speaks QMP.
//!
//! **Invariant:** no byte of a guest is parsed here. What a guest says arrives as the link
//! process's bounded reports.

pub mod audit;
pub mod broker;
mod compositor;
pub mod control;
mod crew;
mod disks;
pub mod keeper;
pub mod life;
pub mod logs;
pub mod memory;
mod monitor;
mod network;
pub mod policy;
pub mod prepare;
mod runtime;
pub mod secrets;
mod serve;
mod shares;
mod switch;
pub mod volumes;

pub use casemate_host::{chain, configuration};
