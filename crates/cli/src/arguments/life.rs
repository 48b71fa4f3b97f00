//! Running commands in compartments, and their starts and ends.

use std::ffi::OsString;

use clap::Args;

/// Arguments of `run`.
#[derive(Args, Debug)]
#[command(after_help = "Exit code: the command's own; 128 + n when signal n ended it; 125 when \
    casemate failed, 126 when the command could not be executed, 127 when it was not found.")]
pub(crate) struct Run {
    /// Run in a fresh disposable made from NAME, erased at its end.
    #[arg(long)]
    pub(crate) disposable: bool,
    /// User in the guest.
    #[arg(long, short, value_name = "NAME", conflicts_with = "root")]
    pub(crate) user: Option<String>,
    /// Run as root in the guest.
    #[arg(long)]
    pub(crate) root: bool,
    /// Working directory in the guest.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) cwd: Option<String>,
    /// Set an environment variable in the guest. May be repeated.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<String>,
    /// Leave the command running and return at once; see `casemate logs`.
    #[arg(long, short, conflicts_with_all = ["tty", "no_tty", "disposable"])]
    pub(crate) detach: bool,
    /// Give the command a terminal even when standard input or output is none.
    #[arg(long, short, overrides_with = "no_tty")]
    pub(crate) tty: bool,
    /// Give the command no terminal.
    #[arg(long, short = 'T', overrides_with = "tty")]
    pub(crate) no_tty: bool,
    /// Name of the compartment.
    pub(crate) name: String,
    /// Program and arguments, executed as they are; the user's login shell when not given.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// Arguments of `start`.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// Every compartment with `autostart = true`.
    #[arg(long, conflicts_with = "names")]
    pub(crate) autostart: bool,
    /// Names of the compartments.
    #[arg(required_unless_present = "autostart")]
    pub(crate) names: Vec<String>,
}

/// Arguments of `stop`.
#[derive(Args, Debug)]
pub(crate) struct Stop {
    /// Do not ask the guest.
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Every running compartment.
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// Names of the compartments.
    #[arg(required_unless_present = "all")]
    pub(crate) names: Vec<String>,
}

/// Arguments of `shell`.
#[derive(Args, Debug)]
pub(crate) struct ShellArguments {
    /// Open a root shell in a session of its own instead of the console.
    #[arg(long)]
    pub(crate) root: bool,
    /// Name of the compartment.
    pub(crate) name: String,
}

/// Arguments of `logs`.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Name of the compartment.
    pub(crate) name: String,
    /// The output of this detached session.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) session: Option<u32>,
    /// The guest's serial console.
    #[arg(long, conflicts_with = "session")]
    pub(crate) console: bool,
    /// Go on as lines are added, until interrupted.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The last LINES lines only.
    #[arg(long, short = 'n', value_name = "LINES")]
    pub(crate) lines: Option<usize>,
    /// Print JSON: one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        Some(_) => Err("the name is empty".into()),
        // As docker and podman do: the value the caller has.
        None => std::env::var(text).map(|value| format!("{text}={value}")).map_err(|_| {
            format!("give NAME=VALUE, or the name of a variable that is set; `{text}` is not")
        }),
    }
}
