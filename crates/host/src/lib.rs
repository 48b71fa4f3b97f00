//! The host side's only Linux effects: finding out what the machine offers, single steps and their
//! undoing, and starting a process in its jail. It decides nothing; the plan has.
//!
//! One file per kernel facility. The supervisor and the command line go through here for whatever
//! touches the machine; tests of theirs use [`fake::FakeHost`] in place of [`linux::LinuxHost`].
//!
//! **Invariant:** no guest byte is read here, and no shell is started.

// UNSAFETY: pidfd_open(2), pidfd_send_signal(2), getrandom(2), landlock_create_ruleset(2), a
// clone(2) into namespaces that ends at once, pages of secrets, and the memory of the KVM probe have no
// safe wrapper.
#![allow(unsafe_code)]

pub mod boot;
pub mod clock;
pub mod configuration;
pub mod durable;
pub mod facts;
pub mod fake;
pub mod kvm;
pub mod landlock;
pub mod launch;
pub mod linux;
pub mod lock;
pub mod machine;
pub mod namespaces;
pub mod network;
pub mod pidfd;
pub mod places;
pub mod programs;
pub mod qemu;
pub mod random;
pub mod rundir;
pub mod secret;
pub mod sockets;
pub mod step;
pub mod subordinate;
pub mod switch;
pub mod tsc;
mod versions;
pub mod virtiofsd;

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
