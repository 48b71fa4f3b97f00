//! `cargo xtask bench image`: building an image, its size, and how soon a damaged one is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::casemate::{NAME, WITH_BROWSER, WITH_SYSTEMD};
use super::samples::Samples;
use super::table::Figure;
use super::{Bed, now};
use crate::process::{find, is_root, output, run};

/// Options of `cargo xtask bench image`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Builds of the image, each after one of the bare programs.
    #[arg(long, default_value_t = 3)]
    pub(super) builds: usize,
    /// Starts, and refusals of a damaged kernel.
    #[arg(long, default_value_t = 7)]
    pub(super) starts: usize,
    /// Snapshots of each kind, and times each disk is read.
    #[arg(long, default_value_t = 7)]
    pub(super) snapshots: usize,
    /// Build an image with a browser too, and tell its size.
    #[arg(long)]
    pub(super) browser: bool,
}

/// `casemate image build` beside mmdebstrap and mkfs.erofs with the same packages.
pub(super) fn builds(bed: &mut Bed, count: usize) -> Result<()> {
    const FIGURE: &str = "build of the default image";
    now(&format!("{count} builds beside mmdebstrap and mkfs.erofs"));
    let manifest = show(bed, "debian")?["manifest"]["inputs"].clone();
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().into_iter().flatten();
        words.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let packages = words(&manifest["packages"]).join(",");
    let suite = manifest["suite"].as_str().context("a manifest without a suite")?;
    let (mut ours, mut bares) = (Samples::default(), Samples::default());
    for _ in 0..count {
        match bare_build(suite, &packages) {
            Ok(took) => bares.push(took),
            Err(error) => {
                bed.figures.push(Figure::unmeasured(FIGURE, format!("{error:#}")));
                return Ok(());
            }
        }
        let begin = Instant::now();
        run(bed.casemate.command(&["image", "build", "--force"]).stdout(Stdio::null()))?;
        ours.push(begin.elapsed());
    }
    let text = format!("{:.1} s", ours.median() / 1e3);
    let ratio = ours.median() / bares.median();
    bed.figures.push(Figure {
        beside: format!("{:.1} s bare programs ({ratio:.2} x)", bares.median() / 1e3),
        ..Figure::told(FIGURE, text)
    });
    let samples = json!({ "casemate-ms": ours.all(), "bare-ms": bares.all() });
    bed.raw.insert("build".into(), samples);
    Ok(())
}

/// What a person would type: no kernel, no hooks, no digest.
fn bare_build(suite: &str, packages: &str) -> Result<Duration> {
    for program in ["mmdebstrap", "mkfs.erofs"] {
        find(program).with_context(|| format!("{program} is not installed"))?;
    }
    ensure!(is_root(), "bare mmdebstrap leaves an ordinary user files of other users");
    let folder = tempfile::tempdir_in("/var/tmp")?;
    let root = folder.path().join("root");
    let begin = Instant::now();
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap
        .args(["--quiet", "--mode=root", "--variant=minbase", "--format=directory"])
        .arg(format!("--include={packages}"))
        .arg(suite)
        .arg(&root)
        .args(sources())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    run(&mut bootstrap)?;
    let mut pack = Command::new("mkfs.erofs");
    pack.args(["--quiet", "-zlz4hc"]).arg(folder.path().join("root.erofs")).arg(&root);
    run(pack.stdout(Stdio::null()).stderr(Stdio::null()))?;
    Ok(begin.elapsed())
}

/// The host's own package sources, where they are one file.
fn sources() -> Option<PathBuf> {
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
}

/// What is said of an image by its name.
fn show(bed: &Bed, image: &str) -> Result<Value> {
    let text = output(&mut bed.casemate.command(&["image", "show", image, "--json"]))?;
    serde_json::from_str(&text).context("could not read what is said of the image")
}

/// Sizes of root file systems with their hash trees.
pub(super) fn sizes(bed: &mut Bed, browser: bool) -> Result<()> {
    now("sizes (an image that is not there is built)");
    for (name, figure, goal, most) in [
        (NAME, "size, base", "<= 80 MB", 80.0),
        (WITH_SYSTEMD, "size, with systemd", "<= 95 MB", 95.0),
        (WITH_BROWSER, "size, with firefox-esr", "<= 400 MB", 400.0),
    ] {
        if name == WITH_BROWSER && !browser {
            let why = "left out: its download takes minutes; --browser";
            bed.figures.push(Figure::unmeasured(figure, why));
            continue;
        }
        // A start builds what is missing.
        run(bed.casemate.command(&["run", name, "--", "true"]).stdout(Stdio::null()))?;
        run(bed.casemate.command(&["stop", "--force", name]).stdout(Stdio::null()))?;
        let root = root_of(&bed.casemate.plan_of(name)?)?;
        let size = fs::metadata(&root)?.len() as f64 / 1e6;
        bed.figures.push(Figure::new(figure, format!("{size:.1} MB"), "", goal, size <= most));
        bed.raw.insert(format!("{figure} (MB)"), json!(size));
    }
    Ok(())
}

/// The file with the root file system that a plan starts from.
fn root_of(plan: &Value) -> Result<PathBuf> {
    let processes = plan["processes"].as_array().into_iter().flatten();
    let descriptors = processes.flat_map(|process| process["descriptors"].as_array()).flatten();
    let mut paths = descriptors.filter_map(|descriptor| descriptor["what"]["path"].as_str());
    let path = paths.find(|path| path.ends_with("root.erofs"));
    Ok(path.context("the plan has no root.erofs")?.into())
}

/// From `casemate start` to its error when one byte of the kernel is another.
pub(super) fn refusal(bed: &mut Bed, count: usize) -> Result<()> {
    const FIGURE: &str = "start refuses a damaged kernel";
    now("refusals of a damaged kernel");
    if !is_root() {
        let why = "only root may put a damaged kernel over the good one for a moment";
        bed.figures.push(Figure::unmeasured(FIGURE, why));
        return Ok(());
    }
    let image = root_of(&bed.casemate.plan()?)?;
    let kernel = image.with_file_name("kernel");
    let damaged = bed.folder.join("damaged-kernel");
    damage(&kernel, &damaged)?;
    let mut samples = Samples::default();
    for turn in 0..=count {
        let start = bed.casemate.command(&["start", NAME]);
        let mut command = Command::new("unshare");
        // Over the good one, for this start alone. The words are arguments, not the script's.
        command
            .args(["--mount", "sh", "-c", "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\""])
            .arg("sh")
            .args([&damaged, &kernel])
            .arg(start.get_program())
            .args(start.get_args());
        let begin = Instant::now();
        let done = command.stdin(Stdio::null()).output()?;
        let took = begin.elapsed();
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(!done.status.success(), "a damaged kernel was started");
        ensure!(said.contains("is damaged"), "it failed otherwise: {said}");
        if turn > 0 {
            samples.push(took);
        }
    }
    bed.figures.push(Figure::told(FIGURE, format!("{:.0} ms", samples.median())));
    bed.raw.insert("refusal-ms".into(), json!(samples.all()));
    Ok(())
}

/// A copy in which one byte in the middle is another.
fn damage(good: &Path, damaged: &Path) -> Result<()> {
    let mut bytes = fs::read(good).with_context(|| format!("could not read {}", good.display()))?;
    let middle = bytes.len() / 2;
    let byte = bytes.get_mut(middle).context("an empty kernel")?;
    *byte ^= 1;
    Ok(fs::write(damaged, bytes)?)
}
