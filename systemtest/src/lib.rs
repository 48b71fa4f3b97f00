//! What the system tests share: a world of its own for each test, calls of `casemate` with every
//! wait bounded, terminals, and a look at what is left behind.
//!
//! A test uses the built programs and nothing else; no crate of casemate but the wire protocol
//! (for the hostile agent) is linked in. Programs are those of `CASEMATE_BIN`, else of the
//! workspace's `target/release`. With `CASEMATE_SOAK=1` the long variants run too.

pub mod call;
pub mod desktop;
pub mod disk;
pub mod hostile;
pub mod lab;
pub mod netd;
/// Pictures of the desktop, as the tests of the proxy look at them.
#[allow(missing_docs)]
#[path = "../../crates/wayland/tests/common/picture.rs"]
pub mod picture;
pub mod processes;
pub mod programs;
pub mod terminal;
pub mod traffic;
pub mod wait;
pub mod world;

pub use call::{Background, Call, Done};
pub use desktop::Desktop;
pub use disk::{SmallDisk, can_mount};
pub use terminal::Terminal;
pub use wait::{BOOT, SHORT, until};
pub use world::{Shared, World};

use std::io::Write;

/// The path of the function it stands in: `lifecycle::two_first_runs_start_one_machine`.
#[macro_export]
macro_rules! here {
    () => {{
        fn here() {}
        fn name_of<T>(_: T) -> &'static str {
            std::any::type_name::<T>()
        }
        name_of(here).trim_end_matches("::here")
    }};
}

/// Says that a test was not run and why. Past the test harness, which would keep it to itself.
pub fn skip(test: &str, reason: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stdout(), "skipped: {test}: {reason}");
}

/// Whether a program is installed; an ordinary user's search path may lack the system's folders.
/// When it is not, says that the test is skipped.
pub fn has(test: &str, program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(system);
    let found = folders.any(|folder| folder.join(program).is_file());
    if !found {
        skip(test, &format!("{program} is not installed"));
    }
    found
}

/// The long variants of tests are wanted.
pub fn soak() -> bool {
    std::env::var_os("CASEMATE_SOAK").is_some_and(|value| value == "1")
}

/// The tests run as root: system mode, fixed places.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
