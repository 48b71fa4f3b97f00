//! The service that starts an application by the name of its desktop file.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};

use super::{ToolError, desktop, finish};

/// The service: `casemate.StartApp+org.example.Editor`. It ends when the application does.
pub(super) fn serve(words: &[OsString]) -> ExitCode {
    finish("casemate.StartApp", start(words))
}

fn start(words: &[OsString]) -> Result<(), ToolError> {
    let id = words.first().and_then(|word| word.to_str()).unwrap_or("");
    if id.is_empty() {
        return Err(ToolError::Failed("which application? Call casemate.StartApp+ID".into()));
    }
    let entry = desktop::find(id)?;
    let mut command = entry.command(None)?;
    command.stdin(Stdio::null());
    Err(ToolError::failed(&format!("could not start {id}"), &command.exec()))
}
