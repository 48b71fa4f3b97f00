//! What links to the host are made with: netlink, nft, TAP devices, the host's addresses, and names
//! in rules. The program `casemate-netns` does it in a namespace of a compartment's own, the root
//! helper `casemate-netd` in the host's.

// UNSAFETY: fork, capset(2), prctl(2) and the ioctl that makes a TAP device have no safe wrapper.
#![allow(unsafe_code)]

pub mod dns;
pub mod error;
pub mod host;
pub mod names;
pub mod namespace;
pub mod netlink;
pub mod nft;
pub mod tap;
