//! `cargo xtask bench switch`: the switch beside OVS-DPDK and DPDK's own vhost, taking turns.
//!
//! One generator process (`xtask/guest/switch-generator.c`) on processor 0 is two guests; the
//! switch under test is on processor 1. No machine is started. Where processors are virtual their
//! distance changes within seconds, and throughput with it: hence short windows, turns, medians.

mod generator;
mod peers;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::samples::Samples;
use super::table::{self, Figure};
use super::{Raw, now};
use crate::build::target_directory;
use crate::process::{cargo, output};
use crate::setup::{SWITCH, ensure_installed};
use crate::steps::seconds;
use generator::{Generator, Load};
use peers::{HugePages, System};

/// Options of `cargo xtask bench switch`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Rounds; in each of them all systems take their turn.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Windows of 0.4 s that each system is measured in each round.
    #[arg(long, default_value_t = 5)]
    windows: usize,
    /// The switch alone.
    #[arg(long)]
    alone: bool,
}

/// A load and how many times OVS-DPDK's median ours should be.
const LOADS: [(Load, &str, f64, &str); 3] = [
    (Load::Frames(60), "64 B one way", 1.4, "≥ 1.4 × OVS"),
    (Load::Frames(1514), "1518 B one way", 2.0, "≥ 2 × OVS"),
    (Load::Packets(65_000), "64 KiB TSO one way", 2.5, "≥ 2.5 × OVS"),
];

/// Measures. Only root can give the processes a processor of their own.
pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    let begin = Instant::now();
    ensure!(crate::process::is_root(), "only root can run this bench: it sets aside huge pages");
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        bail!("this bench needs two processors");
    }
    ensure_installed(&SWITCH)?;
    crate::process::run(cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "casemate-switch",
    ]))?;
    let generator = Generator::build()?;
    let _pages = HugePages::reserve()?;
    let mut raw = Raw::new();
    let mut figures = Vec::new();
    throughput(arguments, &generator, &mut figures, &mut raw)?;
    latency(&generator, &mut figures, &mut raw)?;
    ports(&mut figures)?;

    println!("\nmedians, {}\n", seconds(begin.elapsed()));
    print!("{}", table::table(&figures));
    let report = json!({ "figures": table::json(&figures), "samples": raw });
    let folder = target_directory().join("bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join("switch.json");
    fs::write(&file, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("could not write {}", file.display()))?;
    println!("\n{}", file.display());
    Ok(())
}

fn throughput(
    arguments: &Arguments,
    generator: &Generator,
    figures: &mut Vec<Figure>,
    raw: &mut Raw,
) -> Result<()> {
    let systems = match arguments.alone {
        true => &[System::OURS][..],
        false => &[System::OURS, System::Ovs, System::Dpdk],
    };
    let mut samples = vec![[const { None::<Samples> }; LOADS.len()]; systems.len()];
    for round in 1..=arguments.rounds {
        for (system, samples) in systems.iter().zip(&mut samples) {
            now(&format!("{}, round {round} of {}", system.name(), arguments.rounds));
            for ((load, ..), samples) in LOADS.iter().zip(samples) {
                if !system.can(*load) {
                    continue;
                }
                // A peer that fails is told in the table, by having no figures.
                let windows = match (generator.run(*system, *load, arguments.windows), system) {
                    (Err(error), System::Ours { .. }) => return Err(error),
                    (Err(error), _) => {
                        println!("  {error:#}");
                        continue;
                    }
                    (Ok(windows), _) => windows,
                };
                let samples = samples.get_or_insert_default();
                windows.into_iter().for_each(|rate| samples.add(rate));
            }
        }
    }
    for (index, (load, name, goal, goal_text)) in LOADS.into_iter().enumerate() {
        let of = |system: usize| samples.get(system).and_then(|loads| loads[index].as_ref());
        let Some(ours) = of(0) else { continue };
        let shown = |samples: &Samples| {
            let [low, middle, high] = [0.0, 0.5, 1.0].map(|part| load.rate(samples.quantile(part)));
            format!("{middle:.1} ({low:.1}–{high:.1})")
        };
        let unit = load.unit();
        let mut beside = Vec::new();
        for (number, system) in systems.iter().enumerate().skip(1) {
            if let Some(samples) = of(number) {
                beside.push(format!("{} {}", shown(samples), system.name()));
            }
        }
        let measured = format!("{} {unit}", shown(ours));
        figures.push(match of(1) {
            Some(ovs) => {
                let times = ours.median() / ovs.median();
                let measured = format!("{measured}, {times:.2} ×");
                Figure::new(name, measured, beside.join("; "), goal_text, times >= goal)
            }
            None => Figure::told(name, measured),
        });
        for (number, system) in systems.iter().enumerate() {
            if let Some(samples) = of(number) {
                raw.insert(format!("{name}, {}, Mpps", system.name()), samples.all().into());
            }
        }
    }
    Ok(())
}

/// One frame each millisecond.
fn latency(generator: &Generator, figures: &mut Vec<Figure>, raw: &mut Raw) -> Result<()> {
    for (name, spin, most, goal) in [
        ("latency at gaps of 1 ms, p50", 0, 64.0, "≤ 64 µs"),
        ("the same with --spin-us 2000", 2000, 5.0, "≤ 5 µs"),
    ] {
        now(name);
        let answer = generator.ping(System::Ours { spin })?;
        let of = |key: &str| answer[key].as_f64().unwrap_or(f64::NAN);
        let measured = format!("{:.1} µs (p99 {:.1})", of("us_p50"), of("us_p99"));
        figures.push(Figure::new(name, measured, "", goal, of("us_p50") <= most));
        raw.insert(name.to_owned(), answer);
    }
    now("an idle switch");
    let share = generator.idle(System::OURS)?;
    let measured = format!("{share:.1} % of a processor");
    figures.push(Figure::new("idle", measured, "", "0 %", share == 0.0));
    Ok(())
}

/// What a frame costs with few and many ports, in one process.
fn ports(figures: &mut Vec<Figure>) -> Result<()> {
    now("ports");
    let text = output(cargo().args(["bench", "--locked", "--package", "casemate-switch"]))?;
    let cost = |ports: usize| {
        let start = format!("   60 bytes, {ports:>2} ports:");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
    };
    let (Some(few), Some(many)) = (cost(2), cost(64)) else { bail!("no figures from: {text}") };
    let measured = format!("{many:.0} ns a frame with 64 ports");
    let beside = format!("{few:.0} ns with 2");
    figures.push(Figure {
        name: "64 B in one process, other caches' share apart",
        measured: Ok(measured),
        beside,
        goal: None,
        met: None,
    });
    Ok(())
}

/// Numbers of a list in an answer.
fn numbers(answer: &Value, key: &str) -> Vec<f64> {
    answer[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}
