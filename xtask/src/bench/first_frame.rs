//! Windows: from the start of a program to the first frame that the compositor has of it: direct,
//! through waypipe alone, and out of a compartment that runs or has to be started first.
//!
//! A window is new to sway when it has its first content; its events say when. All ways take turns.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::samples::Samples;
use super::table::Figure;
use crate::build::programs;
use crate::process::run;

/// The compartment.
const NAME: &str = "bench-window";

/// The program.
const FOOT: [&str; 5] = ["foot", "-w", "300x200", "sleep", "600"];

/// How long a window may take; an emulated guest takes three seconds to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// Times of one round, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct FirstFrames {
    pub(super) direct: Samples,
    pub(super) waypipe: Samples,
    pub(super) running: Samples,
    pub(super) stopped: Samples,
}

/// What is measured, and how.
#[derive(Debug)]
pub(super) struct Bed {
    folder: PathBuf,
    config: PathBuf,
}

/// New windows, as sway tells of them.
struct Events {
    swaymsg: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.swaymsg.kill();
        let _ = self.swaymsg.wait();
    }
}

impl Bed {
    /// Builds the image, if need be. `folder` is the compositor's.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let config = folder.join("bench.toml");
        let text = format!(
            "[compartment.{NAME}]\nmemory = 512\ndisposable = true\nidle-timeout = 600\n\
             programs = [\"foot\", \"waypipe\"]\n"
        );
        fs::write(&config, text)?;
        let bed = Self { folder: folder.to_owned(), config };
        run(bed.casemate(&["image", "build"]).stderr(Stdio::inherit()))?;
        Ok(bed)
    }

    fn casemate(&self, words: &[&str]) -> Command {
        let mut command = Command::new(programs().join("casemate"));
        command.arg("--config").arg(&self.config).args(words).stderr(Stdio::null());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Stops the compartment.
    pub(super) fn stop(&self) -> Result<()> {
        run(&mut self.casemate(&["stop", NAME]))
    }

    /// One round of everything. `bare` and `piped` are displays.
    pub(super) fn measure(
        &self,
        bare: &Path,
        piped: Option<&Path>,
        into: &mut FirstFrames,
    ) -> Result<()> {
        let foot = || {
            let mut command = Command::new(FOOT[0]);
            command.args(&FOOT[1..]).env("XDG_RUNTIME_DIR", &self.folder);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        into.direct.push(self.frame(foot().env("WAYLAND_DISPLAY", bare))?);
        if let Some(piped) = piped {
            into.waypipe.push(self.frame(foot().env("WAYLAND_DISPLAY", piped))?);
        }
        let inside = || {
            let mut command = self.casemate(&["run", NAME, "--"]);
            command.args(FOOT).env("WAYLAND_DISPLAY", bare);
            command
        };
        self.stop()?;
        into.stopped.push(self.frame(&mut inside())?);
        into.running.push(self.frame(&mut inside())?);
        Ok(())
    }

    /// From the start of a program to its first frame. It is ended then.
    fn frame(&self, command: &mut Command) -> Result<Duration> {
        let mut events = self.events()?;
        let begin = Instant::now();
        let mut child = command.spawn().with_context(|| format!("could not start {command:?}"))?;
        let seen = events.next("new").map(|()| begin.elapsed());
        let killed = terminate(&child);
        let _ = child.wait();
        let time = seen?;
        killed?;
        events.next("close")?;
        Ok(time)
    }

    fn events(&self) -> Result<Events> {
        let entries = fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path());
        let mut sockets = entries.filter(|path| path.to_string_lossy().contains("/sway-ipc"));
        let socket = sockets.next().context("sway has no socket for commands")?;
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string());
        command.args(["swaymsg", "--raw", "--monitor", "--type", "subscribe"]);
        // The answer to the second comes at once: from then on nothing is missed.
        command.arg("[\"window\",\"tick\"]").env("SWAYSOCK", socket);
        let mut swaymsg = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = swaymsg.stdout.take().context("swaymsg has no output")?;
        let mut events = Events { swaymsg, lines: BufReader::new(stdout).lines() };
        let first = events.lines.next().context("sway says nothing")??;
        ensure!(first.contains("\"first\""), "sway said {first:?} first");
        Ok(events)
    }
}

impl Events {
    /// Waits for a change of a window.
    fn next(&mut self, change: &str) -> Result<()> {
        for line in &mut self.lines {
            let event: Value = serde_json::from_str(&line?)?;
            if event["change"] == change {
                return Ok(());
            }
        }
        bail!("no window was seen ({change}) in {} s", PATIENCE.as_secs())
    }
}

/// Asks a program to end.
fn terminate(child: &Child) -> Result<()> {
    run(Command::new("kill").arg(child.id().to_string()))
}

/// The figures, beside the same program direct.
pub(super) fn figures(times: &FirstFrames) -> Vec<Figure> {
    let direct = times.direct.median();
    let row = |name, samples: &Samples| {
        let median = samples.median();
        let ratio = median / direct;
        let beside = format!("direct {direct:.0} ms, waypipe {:.0} ms", times.waypipe.median());
        let told = Figure::told(name, format!("{median:.0} ms ({ratio:.1} times direct)"));
        Figure { beside, ..told }
    };
    vec![
        row("first frame, running compartment", &times.running),
        row("first frame, stopped compartment", &times.stopped),
    ]
}
