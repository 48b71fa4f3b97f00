//! Asking before anything is changed as root.

use std::io::{BufRead, IsTerminal, Write, stdin, stdout};
use std::process::Command;

use anyhow::Result;

use crate::failure::HostNotReady;
use crate::process::{find, is_root, run, shown};

/// Runs commands as root: at once when we are; else after showing them with `sudo` and asking.
///
/// # Errors
/// [`HostNotReady`] with the lines to type when nobody answers yes or nobody can be asked.
pub(super) fn as_root(commands: Vec<Command>) -> Result<()> {
    if is_root() {
        for mut command in commands {
            println!("$ {}", shown(&command));
            run(&mut command)?;
        }
        return Ok(());
    }
    let lines: Vec<String> = commands.iter().map(|it| format!("sudo {}", shown(it))).collect();
    println!("to be run as root:");
    for line in &lines {
        println!("  {line}");
    }
    let not_ready = || HostNotReady(format!("run this, then try again: {}", lines.join(" && ")));
    let Some(sudo) = find("sudo").filter(|_| stdin().is_terminal()) else {
        return Err(not_ready().into());
    };
    print!("Run it now? [y/N] ");
    stdout().flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        return Err(not_ready().into());
    }
    for command in commands {
        let mut elevated = Command::new(&sudo);
        elevated.arg("--").arg(command.get_program()).args(command.get_args());
        run(&mut elevated)?;
    }
    Ok(())
}
