//! The generator: built once, run for each measurement.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::numbers;
use super::peers::{Running, System, alone, prefer};
use crate::build::target_directory;
use crate::process::{output, run, workspace};

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// Frames of that many bytes, without their check sequence.
    Frames(usize),
    /// TCP packets of that many bytes that are left to others to cut.
    Packets(usize),
}

impl Load {
    fn bytes(self) -> usize {
        let (Self::Frames(bytes) | Self::Packets(bytes)) = self;
        bytes
    }

    /// What is usual for such a load: millions of frames for short ones, else gigabits.
    pub(super) fn rate(self, mpps: f64) -> f64 {
        if self.bytes() < 100 { mpps } else { mpps * self.bytes() as f64 * 8.0 / 1000.0 }
    }

    pub(super) fn unit(self) -> &'static str {
        if self.bytes() < 100 { "Mpps" } else { "Gbit/s" }
    }
}

/// The generator's program.
pub(super) struct Generator {
    program: PathBuf,
}

impl Generator {
    /// Compiles it with this machine's DPDK.
    pub(super) fn build() -> Result<Self> {
        let folder = target_directory().join("bench");
        fs::create_dir_all(&folder)?;
        let program = folder.join("switch-generator");
        let flags = output(Command::new("pkg-config").args(["--cflags", "--libs", "libdpdk"]))?;
        run(Command::new("cc")
            .args(["-O3", "-march=native", "-w", "-o"])
            .arg(&program)
            .arg(workspace().join("xtask/guest/switch-generator.c"))
            .args(flags.split_whitespace()))?;
        Ok(Self { program })
    }

    /// Millions of frames a second, in each of so many windows.
    pub(super) fn run(&self, system: System, load: Load, windows: usize) -> Result<Vec<f64>> {
        let windows = windows.to_string();
        let size = load.bytes().to_string();
        let mut arguments =
            vec!["-m", "uni", "-t", "0.4", "-w", "0.5", "-r", &windows, "-s", &size];
        if matches!(load, Load::Packets(_)) {
            arguments.push("-T");
        }
        let answer = self.measure(&system.start(load)?, &arguments)?;
        Ok(numbers(&answer, "all"))
    }

    /// Latencies of single frames, one each millisecond.
    pub(super) fn ping(&self, system: System) -> Result<Value> {
        let arguments = ["-m", "ping", "-s", "60", "-g", "1000", "-t", "2"];
        self.measure(&system.start(Load::Frames(60))?, &arguments)
    }

    /// Percent of a processor that a system uses when nothing is sent.
    pub(super) fn idle(&self, system: System) -> Result<f64> {
        const SECONDS: u64 = 2;
        let running = system.start(Load::Frames(60))?;
        self.measure(&running, &["-m", "ping", "-s", "60", "-g", "1000", "-t", "0.1"])?;
        let before = running.ticks()?;
        std::thread::sleep(Duration::from_secs(SECONDS));
        // A tick is 10 ms on all machines this was tried on.
        Ok((running.ticks()? - before) as f64 / SECONDS as f64)
    }

    fn measure(&self, running: &Running, arguments: &[&str]) -> Result<Value> {
        let mut command = alone(0, &self.program);
        command.args(["-l", "0", "--no-pci", "--no-huge", "-m", "512", "--no-telemetry"]);
        command.args(["--log-level=lib.eal:error"]);
        command.arg(format!("--file-prefix=generator{}", std::process::id()));
        for (index, socket) in running.sockets.iter().enumerate() {
            command.arg("--vdev").arg(port(index, socket, running.connects));
        }
        command.arg("--").args(["-d", "256"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().context("could not start the generator")?;
        prefer(child.id());
        let text = child.wait_with_output().context("could not read the generator's answer")?;
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with('{'));
        ensure!(line.is_some(), "the generator has measured nothing: is the switch there?");
        Ok(serde_json::from_str(line.unwrap_or_default())?)
    }
}

/// A front-end of DPDK. Where the switch connects, the front-end listens.
fn port(index: usize, socket: &Path, switch_connects: bool) -> String {
    let server = u8::from(switch_connects);
    let mac = 0x0a + index;
    format!(
        "net_virtio_user{index},path={},server={server},queues=1,queue_size=256,\
         mac=52:54:00:00:00:{mac:02x}",
        socket.display()
    )
}
