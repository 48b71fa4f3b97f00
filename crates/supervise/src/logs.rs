//! Reading the logs of a compartment for a person. Processes of the compartment wrote them, so
//! every line is made harmless.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use casemate_wire::text::harmless_bytes;

/// How far back the end of a log is looked at, in bytes.
const TAIL: u64 = 16 * 1024;

/// Longest line shown, in bytes.
const LINE: usize = 400;

/// The last `count` lines that are not blank; none when the log cannot be read.
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let Ok(mut file) = File::open(path) else { return Vec::new() };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).is_err()
        || file.take(TAIL).read_to_end(&mut bytes).is_err()
    {
        return Vec::new();
    }
    let lines: Vec<String> = bytes
        .split(|&byte| byte == b'\n')
        .map(|line| harmless_bytes(line, LINE).trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}
