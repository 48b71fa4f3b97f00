//! `casemate-jail`: starts one planned program in a jail of its own and watches over it.
//!
//! It reads a [`Process`](casemate_plan::process::Process) from a descriptor and carries it out;
//! it decides nothing. Three processes come of it:
//!
//! ```text
//! launcher ── monitor ───────┤ new namespaces ├── init (PID 1) ── the program
//!             outside, no       builds the root,    subordinate user, no capability,
//!             capability        keeps CAP_KILL      no_new_privs, Landlock
//! ```
//!
//! The end of the launcher is the end of the monitor (PR_SET_PDEATHSIG; unless `--detached` says that
//! the program is many launchers' and knows itself when to end), the end of the monitor is
//! the end of init, and the end of init is the end of everything in its PID namespace, whatever the
//! program does: a program that clears its own parent-death signal still dies.
//!
//! Exit codes: the program's own, 128 + n when signal n ended it, 125 when the jail could not be
//! built; one line on standard error then says why.
//!
//! **Invariant:** one thread, from beginning to end.

// UNSAFETY: clone(2) into namespaces, fork, capset(2), prctl(2), close_range(2) and the mount calls
// of Linux 5.2 (open_tree, move_mount, mount_setattr) have no safe wrapper.
#![allow(unsafe_code)]

mod descriptors;
mod error;
mod idmap;
mod init;
mod monitor;
mod privilege;
mod program;
mod root;
mod rules;
mod seccomp;
mod signals;
mod spec;
mod trees;

use std::process::ExitCode;

/// The exit code for "the jail itself could not be built", as podman and env(1) use it.
const NOT_BUILT: u8 = 125;

fn main() -> ExitCode {
    let ended = spec::Invocation::from_arguments(std::env::args_os().skip(1))
        .and_then(|invocation| monitor::run(&invocation));
    ended
        .unwrap_or_else(|error| {
            error::report(&error);
            NOT_BUILT
        })
        .into()
}
