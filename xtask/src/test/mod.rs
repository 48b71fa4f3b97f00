//! `cargo xtask test`: everything that can be said about this tree by running it.
//!
//! Formatting and lints, then the tests of each crate, then the system tests, which use the built
//! programs only: as whoever calls this, and when that is root, as an ordinary user once more. The
//! last line is the sum; what was skipped is listed above it, with reasons.

mod guest;
mod harness;
mod ordinary;
mod suite;
mod tally;

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::build::{build, build_static, programs, target_directory};
use crate::fuzz;
use crate::process::{cargo, is_root, run, workspace};
use crate::setup::{self, ensure_installed};
use crate::steps::Steps;
use crate::virtiofsd;
use ordinary::Ordinary;
use suite::Runs;
pub(crate) use tally::Tally;

/// Options of `cargo xtask test`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Arguments {
    /// The long variants of tests, and a quarter of an hour of fuzzing.
    #[arg(long)]
    soak: bool,
    /// Run only tests whose names contain one of these, and no other check.
    filter: Vec<String>,
}

/// The package of the system tests.
const SYSTEM: &str = "systemtest";

/// System tests at a time: each has a guest that keeps a processor busy while it boots.
const GUESTS: usize = 2;

/// The longest one test program may take, a short one and one of the system's; tenfold in a soak.
const LIMITS: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(900)];

/// Seconds each fuzz target gets in a soak.
const FUZZ: u64 = 450;

/// Runs it all.
pub(crate) fn test(arguments: &Arguments) -> Result<()> {
    let whole = arguments.filter.is_empty();
    let mut tally = Tally::default();
    let more = [whole, whole, is_root(), whole && arguments.soak];
    let mut steps = Steps::new(5 + more.into_iter().map(usize::from).sum::<usize>());
    steps.step("what has to be installed", || {
        ensure_installed(&setup::RUN)?;
        if is_root() {
            ensure_installed(&setup::TEST)?;
            ordinary::user()?;
            return Ok(());
        }
        setup::mention_missing(&setup::TEST);
        Ok(())
    })?;
    if whole {
        steps.step("formatting and lints", || lints(&mut tally))?;
        steps.step("licences and sources of dependencies", || crate::ci::deny(&mut tally))?;
    }
    steps.step("build", || {
        build()?;
        // The guest that lies; tests of hostile guests boot it.
        build_static(&[(SYSTEM, "hostile-agent")])?;
        match setup::can_build_virtiofsd() {
            true => virtiofsd::ensure()?,
            false => tally.skip("virtiofsd", "it cannot be built without its libraries"),
        }
        Ok(())
    })?;
    steps.step("the image", || {
        let casemate = programs().join("casemate");
        let demo = workspace().join("examples/demo.toml");
        run(Command::new(casemate).arg("--config").arg(demo).args(["image", "build"]))
    })?;
    let mut runs = runs(arguments);
    steps.step("tests of the crates", || {
        let modules = tempfile::tempdir()?;
        let mut environment = [runs.environment.clone(), guest::parts(modules.path())?].concat();
        // Pictures of windows, for people to look at.
        let artefacts = target_directory().join("artefacts");
        std::fs::create_dir_all(&artefacts)?;
        environment.push(("CASEMATE_ARTEFACTS", artefacts.into()));
        let runs = Runs { environment, ..runs.clone() };
        for suite in suite::build(&["--workspace", "--exclude", SYSTEM])? {
            tally.add(&suite.name, suite.run(&runs)?);
        }
        Ok(())
    })?;
    runs = Runs { threads: GUESTS, each: true, limit: limit(arguments, 1), ..runs };
    let system = steps.step(&format!("system tests as {}", whoami()), || {
        let suites = suite::build(&["--package", SYSTEM])?;
        for suite in &suites {
            tally.add(&suite.name, suite.run(&runs)?);
        }
        Ok(suites)
    })?;
    if is_root() {
        steps.step("system tests as an ordinary user", || {
            let ordinary = Ordinary::prepare()?;
            let runs = ordinary.runs(&runs);
            for suite in &system {
                let suite = ordinary.adopt(suite)?;
                tally.add(&suite.name, suite.run(&runs)?);
            }
            Ok(())
        })?;
    }
    if whole && arguments.soak {
        steps.step("fuzzing", || {
            for target in fuzz::TARGETS {
                tally.check(&format!("fuzz {target}"), fuzz::run_one(target, FUZZ).is_ok());
            }
            Ok(())
        })?;
    }
    steps.summary();
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    match tally.finish(&workspace().join("xtask/expected-skips.txt"), strict)? {
        true => Ok(()),
        false => bail!("not everything passed"),
    }
}

fn runs(arguments: &Arguments) -> Runs {
    let mut environment = vec![("CASEMATE_BIN", OsString::from(programs()))];
    if arguments.soak {
        environment.push(("CASEMATE_SOAK", "1".into()));
    }
    Runs {
        filter: arguments.filter.clone(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        each: false,
        limit: limit(arguments, 0),
        environment,
        before: Vec::new(),
    }
}

fn limit(arguments: &Arguments, which: usize) -> Duration {
    LIMITS[which] * if arguments.soak { 10 } else { 1 }
}

fn whoami() -> &'static str {
    if is_root() { "root" } else { "you" }
}

/// `cargo fmt --check` and clippy, where they are installed.
fn lints(tally: &mut Tally) -> Result<()> {
    let format: &[&str] = &["fmt", "--all", "--check"];
    let lints: &[&str] =
        &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    for words in [format, lints] {
        let name = format!("cargo {}", words[0]);
        if !cargo().args([words[0], "--version"]).output()?.status.success() {
            tally.skip(&name, "it is not installed (rustup component add rustfmt clippy)");
            continue;
        }
        tally.check(&name, cargo().args(words).status()?.success());
    }
    Ok(())
}
