//! `casemate-open-url URL [TARGET]`, which can be the `$BROWSER` of a guest, and the service that opens
//! an address with this compartment's browser.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use casemate_files::limits::MAX_URL;
use casemate_files::url;

use super::copy::raw_input;
use super::{ToolError, finish, handler};
use crate::caller::Line;

const SERVICE: &str = "casemate.OpenURL";

/// The command.
pub(super) fn request(words: Vec<OsString>) -> ExitCode {
    finish("casemate-open-url", call(words))
}

fn call(words: Vec<OsString>) -> Result<(), ToolError> {
    const USAGE: &str = "usage: casemate-open-url URL [TARGET]";
    let mut words = words.into_iter();
    let text = words.next().and_then(|word| word.into_string().ok());
    let text = text.ok_or(ToolError::Usage(USAGE))?;
    let target = words.next().unwrap_or_else(|| "@default".into());
    let text = url::check(&text).map_err(|error| ToolError::failed("", &error))?;
    let mut line = Line::open(&target, SERVICE.as_ref())
        .map_err(|error| ToolError::failed("could not call", &error))?;
    let output = line.output.take().ok_or(ToolError::Usage(USAGE))?;
    let told = File::from(output).write_all(text.as_bytes());
    let (code, reason) = line.end().map_err(|error| ToolError::failed("", &error))?;
    match (code, told) {
        (0, Ok(())) => Ok(()),
        (0, Err(error)) => Err(ToolError::failed("", &error)),
        (code, _) => Err(ToolError::of_call(code, &reason)),
    }
}

/// The service: an address on standard input.
pub(super) fn serve() -> ExitCode {
    finish(SERVICE, read_address(&mut raw_input()).and_then(|address| handler::open_url(&address)))
}

fn read_address(input: &mut impl Read) -> Result<String, ToolError> {
    let mut text = String::new();
    // One more than allowed is enough to be refused.
    let read = input.take(MAX_URL as u64 + 2).read_to_string(&mut text);
    read.map_err(|error: io::Error| ToolError::failed("could not read the address", &error))?;
    let address = text.strip_suffix('\n').unwrap_or(&text);
    url::check(address).map_err(|error| ToolError::failed("", &error)).map(str::to_owned)
}
