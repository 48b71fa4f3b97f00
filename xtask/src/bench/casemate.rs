//! The compartment that is measured, by the built programs.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::processes;
use crate::build::programs;
use crate::process::{output, run};

/// Its name.
pub(super) const NAME: &str = "bench-run";

/// The one with a server for ssh.
pub(super) const WITH_SSH: &str = "bench-ssh";

/// One with a volume, that lasts until it is stopped.
pub(super) const WITH_VOLUME: &str = "bench-volume";

/// One whose image has systemd.
pub(super) const WITH_SYSTEMD: &str = "bench-systemd";

/// One whose image has a browser.
pub(super) const WITH_BROWSER: &str = "bench-browser";

/// One that the first calls.
pub(super) const PEER: &str = "bench-peer";

/// All of them.
const ALL: [&str; 6] = [NAME, WITH_SSH, WITH_VOLUME, WITH_SYSTEMD, WITH_BROWSER, PEER];

/// Everything must be gone by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// The compartment.
#[derive(Debug)]
pub(super) struct Casemate {
    config: PathBuf,
}

/// How a stop went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    /// From the request to the end of the virtual machine monitor.
    pub(super) monitor: Duration,
    /// From then until no process, socket or folder was left.
    pub(super) rest: Duration,
}

impl Casemate {
    /// Writes its configuration into `folder`.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let config = folder.join("bench.toml");
        let text = "memory = \"256MiB\"\ndisposable = true\nidle-timeout = 600\n";
        let key = folder.join("volume.age");
        let all = format!(
            "[compartment.{NAME}]\n{text}\n[compartment.{WITH_SSH}]\n{text}\
             programs = [\"openssh-server\"]\n\
             [compartment.{WITH_SYSTEMD}]\n{text}guest.init = \"systemd\"\n\
             [compartment.{WITH_BROWSER}]\n{text}programs = [\"firefox-esr\"]\n\
             [compartment.{PEER}]\n{text}\
             [compartment.{WITH_VOLUME}]\nmemory = \"320MiB\"\n\
             [[compartment.{WITH_VOLUME}.volumes]]\nname = \"data\"\nsize = \"1GiB\"\n\
             mount-point = \"/home/user/data\"\nkey = {{ age = {:?} }}\n",
            key.display().to_string(),
        );
        fs::write(&config, all)?;
        Ok(Self { config })
    }

    /// `casemate` with its configuration.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs().join("casemate"));
        // What is to be known is known already; notes would be printed hundreds of times.
        command.arg("--config").arg(&self.config).args(arguments).stderr(Stdio::null());
        command
    }

    /// `casemate run` of a command in it.
    pub(super) fn run(&self, words: &[&str]) -> Command {
        let mut command = self.command(&["run", NAME, "--"]);
        command.args(words);
        command
    }

    /// Builds the image if need be.
    pub(super) fn image(&self) -> Result<()> {
        run(self.command(&["image", "build"]).stderr(Stdio::inherit()))
    }

    /// Removes the volume, if there is one.
    pub(super) fn delete_volume(&self) {
        let volume = format!("{WITH_VOLUME}/data");
        let mut command = self.command(&["volume", "delete", "--yes", &volume]);
        // There is mostly none.
        let _ = command.stdout(Stdio::null()).status();
    }

    /// What a start would do.
    pub(super) fn plan(&self) -> Result<Value> {
        self.plan_of(NAME)
    }

    /// The same of another one.
    pub(super) fn plan_of(&self, name: &str) -> Result<Value> {
        let text = output(&mut self.command(&["plan", name, "--json"]))?;
        serde_json::from_str(&text).context("could not read the plan")
    }

    /// How it is.
    pub(super) fn status(&self) -> Result<Value> {
        let text = output(&mut self.command(&["status", NAME, "--json"]))?;
        serde_json::from_str(&text).context("could not read the status")
    }

    /// Stops what runs, and waits until all is gone.
    pub(super) fn end_all(&self) -> Result<()> {
        for name in ALL {
            run(self.command(&["stop", name]).stdout(Stdio::null()).stderr(Stdio::inherit()))?;
        }
        await_all_gone(Instant::now())
    }

    /// Stops it and watches how.
    pub(super) fn stop(&self) -> Result<Stop> {
        let status = self.status()?;
        let monitor = status["processes"].as_array().and_then(|processes| {
            processes.iter().find(|process| process["role"] == "vmm")?["pid"].as_i64()
        });
        let monitor = monitor.context("the status names no virtual machine monitor")? as i32;
        let socket = runtime().join(format!("{NAME}.sock"));
        let folder = runtime().join(NAME);
        let begin = Instant::now();
        let mut client = self.command(&["stop", NAME]).spawn()?;
        let mut ended = None;
        loop {
            let now = begin.elapsed();
            if ended.is_none() && processes::has_ended(monitor) {
                ended = Some(now);
            }
            if let Some(monitor) = ended
                && processes::all_gone()
                && !socket.exists()
                && !folder.exists()
            {
                // It was waited for with the others.
                let _ = client.try_wait();
                return Ok(Stop { monitor, rest: begin.elapsed() - monitor });
            }
            ensure!(now < PATIENCE, "after {PATIENCE:?} not everything was gone");
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

/// Where run directories are: root's, or an ordinary user's.
fn runtime() -> PathBuf {
    if crate::process::is_root() {
        return "/run/casemate".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_absolute()) {
        Some(path) => Path::new(&path).join("casemate"),
        None => format!("/tmp/casemate-{}", nix::unistd::geteuid()).into(),
    }
}

/// Waits until we have no descendants.
pub(super) fn await_all_gone(begin: Instant) -> Result<()> {
    while !processes::all_gone() {
        if begin.elapsed() > PATIENCE {
            bail!("after {PATIENCE:?} these still run: {:?}", processes::names());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Starts a command and waits for the first byte it prints; what it took: wall and processor time
/// of it and all that it started.
pub(super) fn first_byte(command: &mut Command) -> Result<(Child, Duration, Duration)> {
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut byte = [0];
    loop {
        match child.stdout.as_mut().context("no output")?.read(&mut byte) {
            Ok(1) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => bail!("no output came: {result:?}"),
        }
    }
    let wall = begin.elapsed();
    Ok((child, wall, processes::spent()))
}
