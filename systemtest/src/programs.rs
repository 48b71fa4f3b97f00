//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with `casemate` and its companions.
pub fn directory() -> PathBuf {
    match std::env::var_os("CASEMATE_BIN") {
        Some(directory) => std::path::absolute(directory).expect("a path"),
        None => workspace().join("target/release"),
    }
}

/// One of the programs.
pub fn program(name: &str) -> PathBuf {
    directory().join(name)
}

/// The folder of the workspace, as it was when the tests were compiled.
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace().join(directory),
        None => workspace().join("target"),
    }
}

/// Where what a failed test leaves to be read goes: the first folder that can be made.
pub fn kept() -> PathBuf {
    let user = nix::unistd::geteuid();
    let places =
        [target().join("systemtest"), std::env::temp_dir().join(format!("systemtest-{user}"))];
    let made = places.iter().find(|place| {
        std::fs::create_dir_all(place).is_ok()
            && nix::unistd::access(place.as_path(), nix::unistd::AccessFlags::W_OK).is_ok()
    });
    made.unwrap_or(&places[1]).clone()
}

/// The statically linked `hostile-agent`: that of `CASEMATE_BIN`, or built now.
///
/// # Errors
/// It is not there and cannot be built; the reason.
pub fn hostile_agent() -> Result<PathBuf, String> {
    let beside = program("hostile-agent");
    if beside.exists() {
        return Ok(beside);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let directory = target();
    let output = Command::new(cargo)
        .args(["build", "--release", "--package", "systemtest", "--bin", "hostile-agent"])
        .args(["--target", &triple, "--target-dir"])
        .arg(&directory)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(workspace())
        .output()
        .map_err(|error| format!("could not start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("could not build it: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(directory.join(triple).join("release/hostile-agent"))
}
