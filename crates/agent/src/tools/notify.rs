//! The service that shows a notice in this guest's own desktop, where it has one.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};

use casemate_files::limits::MAX_NOTICE;
use casemate_files::notice::Notice;

use super::copy::raw_input;
use super::{ToolError, finish};

/// The service: the notice on standard input.
pub(super) fn serve() -> ExitCode {
    finish("casemate.Notify", show())
}

fn show() -> Result<(), ToolError> {
    let mut bytes = Vec::new();
    let read = raw_input().take(MAX_NOTICE as u64).read_to_end(&mut bytes);
    read.map_err(|error| ToolError::failed("could not read the notice", &error))?;
    let notice = Notice::parse(&bytes);
    let source = std::env::var("CASEMATE_SOURCE").unwrap_or_default();
    let headline = format!("{source}: {}", notice.headline);
    let mut command = Command::new("notify-send");
    command.args(["--app-name=casemate", "--", &headline, &notice.text]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ToolError::Failed(format!("notify-send ended with {status}"))),
        Err(error) => Err(ToolError::failed("could not run notify-send", &error)),
    }
}
