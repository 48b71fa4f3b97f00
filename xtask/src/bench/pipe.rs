//! Calls in a running compartment, and bytes through it, beside a bare virtio-serial port.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::samples::Samples;
use super::table::Figure;
use super::{Bed, now};

/// Transfers of each kind; the figure is their median.
const TRANSFERS: usize = 5;

/// Time of a command from its start to its end.
pub(super) fn call(command: &mut Command) -> Result<Duration> {
    let begin = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let took = begin.elapsed();
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(took)
}

/// `casemate run NAME -- true` beside the bare link's round trip with a program's start.
pub(super) fn calls(bed: &mut Bed, count: usize) -> Result<()> {
    now(&format!("{count} calls in a running compartment"));
    let mut ours = Samples::default();
    call(&mut bed.casemate.run(&["true"]))?;
    for _ in 0..count {
        ours.push(call(&mut bed.casemate.run(&["true"]))?);
    }
    bed.call = ours.median();
    bed.casemate.end_all()?;
    let mut guest = bed.bare.start()?;
    let (mut trips, mut spawns) = (Samples::default(), Samples::default());
    for _ in 0..count {
        trips.push(guest.exchange(&[0; 16])?);
        spawns.push(guest.exchange(&[0])?);
    }
    drop(guest);
    bed.figures.push(Figure::new(
        "run NAME -- true, p50",
        format!("{:.1} ms", ours.median()),
        format!(
            "{:.1} ms bare round trip + spawn ({:.2} ms without)",
            spawns.median(),
            trips.median()
        ),
        "<= 10 ms",
        ours.median() <= 10.0,
    ));
    let p99 = format!("{:.1} ms", ours.quantile(0.99));
    let beside = format!("{:.1} ms bare round trip + spawn", spawns.quantile(0.99));
    bed.figures.push(Figure { beside, ..Figure::told("run NAME -- true, p99", p99) });
    let samples = json!({
        "casemate-ms": ours.all(), "bare-trip-ms": trips.all(), "bare-spawn-ms": spawns.all(),
    });
    bed.raw.insert("run-true".into(), samples);
    Ok(())
}

/// Bytes through `cat` in the guest, beside the same bytes sent back by a bare guest.
pub(super) fn throughput(bed: &mut Bed, mebibytes: usize) -> Result<()> {
    now(&format!("{TRANSFERS} transfers of {mebibytes} MiB"));
    let bytes = mebibytes << 20;
    let (mut ours, mut bares) = (Samples::default(), Samples::default());
    for _ in 0..TRANSFERS {
        // Started already, so that only the session's start is in it.
        call(&mut bed.casemate.run(&["true"]))?;
        let begin = Instant::now();
        let mut child =
            bed.casemate.run(&["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("no standard input")?;
        transfer(input, child.stdout.take().context("no standard output")?, bytes)?;
        let took = begin.elapsed();
        ensure!(child.wait()?.success(), "`casemate run cat` failed");
        ours.add(mebibytes as f64 / took.as_secs_f64());
        bed.casemate.end_all()?;

        let guest = bed.bare.start()?;
        let begin = Instant::now();
        transfer(guest.port.try_clone()?, guest.port.try_clone()?, bytes)?;
        bares.add(mebibytes as f64 / begin.elapsed().as_secs_f64());
        guest.port.shutdown(Shutdown::Both)?;
    }
    let ratio = ours.median() / bares.median();
    bed.figures.push(Figure::new(
        "stdin -> cat -> stdout",
        format!("{:.0} MiB/s ({:.0} %)", ours.median(), ratio * 100.0),
        format!("{:.0} MiB/s bare port's echo", bares.median()),
        ">= 80 %",
        ratio >= 0.8,
    ));
    let samples = json!({ "casemate-mib-per-s": ours.all(), "bare-mib-per-s": bares.all() });
    bed.raw.insert("throughput".into(), samples);
    Ok(())
}

/// Writes so many bytes into one end while as many are read from the other.
fn transfer(
    mut input: impl Write + Send + 'static,
    mut output: impl Read,
    count: usize,
) -> Result<()> {
    let writer = std::thread::spawn(move || {
        let piece = vec![0x5a; 256 * 1024];
        let mut left = count;
        while left > 0 {
            let now = left.min(piece.len());
            input.write_all(&piece[..now])?;
            left -= now;
        }
        std::io::Result::Ok(())
    });
    let mut buffer = vec![0; 256 * 1024];
    let mut left = count;
    while left > 0 {
        let read = output.read(&mut buffer)?;
        ensure!(read > 0, "{left} bytes did not come back");
        left -= read.min(left);
    }
    writer.join().ok().context("the writer panicked")??;
    Ok(())
}
