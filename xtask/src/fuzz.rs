//! `cargo xtask fuzz`: the fuzz targets, with cargo-fuzz on the stable toolchain.

use anyhow::{Result, ensure};

use crate::process::{cargo, run, workspace};

/// Every target in `fuzz/fuzz_targets`.
pub(crate) const TARGETS: [&str; 13] = [
    "wire",
    "config",
    "archive",
    "doctor",
    "policy",
    "switch_messages",
    "switch_ring",
    "dns",
    "wayland",
    "files",
    "netd",
    "desktop",
    "clipboard",
];

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Only this one.
    target: Option<String>,
    /// How long each target is fuzzed.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

/// Fuzzes one target or all.
pub(crate) fn fuzz(arguments: &Arguments) -> Result<()> {
    let Some(only) = &arguments.target else {
        return TARGETS.iter().try_for_each(|target| run_one(target, arguments.seconds));
    };
    ensure!(
        TARGETS.contains(&only.as_str()),
        "there is no fuzz target `{only}`; there are: {}",
        TARGETS.join(", ")
    );
    run_one(only, arguments.seconds)
}

/// Fuzzes a target for so long. What it finds is in `fuzz/artifacts`.
pub(crate) fn run_one(target: &str, seconds: u64) -> Result<()> {
    if !cargo().args(["fuzz", "--version"]).output()?.status.success() {
        println!("installing cargo-fuzz");
        run(cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let corpus = workspace().join("fuzz/corpus").join(target);
    let seeds = workspace().join("fuzz/seeds").join(target);
    std::fs::create_dir_all(&corpus)?;
    let time = format!("-max_total_time={seconds}");
    // Sanitizers are unstable options; the toolchain is stable.
    run(cargo()
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", "run", target])
        .args([corpus, seeds])
        .args(["--", &time, "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]))
}
