//! What others take for the same call: podman, and ssh into a guest of casemate's.
//!
//! A compartment is offline, so ssh's connection is carried by `casemate run … sshd -i`. Once it
//! stands, calls over it (`ControlMaster`) pay for ssh alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::json;

use super::pipe::call;
use super::samples::Samples;
use super::table::Figure;
use super::{Bed, now};
use crate::process::{find, output, run};

/// A container's command beside a compartment's.
pub(super) fn podman(bed: &mut Bed, count: usize) -> Result<()> {
    const NAME: &str = "podman exec … true, p50";
    let Some(podman) = find("podman") else {
        bed.figures.push(Figure::unmeasured(NAME, "podman is not installed"));
        return Ok(());
    };
    now("podman");
    let root = bed.folder.join("container");
    fs::create_dir_all(&root)?;
    // As process 1 it waits for ever, else it does nothing.
    fs::copy(bed.folder.join("bench-init"), root.join("init"))?;
    let mut start = Command::new(&podman);
    start.args(["run", "--detach", "--rm", "--network=none", "--rootfs"]).arg(&root).arg("/init");
    let container = match output(&mut start) {
        Ok(id) => id.trim().to_owned(),
        Err(error) => {
            bed.figures.push(Figure::unmeasured(NAME, format!("{error:#}")));
            return Ok(());
        }
    };
    let mut samples = Samples::default();
    let mut measure = || -> Result<()> {
        for _ in 0..count.min(50) {
            samples.push(call(Command::new(&podman).args(["exec", &container, "/init"]))?);
        }
        Ok(())
    };
    let measured = measure();
    run(Command::new(&podman).args(["kill", &container]).stdout(Stdio::null()))?;
    measured?;
    compare(bed, NAME, &samples, 10.0, "run <= 1/10 of it");
    Ok(())
}

/// The same call through ssh.
pub(super) fn ssh(bed: &mut Bed, count: usize) -> Result<()> {
    const FRESH: &str = "ssh … true, p50";
    const KEPT: &str = "ssh … true, kept connection, p50";
    let (Some(ssh), Some(keygen)) = (find("ssh"), find("ssh-keygen")) else {
        bed.figures.push(Figure::unmeasured(FRESH, "ssh is not installed"));
        return Ok(());
    };
    now("ssh (its image is built the first time)");
    run(Command::new(keygen)
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(bed.folder.join("key")))?;
    if let Err(error) = set_up_guest(bed) {
        bed.figures.push(Figure::unmeasured(FRESH, format!("{error:#}")));
        return Ok(());
    }
    let (mut fresh, mut kept) = (Samples::default(), Samples::default());
    for _ in 0..count.div_ceil(20).max(7) {
        fresh.push(call(&mut client(bed, &ssh, &["-oControlPath=none", "root@guest", "true"]))?);
    }
    let socket = format!("-oControlPath={}", bed.folder.join("kept").display());
    // What carries it is ended with its compartment and says so.
    run(client(bed, &ssh, &["-oControlMaster=yes", &socket, "-f", "-N", "root@guest"])
        .stderr(Stdio::null()))?;
    for _ in 0..count {
        kept.push(call(&mut client(bed, &ssh, &[&socket, "root@guest", "true"]))?);
    }
    run(client(bed, &ssh, &[&socket, "-O", "exit", "root@guest"]).stderr(Stdio::null()))?;
    compare(bed, FRESH, &fresh, 5.0, "run <= 1/5 of it");
    let text = format!("{:.1} ms", kept.median());
    bed.figures.push(Figure::told(KEPT, text));
    bed.raw.insert("ssh-kept-ms".into(), json!(kept.all()));
    bed.casemate.end_all()
}

/// Keys and folders in the guest with the server.
fn set_up_guest(bed: &Bed) -> Result<()> {
    let guest = |words: &[&str]| {
        let mut command = bed.casemate.command(&["run", "--root", super::casemate::WITH_SSH, "--"]);
        command.args(words).stderr(Stdio::inherit());
        command
    };
    run(&mut guest(&["mkdir", "-p", "/run/sshd"]))?;
    run(&mut guest(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/run/bench-host"]))?;
    let key = fs::File::open(bed.folder.join("key.pub")).context("no key was made")?;
    run(guest(&["tee", "/run/bench-user"]).stdin(key).stdout(Stdio::null()))
}

/// `ssh` with nothing of the user's own settings.
fn client(bed: &Bed, ssh: &Path, words: &[&str]) -> Command {
    let carrier = bed.casemate.command(&["run", "--root", super::casemate::WITH_SSH, "--"]);
    let server = [
        "/usr/sbin/sshd",
        "-i",
        "-f",
        "/dev/null",
        "-h",
        "/run/bench-host",
        "-oAuthorizedKeysFile=/run/bench-user",
        "-oStrictModes=no",
        "-oUsePAM=no",
    ];
    let line = std::iter::once(carrier.get_program())
        .chain(carrier.get_args())
        .chain(server.iter().map(|word| word.as_ref()));
    let mut command = Command::new(ssh);
    command
        .args(["-F", "none", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"])
        .args(["-oBatchMode=yes", "-oLogLevel=ERROR", "-i"])
        .arg(bed.folder.join("key"))
        .arg(format!("-oProxyCommand={}", crate::process::words(line)))
        .args(words);
    command
}

/// Says what the other took, and whether a call of casemate takes at most one part in `parts`.
fn compare(bed: &mut Bed, name: &'static str, other: &Samples, parts: f64, goal: &'static str) {
    let ratio = other.median() / bed.call;
    bed.figures.push(Figure::new(
        name,
        format!("{:.1} ms (run takes 1/{ratio:.0})", other.median()),
        format!("{:.1} ms run NAME -- true", bed.call),
        goal,
        ratio >= parts,
    ));
    bed.raw.insert(format!("{name} (ms)"), json!(other.all()));
}
