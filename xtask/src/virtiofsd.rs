//! virtiofsd, the file server of shares, for the tests: from its crate, because Debian 12 has no
//! package of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{programs, target_directory};
use crate::process::{cargo, run};

/// The version that the tests are for.
const VERSION: &str = "1.14.0";

const NAME: &str = "virtiofsd";

/// Puts it beside our programs, where they look first. Does nothing when it is there.
pub(crate) fn ensure() -> Result<()> {
    let place = programs().join(NAME);
    if version(&place).is_some_and(|version| version == VERSION) {
        println!("{NAME} {VERSION} is there");
        return Ok(());
    }
    // Both folders are its own: the build takes half a gigabyte, and is not needed afterwards.
    let (root, build) = (target_directory().join(NAME), target_directory().join("virtiofsd-build"));
    run(cargo()
        .args(["install", "--locked", "--force", NAME, "--version", VERSION, "--root"])
        .arg(&root)
        .env("CARGO_TARGET_DIR", &build))?;
    let _ = std::fs::remove_dir_all(&build);
    let built = root.join("bin").join(NAME);
    // Aside and renamed: one that runs stays what it is.
    let aside = place.with_extension("new");
    std::fs::copy(&built, &aside)
        .and_then(|_| std::fs::rename(&aside, &place))
        .with_context(|| format!("could not copy {} to {}", built.display(), place.display()))?;
    Ok(())
}

/// `virtiofsd 1.14.0`, less the name.
fn version(program: &Path) -> Option<String> {
    let said = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    Some(text.trim().strip_prefix(NAME)?.trim().to_owned())
}
