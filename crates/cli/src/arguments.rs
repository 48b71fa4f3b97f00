//! The command line, as clap understands it.

mod exchange;
mod life;
mod network;
mod storage;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use exchange::{
    Audit, AuditFilter, Broker, Call, Clipboard, Copy, GraphFormat, Menu, Open, Policy, PolicyFrom,
    Take,
};
pub(crate) use life::{Logs, Run, ShellArguments, Start, Stop};
pub(crate) use network::{Net, NetCapture, NetTest};
pub(crate) use storage::{Image, Secret, Snapshot, Volume};

/// Run applications and services in isolated virtual machines.
#[derive(Debug, Parser)]
#[command(name = "casemate", version, propagate_version = true, subcommand_required = true)]
pub(crate) struct Arguments {
    /// Read this configuration file (or folder) and no other.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Show the guest's console while a compartment starts.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a compartment, starting the compartment if it is down.
    Run(Run),
    /// Start a compartment.
    Start(Start),
    /// Shut a compartment down.
    Stop(Stop),
    /// Shut a compartment down and start it again.
    Restart(Names),
    /// Stop executing a compartment's code, keeping it in memory.
    Pause(Name),
    /// Go on executing a paused compartment's code.
    Resume(Name),
    /// List the compartments and their states.
    #[command(visible_alias = "ls")]
    List(Json),
    /// Show how a compartment is.
    Status(NameJson),
    /// Attach to a compartment's serial console. Ctrl-] leaves.
    Shell(ShellArguments),
    /// Show a compartment's logs.
    Logs(Logs),
    /// Print what starting a compartment would do, without doing it.
    Plan(NameJson),
    /// Check the configuration.
    Check(Check),
    /// Look for what is wrong with this machine, or with a running guest.
    Doctor(Doctor),
    /// Build and show images.
    #[command(subcommand)]
    Image(Image),
    /// Show and change the encrypted disks of compartments.
    #[command(subcommand)]
    Volume(Volume),
    /// Write the secrets of compartments.
    #[command(subcommand)]
    Secret(Secret),
    /// Keep and bring back states of a compartment's volumes.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Say which compartment may call what in which other.
    #[command(subcommand)]
    Policy(Policy),
    /// Call a service of a compartment.
    Call(Call),
    /// Answer questions about calls in this terminal.
    Ask,
    /// Show what was done and decided, and whether the log of it was altered.
    #[command(subcommand)]
    Audit(Audit),
    /// Decide a call of a guest; started by its supervisor.
    #[command(hide = true)]
    Broker(Broker),
    /// Say what compartments reach by their links to the host and in networks.
    #[command(subcommand)]
    Net(Net),
    /// Find out whether configuration, policy, programs and images are as they were recorded.
    Verify(Verify),
    /// Copy files into a compartment, or from one to this host.
    Copy(Copy),
    /// Copy files, and remove them where they were once everything has arrived.
    Move(Copy),
    /// Open a file or a web address in another compartment.
    Open(Open),
    /// Read what a guest sends; started by other commands.
    #[command(hide = true, subcommand)]
    Take(Take),
    /// Carry a clipboard from one compartment to another, as the policy allows.
    #[command(subcommand)]
    Clipboard(Clipboard),
    /// Put a compartment's applications into your menu.
    #[command(subcommand)]
    Menu(Menu),
    /// Write systemd units for socket activation.
    Units(Units),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Write the manual pages.
    Man {
        /// Folder to write them to.
        directory: PathBuf,
    },
}

/// A compartment.
#[derive(Args, Debug)]
pub(crate) struct Name {
    /// Name of the compartment.
    pub(crate) name: String,
}

/// Several compartments.
#[derive(Args, Debug)]
pub(crate) struct Names {
    /// Names of the compartments.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

/// A form for programs.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Json {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A compartment, and a form for programs.
#[derive(Args, Debug)]
pub(crate) struct NameJson {
    /// Name of the compartment.
    pub(crate) name: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the JSON Schema of the configuration and check nothing.
    #[arg(long, conflicts_with_all = ["json", "reference"])]
    pub(crate) schema: bool,
    /// Print the reference of the configuration (Markdown) and check nothing.
    #[arg(long, conflicts_with = "json")]
    pub(crate) reference: bool,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 when nothing is an error; 1 with an error among the findings, \
    or when the guest could not be asked."
)]
pub(crate) struct Doctor {
    /// Look at the running guest of this compartment, from inside.
    #[arg(long, value_name = "NAME")]
    pub(crate) guest: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Record everything as it is now. The digest of the record goes to the audit log.
    #[arg(long)]
    pub(crate) record: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "record")]
    pub(crate) json: bool,
}

/// Arguments of `units`.
#[derive(Args, Debug)]
pub(crate) struct Units {
    /// Folder to write them to; standard output when not given.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) output: Option<PathBuf>,
}

/// The command line with the short names of the program resolved: `vm-run x` is `casemate run x`.
pub(crate) fn expand(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let program = arguments.first().map(PathBuf::from).unwrap_or_default();
    let short = match program.file_name().and_then(|name| name.to_str()) {
        Some("vm-run") => &["run"][..],
        Some("vm-start") => &["start"],
        Some("vm-start-debug") => &["start", "--verbose"],
        Some("vm-stop") => &["stop"],
        Some("vm-shell") => &["shell"],
        _ => return arguments,
    };
    arguments[0] = "casemate".into();
    arguments.splice(1..1, short.iter().map(OsString::from));
    arguments
}

/// Whether a command line, right or wrong, is one of `run`, whose exit codes 1 to 124 belong to
/// the command.
pub(crate) fn are_of_run(words: &[OsString]) -> bool {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--config") => drop(words.next()),
            Some(option) if option.starts_with('-') => {}
            other => return other == Some("run"),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_after_the_compartment_belong_to_the_command() {
        let arguments = ["casemate", "run", "demo", "ls", "--all", "-t"];
        let parsed = Arguments::try_parse_from(arguments).expect("parses");
        let Command::Run(run) = parsed.command else { panic!("run expected") };
        assert_eq!(run.name, "demo");
        assert_eq!(run.command, ["ls", "--all", "-t"]);
        assert!(!run.tty);
    }

    #[test]
    fn wrong_lines_of_run_are_known() {
        let of_run =
            |line: &str| are_of_run(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(of_run("casemate run --nonsense demo"));
        assert!(of_run("casemate -v --config run run"));
        assert!(!of_run("casemate --config run start"));
        assert!(!of_run("casemate --nonsense"));
    }

    #[test]
    fn short_names_stand_for_commands() {
        let expanded = expand(["/usr/bin/vm-run", "demo", "true"].map(OsString::from).to_vec());
        assert_eq!(expanded, ["casemate", "run", "demo", "true"]);
    }
}
