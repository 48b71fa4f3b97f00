//! `casemate logs`: the supervisor's log, the guest's console, or a detached session's output.
//!
//! All of it can hold what a guest wrote, so control sequences are made visible before they are
//! shown.

use std::fs::File;
use std::io::{Read, Seek, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_supervise::prepare::{Target, World};
use casemate_wire::text::harmless_bytes;

use crate::arguments::Logs;
use crate::failure::Problem;
use crate::running;

/// Longest line that is held back for its end, in bytes.
const LINE_LIMIT: usize = 16 * 1024;

/// `casemate logs`.
pub(crate) fn logs(world: &World, arguments: &Logs) -> Result<u8, Problem> {
    let path = path(world, arguments)?;
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let problem = Problem::new(format!("there is no such log of `{}`", arguments.name));
            return Err(match arguments.session {
                Some(_) => problem.hint("sessions started with --detach have one"),
                None => problem.hint(format!("start it: casemate start {}", arguments.name)),
            });
        }
        Err(error) => {
            let what = format!("could not open {}", path.display());
            return Err(Problem::new(what).because(&error));
        }
    };
    let mut lines = Lines { partial: Vec::new(), json: arguments.json };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    lines.show(last(&bytes, arguments.lines));
    if !arguments.follow {
        lines.end();
        return Ok(0);
    }
    loop {
        std::thread::sleep(Duration::from_millis(200));
        bytes.clear();
        file.read_to_end(&mut bytes)?;
        lines.show(&bytes);
        if bytes.is_empty() && renewed(&path, &file) {
            file = File::open(&path)?;
        } else if bytes.is_empty() && file.metadata()?.len() < file.stream_position()? {
            // A console's log that reached its limit begins anew.
            file.rewind()?;
        }
    }
}

fn path(world: &World, arguments: &Logs) -> Result<PathBuf, Problem> {
    let name = &arguments.name;
    let in_run_directory = world.run_directory(name);
    let declared = world.settings().compartments.keys().any(|known| known.as_str() == name);
    let directory = if declared {
        world.log_directory(&Target::Declared(name.clone()))?
    } else if running::is_known(world, name) {
        in_run_directory
    } else {
        world.compartment(name)?;
        in_run_directory
    };
    Ok(directory.join(match arguments.session {
        Some(session) => format!("session-{session}.log"),
        None if arguments.console => "console.log".into(),
        None => "supervisor.log".into(),
    }))
}

/// The compartment was started again: its log is another file now.
fn renewed(path: &Path, open: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (path.metadata(), open.metadata()) {
        (Ok(there), Ok(open)) => there.ino() != open.ino(),
        _ => false,
    }
}

/// The last `count` lines of `bytes`.
fn last(bytes: &[u8], count: Option<usize>) -> &[u8] {
    let Some(count) = count else { return bytes };
    if count == 0 {
        return &[];
    }
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let starts = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match starts.map(|(at, _)| at + 1).nth(count - 1) {
        Some(start) => &bytes[start..],
        None => bytes,
    }
}

/// Shows whole lines.
struct Lines {
    partial: Vec<u8>,
    json: bool,
}

impl Lines {
    fn show(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() > LINE_LIMIT {
                self.end();
            }
        }
        let _ = stdout().flush();
    }

    fn end(&mut self) {
        if self.partial.is_empty() {
            return;
        }
        let line = self.partial.strip_suffix(b"\n").unwrap_or(&self.partial);
        let text = harmless_bytes(line.strip_suffix(b"\r").unwrap_or(line), 2 * LINE_LIMIT);
        let text = if self.json { serde_json::json!({ "line": text }).to_string() } else { text };
        // A reader that has gone wants no more.
        if writeln!(stdout(), "{text}").is_err() {
            std::process::exit(0);
        }
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn last_lines_are_whole_lines() {
        assert_eq!(last(b"a\nb\nc\n", Some(2)), b"b\nc\n");
        assert_eq!(last(b"a\nb\nc", Some(1)), b"c");
        assert_eq!(last(b"a\nb\n", Some(9)), b"a\nb\n");
        assert_eq!(last(b"a\n", Some(0)), b"");
        assert_eq!(last(b"a\nb\n", None), b"a\nb\n");
    }
}
