//! `casemate-supervisor`: keeps one running compartment. Started by `casemate` or by systemd.

use std::path::PathBuf;
use std::process::ExitCode;

use casemate_supervise::keeper::{self, Start};
use casemate_supervise::prepare::Target;
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
    keeper::keep(Start { target, config: arguments.config })
}
