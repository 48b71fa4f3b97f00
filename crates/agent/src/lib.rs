//! casemate's program inside the guest. As process 1 of our own initrd it makes a system out of a
//! kernel and an image; as that or as a service it runs the sessions the host asks for.
//!
//! ```text
//! host ◀─ port ─▶ link ─ frames ─▶ agent ─▶ session::table ─▶ session ─▶ the command
//!                  ▲                │ Boot        ▲ turns                 │
//!                  └── outbox ◀─────┼─────────────┴─── stdout, stderr ◀───┘
//!                                   └▶ boot: disks, mounts, identity, users, files
//! ```
//!
//! One thread, one epoll, descriptors that never block; what may block, freezing a file system, is
//! done by child processes. The host is trusted and the guest's own
//! programs are not relied on: whatever they do with their descriptors, other sessions go on.
//!
//! **Invariant:** as process 1 the agent neither panics nor exits; the kernel would stop. So there
//! is no indexing by foreign numbers and no unwrap outside the tests.

// UNSAFETY: a process 1 makes system calls that no safe wrapper covers: clone3 into a cgroup and
// what a child does before exec, terminal and interface ioctls, real-time signals, signalfd.
#![allow(unsafe_code)]

mod accounts;
mod agent;
mod boot;
mod caller;
mod calls;
pub mod carrier;
mod console;
mod events;
mod freeze;
mod handover;
mod hold;
mod link;
mod log;
mod outbox;
mod port;
mod session;
mod shutdown;
mod signals;
pub mod tools;
mod uevents;
mod windows;
mod x11;

pub use agent::{run_as_init, run_as_service};
