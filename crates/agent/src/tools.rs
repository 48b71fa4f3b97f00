//! What the agent's program is by its other names: commands for the guest's programs, and the services
//! that every guest has without a file of its own.
//!
//! All of them run as the one who calls, or as the compartment's user, and have no rights of their own.
//! The guest is not protected from what its own program does; the other compartment is, by checks of the
//! same kind at its end.

mod apps;
mod copy;
mod desktop;
mod handler;
mod menu;
mod notify;
mod open;
mod web;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use casemate_wire::date::iso_8601;

use crate::caller;

pub use copy::send_to_host as send;
pub use menu::send_to_host as send_menu;

/// A program under one of the names.
pub type Tool = fn(Vec<OsString>) -> ExitCode;

/// Option with which the host has files sent to it.
pub const SEND: &str = "--send-files";

/// Option with which the host has applications told to it.
pub const SEND_MENU: &str = "--send-menu";

/// Names for programs of the guest; the second for scripts that were written for Qubes.
pub(crate) const COMMANDS: [&str; 6] = [
    "casemate-call",
    "qrexec-client-vm",
    "casemate-copy",
    "casemate-move",
    "casemate-open-in-vm",
    "casemate-open-url",
];

/// Names of services.
const SERVICES: [&str; 6] = [
    "casemate.Filecopy",
    "casemate.OpenInVM",
    "casemate.OpenURL",
    "casemate.StartApp",
    "casemate.Notify",
    "casemate.Date",
];

/// Whether the agent has a service of this name.
pub(crate) fn is_service(name: &str) -> bool {
    SERVICES.contains(&name)
}

/// What a program called so does.
pub fn named(argument_0: &OsStr) -> Option<Tool> {
    let name = Path::new(argument_0).file_name()?.to_str()?;
    Some(match name {
        "casemate-call" | "qrexec-client-vm" => {
            |words| caller::run(words, caller::shows_on_terminal())
        }
        "casemate-copy" => |words| copy::request(words, false),
        "casemate-move" => |words| copy::request(words, true),
        "casemate-open-in-vm" => open::request,
        "casemate-open-url" => web::request,
        "casemate.Filecopy" => |_| copy::serve(),
        "casemate.OpenInVM" => |words| open::serve(&words),
        "casemate.OpenURL" => |_| web::serve(),
        "casemate.StartApp" => |words| apps::serve(&words),
        "casemate.Notify" => |_| notify::serve(),
        "casemate.Date" => |_| date(),
        _ => return None,
    })
}

/// The time, as Qubes gives it: ISO 8601, UTC.
fn date() -> ExitCode {
    let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    println!("{}", iso_8601(seconds));
    ExitCode::SUCCESS
}

/// Why a tool did not do it, for whoever reads its standard error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// Words it does not understand.
    #[error("{0}")]
    Usage(&'static str),
    /// The call did not go through or ended badly.
    #[error("{reason}")]
    Call {
        /// Exit code of the call.
        code: u8,
        /// Why.
        reason: String,
    },
    /// Something of this guest.
    #[error("{0}")]
    Failed(String),
}

impl ToolError {
    fn failed(what: &str, error: &dyn std::error::Error) -> Self {
        let mut text = if what.is_empty() { String::new() } else { format!("{what}: ") };
        text.push_str(&error.to_string());
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self::Failed(text)
    }

    /// How a call ended that did not end well.
    fn of_call(code: u8, reason: &str) -> Self {
        let reason = match (reason, code) {
            ("", _) => format!("the service ended with {code}"),
            (reason, _) => reason.to_owned(),
        };
        Self::Call { code, reason }
    }
}

/// Says how it ended.
fn finish(name: &str, result: Result<(), ToolError>) -> ExitCode {
    let error = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    eprintln!("{name}: {error}");
    ExitCode::from(match error {
        ToolError::Usage(_) => 2,
        ToolError::Call { code: 0, .. } | ToolError::Failed(_) => 1,
        ToolError::Call { code, .. } => code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_program_does_something() {
        for name in COMMANDS.into_iter().chain(SERVICES) {
            assert!(named(OsStr::new(name)).is_some(), "{name}");
        }
        assert!(named(OsStr::new("/usr/bin/qrexec-client-vm")).is_some());
        for name in ["/init", "casemate-agent", "", "@agent"] {
            assert!(named(OsStr::new(name)).is_none(), "{name}");
        }
    }
}
