//! Calls of services and copies of files, beside what they are made of: sessions, and `cat` through one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::casemate::{NAME, PEER};
use super::pipe::call;
use super::samples::Samples;
use super::table::Figure;
use super::{Bed, now};
use crate::process::{cargo, output, run};

/// Options of `cargo xtask bench calls`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Calls of each kind.
    #[arg(long, default_value_t = 200)]
    calls: usize,
    /// Copies of each kind; the figures are medians.
    #[arg(long, default_value_t = 9)]
    copies: usize,
    /// MiB of the file that is copied. Its copies are in the guest's memory.
    #[arg(long, default_value_t = 48)]
    mebibytes: u64,
    /// Without the policy engine, which is built for it.
    #[arg(long)]
    no_policy: bool,
}

/// Service that does nothing: `true` under another name.
const SERVICE: &str = "bench.True";

/// Measures.
pub(super) fn measure(bed: &mut Bed, arguments: &Arguments) -> Result<()> {
    let policy =
        format!("bench.True * {NAME} {PEER} allow\ncasemate.Filecopy * {NAME} {PEER} allow\n");
    fs::create_dir_all(bed.folder.join("policy.d"))?;
    fs::write(bed.folder.join("policy.d/30-bench.policy"), policy)?;
    let link = "mkdir -p /etc/casemate/rpc; ln -sf /bin/true /etc/casemate/rpc/bench.True";
    for name in [NAME, PEER] {
        run(&mut bed.casemate.command(&["run", "--root", name, "--", "sh", "-c", link]))?;
    }
    from_host(bed, arguments.calls)?;
    from_guest(bed, arguments.calls)?;
    copies(bed, arguments)?;
    match arguments.no_policy {
        true => Ok(()),
        false => decisions(bed),
    }
}

fn quantiles(samples: &Samples) -> String {
    format!("p50 {:.1} ms, p99 {:.1} ms", samples.median(), samples.quantile(0.99))
}

/// `casemate call` and `casemate run`, taking turns.
fn from_host(bed: &mut Bed, count: usize) -> Result<()> {
    now(&format!("{count} calls from the host beside sessions"));
    let (mut calls, mut sessions) = (Samples::default(), Samples::default());
    for turn in 0..=count {
        let session = call(&mut bed.casemate.run(&["true"]))?;
        let called = call(&mut bed.casemate.command(&["call", NAME, SERVICE]))?;
        if turn > 0 {
            calls.push(called);
            sessions.push(session);
        }
    }
    told(bed, "call host to guest", &calls, &sessions, "session");
    Ok(())
}

/// Adds a figure of two sorts of samples.
fn told(bed: &mut Bed, name: &'static str, calls: &Samples, others: &Samples, what: &str) {
    let ratio = calls.median() / others.median();
    bed.figures.push(Figure {
        beside: format!("{} {what}", quantiles(others)),
        ..Figure::told(name, format!("{} ({ratio:.2} x)", quantiles(calls)))
    });
    bed.raw.insert(name.into(), json!({ "calls-ms": calls.all(), "beside-ms": others.all() }));
}

/// Calls by a guest, which starts a program for each, beside starting a program there, and whole
/// sessions. The host says when, and measures.
fn from_guest(bed: &mut Bed, count: usize) -> Result<()> {
    now(&format!("{count} calls from guest to guest"));
    let line = format!(
        "while read what; do case $what in call) casemate-call {PEER} {SERVICE} </dev/null;; \
         refused) casemate-call {PEER} bench.None </dev/null 2>/dev/null;; *) /bin/true;; esac; \
         echo; done"
    );
    let mut command = bed.casemate.run(&["sh", "-c", &line]);
    let mut guest = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut to = guest.stdin.take().context("no standard input")?;
    let mut from = BufReader::new(guest.stdout.take().context("no standard output")?);
    let mut ask = |word: &str| -> Result<Duration> {
        let begin = Instant::now();
        to.write_all(format!("{word}\n").as_bytes())?;
        let mut answer = String::new();
        ensure!(from.read_line(&mut answer)? == 1, "the guest has gone");
        Ok(begin.elapsed())
    };
    let mut samples = [Samples::default(), Samples::default(), Samples::default()];
    let mut sessions = Samples::default();
    for turn in 0..=count {
        let times = [ask("call")?, ask("refused")?, ask("program")?];
        let session = call(&mut bed.casemate.run(&["true"]))?;
        if turn > 0 {
            samples.iter_mut().zip(times).for_each(|(samples, time)| samples.push(time));
            sessions.push(session);
        }
    }
    drop(to);
    guest.wait()?;
    let [calls, refused, programs] = samples;
    told(bed, "call guest to guest", &calls, &sessions, "session");
    told(bed, "call that is refused", &refused, &programs, "start of a program in the guest");
    Ok(())
}

/// Copies each way, beside `cat` with the same file the same way.
fn copies(bed: &mut Bed, arguments: &Arguments) -> Result<()> {
    let (count, mebibytes) = (arguments.copies, arguments.mebibytes);
    now(&format!("{count} copies of {mebibytes} MiB each way beside cat"));
    let home = bed.folder.join("home");
    fs::create_dir_all(&home)?;
    let file = home.join("file");
    let length = (mebibytes * 1024 * 1024).to_string();
    run(Command::new("dd")
        .args(["if=/dev/urandom", "bs=1M", "status=none"])
        .arg(format!("count={mebibytes}"))
        .stdout(File::create(&file)?))?;
    let fresh = format!("rm -rf Incoming /tmp/f; head -c {length} /dev/zero > /tmp/source");
    run(&mut bed.casemate.run(&["sh", "-c", &fresh]))?;
    let into = format!("{NAME}:");
    let out = format!("{NAME}:/tmp/source");
    let clear = |bed: &Bed| -> Result<()> {
        let _ = fs::remove_dir_all(home.join("Incoming"));
        let _ = fs::remove_file(home.join("out"));
        for name in [NAME, PEER] {
            let line = ["run", name, "--", "rm", "-rf", "Incoming", "/tmp/f"];
            run(&mut bed.casemate.command(&line))?;
        }
        Ok(())
    };
    let ours = |bed: &Bed, words: &[&str]| call(bed.casemate.command(words).env("HOME", &home));
    let (mut copied, mut catted) = (pairs(), pairs());
    for turn in 0..=count {
        clear(bed)?;
        let path = file.display().to_string();
        let copy_in = ours(bed, &["copy", &path, &into])?;
        let copy_out = ours(bed, &["copy", &out])?;
        clear(bed)?;
        let cat_in = cat(&mut bed.casemate.run(&["sh", "-c", "cat > /tmp/f"]), Some(&file), None)?;
        let cat_out =
            cat(&mut bed.casemate.run(&["cat", "/tmp/source"]), None, Some(&home.join("out")))?;
        clear(bed)?;
        let line = format!("casemate-copy /tmp/source {PEER}");
        let copy_across = call(&mut bed.casemate.run(&["sh", "-c", &line]))?;
        if turn > 0 {
            for (samples, time) in copied.iter_mut().zip([copy_in, copy_out, copy_across]) {
                samples.add(mebibytes as f64 / time.as_secs_f64());
            }
            for (samples, time) in catted.iter_mut().zip([cat_in, cat_out]) {
                samples.add(mebibytes as f64 / time.as_secs_f64());
            }
        }
    }
    for (index, name) in ["copy host to guest", "copy guest to host"].into_iter().enumerate() {
        let (ours, cats) = (copied[index].median(), catted[index].median());
        let share = ours / cats;
        bed.figures.push(Figure::new(
            name,
            format!("{ours:.0} MiB/s ({:.0} %)", share * 100.0),
            format!("{cats:.0} MiB/s cat"),
            ">= 90 %",
            share >= 0.9,
        ));
        let samples =
            json!({ "copy-mib-s": copied[index].all(), "cat-mib-s": catted[index].all() });
        bed.raw.insert(name.into(), samples);
    }
    let across = &copied[2];
    bed.figures.push(Figure::told("copy guest to guest", format!("{:.0} MiB/s", across.median())));
    bed.raw.insert("copy guest to guest".into(), json!({ "copy-mib-s": across.all() }));
    Ok(())
}

fn pairs() -> [Samples; 3] {
    Default::default()
}

fn cat(command: &mut Command, from: Option<&Path>, to: Option<&Path>) -> Result<Duration> {
    let stdin = from.map_or(Ok(Stdio::null()), |path| File::open(path).map(Stdio::from))?;
    let stdout = to.map_or(Ok(Stdio::null()), |path| File::create(path).map(Stdio::from))?;
    let begin = Instant::now();
    let status = command.stdin(stdin).stdout(stdout).status()?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(begin.elapsed())
}

/// What the engine needs for a decision, by its own benchmark.
fn decisions(bed: &mut Bed) -> Result<()> {
    now("decisions by 1000 rules");
    let text = output(cargo().args(["bench", "--quiet", "-p", "casemate-policy"]))?;
    let line = text.lines().find(|line| line.starts_with("50 services: decide, any"));
    let line = line.context("the benchmark of the policy says something else")?;
    let rest = line.split_once("calls").map_or("", |(_, rest)| rest);
    let words: Vec<&str> = rest.split_whitespace().collect();
    let figure = format!(
        "{} (p99 {})",
        words[..words.len() / 2].join(" "),
        words[words.len() / 2..].join(" ")
    );
    bed.figures.push(Figure::told("policy decision, 1000 rules", figure));
    Ok(())
}
