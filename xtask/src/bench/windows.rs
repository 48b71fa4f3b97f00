//! Windows: one client at the bare compositor, through the proxy, and through waypipe alone.
//!
//! The compositor is sway without a screen. The three take turns, several rounds, so that other load
//! falls on all; figures are medians of the rounds. Nothing of a compartment is in them: they are
//! what the proxy itself costs. What a compartment adds until there is something to see is in
//! [`super::first_frame`].

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::first_frame::{self, Bed, FirstFrames};
use super::samples::Samples;
use super::table::{self, Figure};
use super::{Raw, now};
use crate::build::{build, build_static, programs, target_directory};
use crate::process::{cargo, find, is_root, output, run};

/// Options of `cargo xtask bench windows`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Rounds; each measures everything once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Questions and answers in a round.
    #[arg(long, default_value_t = 2000)]
    round_trips: usize,
    /// Commits in a round.
    #[arg(long, default_value_t = 50_000)]
    commits: usize,
    /// Seconds of 60 frames each in a round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Not from the start of a program in a compartment to its first frame.
    #[arg(long)]
    no_compartment: bool,
    /// Nothing else than that, by the programs that are built already.
    #[arg(long, conflicts_with = "no_compartment")]
    only_compartment: bool,
}

/// Somebody who is not root: sway refuses him.
const NOBODY: u32 = 65_534;

const CONFIG: &str = "output HEADLESS-1 resolution 1280x720\nxwayland disable\n";

/// Ticks of the kernel's clock of processes in a second (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// Processes that end with this.
#[derive(Debug, Default)]
struct Started(Vec<Child>);

impl Drop for Started {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A way to the compositor.
struct Way {
    name: &'static str,
    display: PathBuf,
    /// Processes on the way.
    processes: Vec<u32>,
    round_trip: Samples,
    commits: Samples,
    cpu: Samples,
}

/// Measures and prints.
pub(super) fn windows(arguments: &Arguments) -> Result<()> {
    for program in ["sway", "setpriv"] {
        ensure!(find(program).is_some(), "{program} is not installed (cargo xtask test does that)");
    }
    if !arguments.only_compartment {
        build_all(arguments)?;
    }
    let folder = tempfile::tempdir()?;
    let mut started = Started::default();
    let mut ways = ways(folder.path(), &mut started)?;
    let bed = match arguments.no_compartment {
        true => None,
        false => Some(Bed::new(folder.path())?),
    };
    let mut frames = FirstFrames::default();
    for round in 1..=arguments.rounds {
        now(&format!("windows, round {round} of {}", arguments.rounds));
        if !arguments.only_compartment {
            for way in &mut ways {
                measure(way, arguments, folder.path())?;
            }
        }
        if let Some(bed) = &bed {
            let piped = ways.get(2).map(|way| way.display.as_path());
            bed.measure(&ways[0].display, piped, &mut frames)?;
        }
    }
    let mut figures = if arguments.only_compartment { Vec::new() } else { figures(&ways) };
    if let Some(bed) = &bed {
        bed.stop()?;
        figures.extend(first_frame::figures(&frames));
    }
    println!("\n{} rounds, medians, {arguments:?}\n", arguments.rounds);
    print!("{}", table::table(&figures));
    report(&ways, &frames, &figures)
}

fn build_all(arguments: &Arguments) -> Result<()> {
    if !arguments.no_compartment {
        build()?;
    }
    build_static(&[("casemate-wayland", "casemate-wayland")])?;
    run(cargo()
        .args(["build", "--release", "--locked", "--package", "casemate-wayland"])
        .args(["--example", "measure"]))
}

/// Everything that was measured, in a file.
fn report(ways: &[Way], frames: &FirstFrames, figures: &[Figure]) -> Result<()> {
    let mut raw = Raw::new();
    let all = json!({
        "direct-ms": frames.direct.all(),
        "waypipe-ms": frames.waypipe.all(),
        "running-ms": frames.running.all(),
        "stopped-ms": frames.stopped.all(),
    });
    raw.insert("first-frame".into(), all);
    for way in ways {
        let samples = json!({
            "round-trip-us": way.round_trip.all(),
            "commits-per-second": way.commits.all(),
            "cpu-percent": way.cpu.all(),
        });
        raw.insert(way.name.into(), samples);
    }
    let folder = target_directory().join("bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join("windows.json");
    let report = json!({"figures": table::json(figures), "samples": raw});
    fs::write(&file, serde_json::to_string_pretty(&report)?)?;
    println!("\n{}", file.display());
    Ok(())
}

/// Starts the compositor and everything before it.
fn ways(folder: &Path, started: &mut Started) -> Result<Vec<Way>> {
    let config = folder.join("config");
    fs::write(&config, CONFIG)?;
    let mut sway = Command::new("setpriv");
    if is_root() {
        chown(folder, Some(NOBODY), Some(NOBODY))?;
        sway.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    sway.args(["--pdeathsig", "KILL", "--", "sway", "-c"]).arg(&config);
    sway.env("WLR_BACKENDS", "headless").env("WLR_RENDERER", "pixman");
    sway.env("WLR_LIBINPUT_NO_DEVICES", "1").env_remove("WAYLAND_DISPLAY").env_remove("DISPLAY");
    let bare = folder.join("wayland-1");
    start(&mut sway, folder, &bare, started)?;
    let mut ways = vec![Way::new("bare", bare.clone(), vec![])];

    let socket = folder.join("proxied");
    let mut proxy = Command::new(programs().join("casemate-wayland"));
    proxy.args(["--compartment", "bench", "--color", "cc2222", "--listen"]).arg(&socket);
    proxy.arg("--upstream").arg(&bare);
    let pid = start(&mut proxy, folder, &socket, started)?;
    ways.push(Way::new("proxy", socket, vec![pid]));

    if let Some(waypipe) = find("waypipe") {
        let between = folder.join("between");
        let words = ["--compress", "none", "--no-gpu", "-s"];
        let mut client = Command::new(&waypipe);
        client.args(words).arg(&between).arg("client").env("WAYLAND_DISPLAY", &bare);
        let first = start(&mut client, folder, &between, started)?;
        let socket = folder.join("piped");
        let mut server = Command::new(&waypipe);
        server.args(words).arg(&between).args([
            "--display",
            "piped",
            "server",
            "--",
            "sleep",
            "3600",
        ]);
        let second = start(&mut server, folder, &socket, started)?;
        ways.push(Way::new("waypipe", socket, vec![first, second]));
    }
    Ok(ways)
}

/// Starts a program and waits until it has made its socket.
fn start(command: &mut Command, folder: &Path, socket: &Path, all: &mut Started) -> Result<u32> {
    let log = fs::File::create(folder.join(format!("log-{}", all.0.len())))?;
    command.env("XDG_RUNTIME_DIR", folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().with_context(|| format!("could not start {command:?}"))?;
    let pid = child.id();
    all.0.push(child);
    let begin = Instant::now();
    while !socket.exists() {
        ensure!(begin.elapsed() < Duration::from_secs(10), "{} did not appear", socket.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(pid)
}

impl Way {
    fn new(name: &'static str, display: PathBuf, processes: Vec<u32>) -> Self {
        let samples = Samples::default;
        Self { name, display, processes, round_trip: samples(), commits: samples(), cpu: samples() }
    }

    /// Seconds of processor time that the processes on the way and theirs have had.
    fn cpu_time(&self) -> Result<f64> {
        let mut all = self.processes.clone();
        let mut at = 0;
        while let Some(&pid) = all.get(at) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            at += 1;
        }
        let mut ticks = 0.0;
        for pid in all {
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            // Behind the name, which may hold anything: proc_pid_stat(5).
            let fields = stat.rsplit_once(") ").context("a line of /proc")?.1;
            let fields: Vec<&str> = fields.split(' ').collect();
            for field in [11, 12] {
                ticks += fields.get(field).context("a field")?.parse::<f64>()?;
            }
        }
        Ok(ticks / TICKS)
    }
}

fn measure(way: &mut Way, arguments: &Arguments, folder: &Path) -> Result<()> {
    let client = |what: &str, count: String| -> Result<Value> {
        let mut measure = Command::new(programs().join("examples/measure"));
        measure.args([what, &count]);
        measure.env("WAYLAND_DISPLAY", &way.display).env("XDG_RUNTIME_DIR", folder);
        Ok(serde_json::from_str(&output(&mut measure)?)?)
    };
    let number = |value: Value, key: &str| value[key].as_f64().context("no number");
    let trips = client("round-trips", arguments.round_trips.to_string())?;
    let commits = client("commits", arguments.commits.to_string())?;
    let before = way.cpu_time()?;
    let begin = Instant::now();
    client("frames", arguments.seconds.to_string())?;
    let cpu = (way.cpu_time()? - before) / begin.elapsed().as_secs_f64();
    way.round_trip.add(number(trips, "microseconds")?);
    way.commits.add(number(commits, "per-second")?);
    way.cpu.add(cpu * 100.0);
    Ok(())
}

fn figures(ways: &[Way]) -> Vec<Figure> {
    let [bare, proxy, ..] = ways else { return Vec::new() };
    let pipe = ways.get(2);
    let beside = |value: &dyn Fn(&Way) -> f64, unit: &str| {
        let piped =
            pipe.map_or_else(|| "not installed".into(), |it| format!("{:.0}{unit}", value(it)));
        format!("direct {:.0}{unit}, waypipe {piped}", value(bare))
    };
    let trip = |way: &Way| way.round_trip.median();
    let commits = |way: &Way| way.commits.median();
    let cpu = |way: &Way| way.cpu.median();
    let added = trip(proxy) - trip(bare);
    let share = commits(proxy) / commits(bare);
    vec![
        Figure::new(
            "round trip, added by the proxy",
            format!("{added:.0} µs"),
            beside(&trip, " µs"),
            "<= 60 µs",
            added <= 60.0,
        ),
        Figure::new(
            "commits per second",
            format!("{:.0} ({:.0} % of direct)", commits(proxy), share * 100.0),
            beside(&commits, ""),
            ">= 60 % of direct",
            share >= 0.6,
        ),
        Figure::new(
            "processor, 60 full frames a second",
            format!("{:.1} % of one", cpu(proxy)),
            beside(&cpu, " %"),
            "<= 2 %",
            cpu(proxy) <= 2.0,
        ),
    ]
}
