//! `cargo xtask bench`: casemate beside what it could be compared with, in one run.
//!
//! Everything is measured on the same machine within minutes, casemate and its measure taking
//! turns, so that other load falls on both. What cannot be measured is said, never guessed.

mod bare;
mod calls;
mod casemate;
mod cpio;
mod first_frame;
mod image;
mod others;
mod pipe;
mod processes;
mod samples;
mod size;
mod start;
mod storage;
mod switch;
mod table;
mod windows;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::build::{build, target_directory};
use crate::steps::seconds;
use bare::Bare;
use casemate::Casemate;
use table::Figure;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// `casemate run`: start, calls, throughput, memory, stop.
    Run(Arguments),
    /// Images and volumes: builds, sizes, reads, snapshots, refusals.
    Image(image::Arguments),
    /// The network switch, beside OVS-DPDK and DPDK's vhost, which are installed for it.
    Switch(switch::Arguments),
    /// Windows: what the proxy costs, beside the bare compositor and waypipe.
    Windows(windows::Arguments),
    /// Calls of services and copies of files, beside sessions.
    Calls(calls::Arguments),
}

/// Options of `cargo xtask bench run`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Starts of each kind; the figures are medians.
    #[arg(long, default_value_t = 7)]
    starts: usize,
    /// Calls of `casemate run` in a running compartment.
    #[arg(long, default_value_t = 200)]
    calls: usize,
    /// MiB through the pipe in each of the transfers.
    #[arg(long, default_value_t = 128)]
    mebibytes: usize,
}

/// Measured numbers by name, for the JSON.
type Raw = serde_json::Map<String, Value>;

/// What the measurements need.
struct Bed {
    casemate: Casemate,
    bare: Bare,
    /// Short-lived files, sockets among them.
    folder: PathBuf,
    /// Milliseconds of a call in a running compartment, once measured.
    call: f64,
    figures: Vec<Figure>,
    raw: Raw,
}

/// Measures.
pub(crate) fn bench(what: &Bench) -> Result<()> {
    match what {
        Bench::Switch(arguments) => return switch::bench(arguments),
        // It needs no compartment.
        Bench::Windows(arguments) => return windows::windows(arguments),
        Bench::Run(_) | Bench::Image(_) | Bench::Calls(_) => {}
    }
    let begin = Instant::now();
    build()?;
    processes::adopt()?;
    let folder = target_directory().join("bench");
    fs::create_dir_all(&folder)?;
    // Sockets have short paths.
    let short = tempfile::tempdir()?;
    let casemate = Casemate::new(short.path())?;
    casemate.image()?;
    let plan = casemate.plan()?;
    casemate.end_all()?;
    let bare = Bare::new(&plan, short.path())?;
    let mut bed = Bed {
        casemate,
        bare,
        folder: short.path().to_owned(),
        call: f64::NAN,
        figures: Vec::new(),
        raw: Raw::new(),
    };
    let (name, measured) = match what {
        Bench::Run(arguments) => ("run", measure(&mut bed, arguments)),
        Bench::Image(arguments) => ("image", measure_images(&mut bed, arguments)),
        Bench::Calls(arguments) => ("calls", calls::measure(&mut bed, arguments)),
        Bench::Switch(_) | Bench::Windows(_) => return Ok(()),
    };
    // Whatever happened, nothing shall go on running.
    bed.casemate.end_all()?;
    bed.casemate.delete_volume();
    measured?;

    let acceleration = plan["acceleration"].as_str().unwrap_or("unknown").to_uppercase();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "\n{acceleration}, {} processors, load now {}, medians, {what:?}, {}\n",
        std::thread::available_parallelism().map_or(1, usize::from),
        load.split(' ').next().unwrap_or("unknown"),
        seconds(begin.elapsed())
    );
    print!("{}", table::table(&bed.figures));
    let report = json!({
        "acceleration": acceleration,
        "asked": format!("{what:?}"),
        "figures": table::json(&bed.figures),
        "samples": bed.raw,
    });
    let file = folder.join(format!("{name}.json"));
    fs::write(&file, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("could not write {}", file.display()))?;
    println!("\n{}", file.display());
    Ok(())
}

fn measure(bed: &mut Bed, arguments: &Arguments) -> Result<()> {
    start::starts_and_stops(bed, arguments.starts)?;
    pipe::calls(bed, arguments.calls)?;
    others::podman(bed, arguments.calls)?;
    others::ssh(bed, arguments.calls)?;
    pipe::throughput(bed, arguments.mebibytes)?;
    size::list(bed, arguments.calls)?;
    size::memory(bed)?;
    size::programs(bed)
}

fn measure_images(bed: &mut Bed, arguments: &image::Arguments) -> Result<()> {
    bed.casemate.delete_volume();
    start::starts_and_stops(bed, arguments.starts)?;
    image::sizes(bed, arguments.browser)?;
    storage::reads(bed, arguments.snapshots)?;
    storage::snapshots(bed, arguments.snapshots)?;
    image::refusal(bed, arguments.starts)?;
    image::builds(bed, arguments.builds)
}

/// Says what is being measured, on a line of its own.
fn now(what: &str) {
    println!("measuring {what} …");
}
