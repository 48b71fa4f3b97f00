//! `casemate-supervisor`: keeps one running compartment. Started by `casemate` or by systemd.

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use casemate_supervise::keeper::{self, Start};
use casemate_supervise::prepare::Target;
use casemate_supervise::volumes::Passphrases;
use casemate_volume::Secret;
use clap::Parser;

/// Keeps one running compartment. `casemate` starts it; there is no need to do so by hand.
#[derive(Debug, Parser)]
#[command(name = "casemate-supervisor", version)]
struct Arguments {
    /// Name of the compartment, or of the template of a fresh disposable.
    #[arg(required_unless_present = "probe_kvm")]
    name: Option<String>,
    /// The only configuration file (or folder) to read.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Run a fresh disposable with this number.
    #[arg(long, value_name = "NUMBER")]
    fresh: Option<u32>,
    /// Read passphrases of volumes from standard input, one line of JSON: volume to passphrase.
    #[arg(long)]
    passphrases: bool,
    /// Find out whether KVM works, say so on standard output, and end.
    #[arg(long, hide = true)]
    probe_kvm: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(name) = arguments.name else {
        return keeper::probe_kvm();
    };
    let target = match arguments.fresh {
        Some(number) => Target::Fresh { template: name, number },
        None => Target::Declared(name),
    };
    let passphrases = if arguments.passphrases { typed() } else { Passphrases::default() };
    keeper::keep(Start { target, config: arguments.config, passphrases })
}

/// What whoever starts this process has typed. What cannot be read is as if nothing was.
fn typed() -> Passphrases {
    let mut line = String::new();
    // Passphrases have 512 bytes at most each.
    let read = std::io::stdin().lock().take(64 * 1024).read_line(&mut line);
    let passphrases = read.ok().and_then(|_| serde_json::from_str(&line).ok());
    drop(Secret::new(line.into_bytes()));
    passphrases.unwrap_or_default()
}
