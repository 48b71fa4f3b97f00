//! `cargo xtask build`: every program into `target/release`.
//!
//! Six of them are linked statically: the agent, because the guest's initrd has no libraries; the
//! jail, the link process, the switch, the keeper of networks and the Wayland proxy, so that they need
//! no file in the jails they run in. A target has
//! to be named for that, else the flags would apply to procedural macros too, which cannot be
//! static.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::allocator;
use crate::process::{cargo, run, workspace};

/// Packages whose program is static, and the program.
const STATIC: [(&str, &str); 6] = [
    ("casemate-agent", "casemate-agent"),
    ("casemate-jail", "casemate-jail"),
    ("casemate-link", "casemate-link"),
    ("casemate-switch", "casemate-switch"),
    ("casemate-netns", "casemate-netns"),
    ("casemate-wayland", "casemate-wayland"),
];

/// Packages whose programs are linked as usual.
const DYNAMIC: [&str; 4] =
    ["casemate-cli", "casemate-supervise", "casemate-forward", "casemate-netd"];

/// Builds everything.
pub(crate) fn build() -> Result<()> {
    let mut dynamic = cargo();
    dynamic.args(["build", "--release", "--locked"]);
    for package in DYNAMIC {
        dynamic.args(["--package", package]);
    }
    run(&mut dynamic)?;
    build_static(&STATIC)?;
    allocator::build(&programs())
}

/// Builds programs of packages statically, and puts them beside the others.
pub(crate) fn build_static(programs: &[(&str, &str)]) -> Result<()> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut linked = cargo();
    linked
        .args(["build", "--release", "--locked", "--target", &target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    for (package, program) in programs {
        linked.args(["--package", package, "--bin", program]);
    }
    run(&mut linked)?;
    let directory = target_directory();
    for (_, program) in programs {
        let from = directory.join(&target).join("release").join(program);
        let to = directory.join("release").join(program);
        // Aside and renamed: a running casemate keeps the program it has.
        let aside = to.with_extension("new");
        std::fs::copy(&from, &aside)
            .and_then(|_| std::fs::rename(&aside, &to))
            .with_context(|| format!("could not copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Where the programs are once they are built.
pub(crate) fn programs() -> PathBuf {
    target_directory().join("release")
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace().join(directory),
        None => workspace().join("target"),
    }
}
