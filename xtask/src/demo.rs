//! `cargo xtask demo`: from a fresh clone to a command's output out of a virtual machine, and what
//! that machine is and is not.
//!
//! Each line that begins with `$` was really run, and what it shows is checked.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::build::{build, programs};
use crate::process::{output, run, shown, workspace};
use crate::setup::{self, ensure_installed};
use crate::steps::{Steps, seconds};

/// What is sent through the pipe: enough to be seen to take a moment, 16 MiB.
const PIPED: usize = 16 << 20;

/// Does everything.
pub(crate) fn demo() -> Result<()> {
    let mut steps = Steps::new(5);
    steps.step("what has to be installed", || ensure_installed(&setup::RUN))?;
    steps.step("build the programs", build)?;
    let demo = Demo { casemate: programs().join("casemate") };
    steps.step("the image: Debian, a read-only file system and its kernel", || {
        run(demo.casemate().args(["image", "build"]))
    })?;
    steps.step("the compartment `demo` of examples/demo.toml", || demo.look())?;
    let engine = demo.engine()?;
    steps.step("stop it; it is disposable, so nothing is left", || demo.stop())?;
    steps.summary();
    println!("\nThe guest ran under {engine}.");
    println!("Now yours:\n  {}", demo.line(&["run", "demo"]));
    Ok(())
}

struct Demo {
    casemate: PathBuf,
}

impl Demo {
    fn casemate(&self) -> Command {
        let mut command = Command::new(&self.casemate);
        command.arg("--config").arg(workspace().join("examples/demo.toml"));
        command
    }

    /// A command with the paths that a reader needs to repeat it here.
    fn line(&self, arguments: &[&str]) -> String {
        let mut command = self.casemate();
        command.args(arguments);
        shown(&command).replacen("casemate", &self.casemate.display().to_string(), 1)
    }

    fn look(&self) -> Result<()> {
        println!("  a kernel of its own");
        let kernel = self.show(&[], &["uname", "-sr"])?;
        ensure!(kernel.starts_with("Linux "), "the guest has no kernel: {kernel}");

        println!("  a root whose changes stay in memory, above a disk that nobody in it can write");
        let root = self.show(&[], &["grep", " / ", "/proc/mounts"])?;
        ensure!(root.contains("lowerdir="), "the root is not an overlay: {root}");
        let read_only = self.show(&[], &["cat", "/sys/block/vda/ro"])?;
        ensure!(read_only.trim() == "1", "the disk below the root is writable");
        self.show_refusal(&["--root"], &["dd", "if=/dev/zero", "of=/dev/vda", "count=1"])?;

        println!("  no network");
        let interfaces = self.show(&[], &["ls", "/sys/class/net"])?;
        ensure!(interfaces.trim() == "lo", "the guest has a network: {interfaces}");

        println!("  a pipe through it");
        self.pipe()
    }

    /// Runs a command in the compartment and shows it with what it prints.
    fn show(&self, options: &[&str], words: &[&str]) -> Result<String> {
        let begin = Instant::now();
        println!("    $ {}", typed(options, words));
        let text = output(&mut self.run(options, words))?;
        for line in text.lines() {
            println!("      {line}");
        }
        println!("      ({})", seconds(begin.elapsed()));
        Ok(text)
    }

    /// The same for a command that must fail.
    fn show_refusal(&self, options: &[&str], words: &[&str]) -> Result<()> {
        let begin = Instant::now();
        println!("    $ {}", typed(options, words));
        let result = self.run(options, words).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&result.stderr);
        println!("      {}", said.lines().next().unwrap_or_default());
        println!("      (refused, {})", seconds(begin.elapsed()));
        ensure!(!result.status.success(), "the guest could write to the disk below its root");
        Ok(())
    }

    /// Sends bytes through the guest and compares its sum with the host's.
    fn pipe(&self) -> Result<()> {
        let bytes = noise(PIPED);
        let begin = Instant::now();
        println!("    $ head -c {} noise | {}", PIPED, typed(&[], &["sha256sum"]));
        let guest = sum(&mut self.run(&[], &["sha256sum"]), &bytes)?;
        println!("      {guest}  in the guest ({})", seconds(begin.elapsed()));
        let host = sum(&mut Command::new("sha256sum"), &bytes)?;
        println!("      {host}  on the host");
        ensure!(guest == host, "the bytes changed on their way");
        Ok(())
    }

    fn run(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = self.casemate();
        command.arg("run").args(options).arg("demo").arg("--").args(words);
        command
    }

    fn engine(&self) -> Result<&'static str> {
        let text = output(self.casemate().args(["status", "--json", "demo"]))?;
        let status: serde_json::Value =
            serde_json::from_str(&text).context("could not read the status of `demo`")?;
        Ok(match status["acceleration"].as_str() {
            Some("kvm") => "KVM",
            Some("tcg") => "TCG (emulation: slow, and no security boundary)",
            _ => "an engine that did not tell its name",
        })
    }

    fn stop(&self) -> Result<()> {
        run(self.casemate().args(["stop", "demo"]))
    }
}

fn typed(options: &[&str], words: &[&str]) -> String {
    let words = ["casemate", "run"].iter().chain(options).chain(&["demo", "--"]).chain(words);
    crate::process::words(words.map(|word| word.as_ref()))
}

/// Bytes that no compression and no mistake of order would leave alone.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The checksum that `command`, a sha256sum, prints for `bytes`.
fn sum(command: &mut Command, bytes: &[u8]) -> Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    input.write_all(bytes)?;
    drop(input);
    let mut text = String::new();
    child.stdout.take().context("no standard output")?.read_to_string(&mut text)?;
    ensure!(child.wait()?.success(), "{} failed", shown(command));
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
