//! Reading a root file system's disk with and without verification, and snapshots of a volume.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::casemate::WITH_VOLUME;
use super::pipe::call;
use super::samples::Samples;
use super::table::Figure;
use super::{Bed, now};
use crate::process::{output, run};

/// MiB read from the beginning of the disk.
const SEQUENTIAL: u32 = 40;

/// Blocks of 4 KiB read from anywhere in them.
const RANDOM: u32 = 2000;

/// MiB in the volume before snapshots are taken.
const FILLED: u32 = 64;

/// Times the MiB are read, each time without a cached block: the guest's clock, which a minimal perl
/// can read, counts hundredths of a second.
const ROUNDS: u32 = 4;

/// Reads a device, one MiB after the other and then 4 KiB at the same places each time; prints the
/// seconds of both.
const READER: &str = "my ($path, $mib, $count, $rounds) = @ARGV; \
    sub now { open(my $c, '<', '/proc/uptime') or die; (split ' ', <$c>)[0] } \
    sub fresh { open(my $c, '>', '/proc/sys/vm/drop_caches') or die; print $c 3; close $c; \
      open(my $f, '<:raw', $path) or die; $f } \
    my ($first, $b) = (0); \
    for (1 .. $rounds) { my $f = fresh(); my $begin = now(); \
      for (1 .. $mib) { sysread($f, $b, 1 << 20) == 1 << 20 or die } $first += now() - $begin } \
    my $f = fresh(); srand(1); my $begin = now(); \
    for (1 .. $count) { sysseek($f, 4096 * int(rand($mib * 256)), 0) or die; \
      sysread($f, $b, 4096) == 4096 or die } \
    printf(\"%.2f %.2f\\n\", $first, now() - $begin);";

/// The guest's view: the verified device beside the disk below it.
pub(super) fn reads(bed: &mut Bed, count: usize) -> Result<()> {
    now("reading with and without verification");
    call(&mut bed.casemate.run(&["true"]))?;
    let read = |device: &str| -> Result<[f64; 2]> {
        let numbers = [SEQUENTIAL, RANDOM, ROUNDS].map(|number| number.to_string());
        let words = ["run", "--root", super::casemate::NAME, "--", "perl", "-e", READER, device];
        let mut command = bed.casemate.command(&words);
        let text = output(command.args(numbers))?;
        let mut seconds = text.split_whitespace().map(str::parse);
        let mut next = || seconds.next().context("the guest said too little");
        Ok([next()??, next()??])
    };
    let (mut verified, mut bare) = <([Samples; 2], [Samples; 2])>::default();
    // Of each the first fills the host's cache.
    for turn in 0..=count {
        for (device, samples) in [("/dev/dm-0", &mut verified), ("/dev/vda", &mut bare)] {
            let [sequential, random] = read(device)?;
            if turn > 0 {
                samples[0].add(f64::from(SEQUENTIAL * ROUNDS) / sequential);
                samples[1].add(f64::from(RANDOM) / random);
            }
        }
    }
    bed.casemate.end_all()?;
    for (index, (name, unit)) in
        [("sequential read, verified", "MiB/s"), ("random read of 4 KiB, verified", "/s")]
            .into_iter()
            .enumerate()
    {
        let (with, without) = (verified[index].median(), bare[index].median());
        let share = with / without * 100.0;
        bed.figures.push(Figure {
            beside: format!("{without:.0} {unit} without ({share:.0} %)"),
            ..Figure::told(name, format!("{with:.0} {unit}"))
        });
        let samples = json!({ "verified": verified[index].all(), "bare": bare[index].all() });
        bed.raw.insert(format!("{name} ({unit})"), samples);
    }
    Ok(())
}

/// `snapshot create` and `revert` of a volume of 1 GiB, as commands from start to end.
pub(super) fn snapshots(bed: &mut Bed, count: usize) -> Result<()> {
    now(&format!("{count} snapshots of each kind"));
    let quiet = |bed: &Bed, words: &[&str]| {
        run(bed.casemate.command(words).stdout(Stdio::null()))
            .with_context(|| format!("could not {}", words.join(" ")))
    };
    let fill = format!("head -c {FILLED}M /dev/urandom > /home/user/data/file && sync");
    quiet(bed, &["run", WITH_VOLUME, "--", "sh", "-c", &fill])?;
    let names: Vec<String> = (0..count).map(|number| format!("running-{number}")).collect();
    let (mut running, mut stopped, mut back) = <(Samples, Samples, Samples)>::default();
    for name in &names {
        // Something to write out, as a guest at work has.
        let touch = "head -c 1M /dev/urandom > /home/user/data/more";
        quiet(bed, &["run", WITH_VOLUME, "--", "sh", "-c", touch])?;
        running.push(timed(bed, &["snapshot", "create", WITH_VOLUME, name])?);
    }
    quiet(bed, &["stop", WITH_VOLUME])?;
    for number in 0..count {
        let name = format!("stopped-{number}");
        stopped.push(timed(bed, &["snapshot", "create", WITH_VOLUME, &name])?);
    }
    for name in &names {
        back.push(timed(bed, &["snapshot", "revert", WITH_VOLUME, name])?);
    }
    let (mut kept, mut gone_on) = <(Samples, Samples)>::default();
    for number in 0..count {
        let name = format!("memory-{number}");
        quiet(bed, &["start", WITH_VOLUME])?;
        kept.push(timed(bed, &["snapshot", "create", "--memory", WITH_VOLUME, &name])?);
        gone_on.push(timed(bed, &["snapshot", "revert", WITH_VOLUME, &name])?);
        quiet(bed, &["stop", WITH_VOLUME])?;
        quiet(bed, &["snapshot", "delete", WITH_VOLUME, &name])?;
    }
    for (name, samples) in [
        ("snapshot create --memory, 320 MiB", &kept),
        ("snapshot revert with memory, from stop to ready", &gone_on),
    ] {
        let (median, most) = (samples.median(), samples.quantile(1.0));
        let text = format!("{median:.0} ms (worst {most:.0})");
        bed.figures.push(Figure::told(name, text));
        bed.raw.insert(format!("{name} (ms)"), json!(samples.all()));
    }
    for (name, samples) in [
        ("snapshot create, 1 GiB, running", &running),
        ("snapshot create, 1 GiB, stopped", &stopped),
        ("snapshot revert, 1 GiB, stopped", &back),
    ] {
        let median = samples.median();
        let most = samples.quantile(1.0);
        let text = format!("{median:.0} ms (worst {most:.0})");
        bed.figures.push(Figure::new(name, text, "", "<= 100 ms", median <= 100.0));
        bed.raw.insert(format!("{name} (ms)"), json!(samples.all()));
    }
    bed.casemate.delete_volume();
    Ok(())
}

fn timed(bed: &Bed, words: &[&str]) -> Result<Duration> {
    let mut command = bed.casemate.command(words);
    let begin = Instant::now();
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let took = begin.elapsed();
    ensure!(done.success(), "{words:?} failed ({done})");
    Ok(took)
}
