//! Bare QEMU with the machine, kernel and memory that casemate would use, and a tiny guest.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{casemate, cpio};
use crate::process::{run, workspace};

/// Longest wait for an answer of the guest.
const PATIENCE: Duration = Duration::from_secs(30);

/// A bare machine to be started.
#[derive(Debug)]
pub(super) struct Bare {
    program: PathBuf,
    arguments: Vec<String>,
    port: PathBuf,
}

/// A running one; killed when dropped.
#[derive(Debug)]
pub(super) struct Guest {
    child: Child,
    /// Connected to its virtio-serial port.
    pub(super) port: UnixStream,
}

impl Bare {
    /// From the plan of casemate's start; files are made in `folder`.
    pub(super) fn new(plan: &Value, folder: &Path) -> Result<Self> {
        let initrd = folder.join("bare-initrd");
        fs::write(&initrd, cpio::initrd(&fs::read(compile(folder)?)?))?;
        let processes = plan["processes"].as_array().context("a plan without processes")?;
        let monitor = processes.iter().find(|process| process["role"] == "vmm");
        let monitor = monitor.context("a plan without a virtual machine monitor")?;
        let planned: Vec<&str> = monitor["arguments"]
            .as_array()
            .context("no arguments")?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let port = folder.join("port");
        let translate = Translate { monitor, initrd: &initrd, port: &port };
        let mut arguments = Vec::new();
        let mut words = planned.into_iter().peekable();
        while let Some(switch) = words.next() {
            let value = words.next_if(|word| !word.starts_with('-'));
            if let Some(value) = translate.value(switch, value)? {
                arguments.push(switch.to_owned());
                arguments.extend(value);
            }
        }
        let program = monitor["program"].as_str().context("no program")?.into();
        Ok(Self { program, arguments, port })
    }

    /// The command, its serial console being standard output.
    pub(super) fn command(&self) -> Command {
        let _ = fs::remove_file(&self.port);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    /// Starts one and waits until its port answers.
    pub(super) fn start(&self) -> Result<Guest> {
        let (child, _, _) = casemate::first_byte(&mut self.command())?;
        let port = UnixStream::connect(&self.port);
        let mut guest = Guest { child, port: port.context("could not connect to the port")? };
        guest.port.set_read_timeout(Some(PATIENCE))?;
        guest.exchange(&[0; 2])?;
        Ok(guest)
    }
}

impl Guest {
    /// Sends bytes and waits until as many came back.
    pub(super) fn exchange(&mut self, bytes: &[u8]) -> Result<Duration> {
        let begin = Instant::now();
        self.port.write_all(bytes)?;
        let mut back = vec![0; bytes.len()];
        self.port.read_exact(&mut back).context("the bare guest did not answer")?;
        let took = begin.elapsed();
        ensure!(back == bytes, "the bare guest sent back something else");
        Ok(took)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills QEMU; the guest has nothing to lose.
pub(super) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// From casemate's arguments, which name descriptors and paths in a jail, to paths.
struct Translate<'a> {
    monitor: &'a Value,
    initrd: &'a Path,
    port: &'a Path,
}

impl Translate<'_> {
    /// The value for a switch; none leaves the switch out.
    fn value(&self, switch: &str, value: Option<&str>) -> Result<Option<Option<String>>> {
        // Nobody would tell it to go on.
        if switch == "-S" {
            return Ok(None);
        }
        let Some(value) = value else { return Ok(Some(None)) };
        let chardev = |id: &str| switch == "-chardev" && value.contains(&format!("id={id},"));
        Ok(match switch {
            "-add-fd" => None,
            "-kernel" => Some(Some(self.file("/boot/kernel")?)),
            "-initrd" => Some(Some(self.initrd.display().to_string())),
            "-accel" if value.starts_with("kvm") => Some(Some("kvm".into())),
            _ if chardev("console") => Some(Some("stdio,id=console,signal=off".into())),
            _ if chardev("monitor") => Some(Some("null,id=monitor".into())),
            _ if chardev("agent") => Some(Some(format!(
                "socket,id=agent,path={},server=on,wait=off",
                self.port.display()
            ))),
            "-blockdev" => Some(Some(self.disk(value)?)),
            _ => Some(Some(value.to_owned())),
        })
    }

    /// The host's file for a path in the jail.
    fn file(&self, target: &str) -> Result<String> {
        let files = self.monitor["jail"]["files"].as_array().context("a jail without files")?;
        let file = files.iter().find(|file| file["target"] == target);
        let source = file.and_then(|file| file["source"].as_str());
        Ok(source.with_context(|| format!("the jail has no {target}"))?.to_owned())
    }

    /// `filename=/dev/fdset/N` becomes the path of descriptor N.
    fn disk(&self, value: &str) -> Result<String> {
        let Some((before, rest)) = value.split_once("/dev/fdset/") else {
            return Ok(value.to_owned());
        };
        let (number, after) = rest.split_once(',').unwrap_or((rest, ""));
        let number: i64 = number.parse()?;
        let descriptors = self.monitor["descriptors"].as_array().context("no descriptors")?;
        let disk = descriptors.iter().find(|descriptor| descriptor["number"] == number);
        let path = disk.and_then(|disk| disk["what"]["path"].as_str());
        Ok(format!("{before}{},{after}", path.context("a disk without a file")?))
    }
}

/// Compiles the guest's only program.
fn compile(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("bench-init");
    run(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "-Copt-level=3", "-Cpanic=abort", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", "-o"])
        .arg(&program)
        .arg(workspace().join("xtask/guest/bench-init.rs"))
        .stdin(Stdio::null()))?;
    Ok(program)
}
