//! A switch between virtual machines.
//!
//! [`memory`], [`ring`].

pub mod descriptor;
pub mod forward;
pub mod memory;
pub mod ring;
pub mod rules;
pub mod vhost;
