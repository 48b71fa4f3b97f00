//! Reading, and finding what was done to a log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::log::{CURRENT, TAIL, rotated};
use crate::record::{NOTHING, Record, digest};

/// A line of the log.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) file: PathBuf,
    /// From 1.
    pub(crate) number: u64,
    /// Without its end.
    pub(crate) bytes: Vec<u8>,
    /// It has an end.
    pub(crate) whole: bool,
}

impl Line {
    /// It is a piece of one that is too long.
    fn is_piece(&self) -> bool {
        self.bytes.len() as u64 > TAIL
    }
}

/// A record and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// Its bytes, without the end of the line.
    pub line: Vec<u8>,
}

impl Entry {
    /// What binds the next record to it, and a head to the log.
    pub fn head(&self) -> Head {
        Head { number: self.record.number, digest: digest(&self.line) }
    }
}

/// Reads records, oldest first, and goes on with what is written meanwhile.
#[derive(Debug)]
pub struct Reader {
    files: VecDeque<PathBuf>,
    open: Option<(PathBuf, BufReader<File>, u64)>,
}

impl Reader {
    /// Reads the log in this folder. A folder that is not there has no records.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut files: VecDeque<PathBuf> = match rotated(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => VecDeque::new(),
            other => other?.into_iter().map(|(_, path)| path).collect(),
        };
        let current = folder.join(CURRENT);
        if current.exists() {
            files.push_back(current);
        }
        Ok(Self { files, open: None })
    }

    /// The next record; lines that are none are left out. None at the end, where more may come.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn next_record(&mut self) -> io::Result<Option<Record>> {
        Ok(self.next_entry()?.map(|entry| entry.record))
    }

    /// The same with its line, for who passes it on.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        while let Some(line) = self.next_line()? {
            if !line.is_piece() && !line.whole {
                return Ok(None);
            }
            if let Ok(record) = serde_json::from_slice(&line.bytes) {
                return Ok(Some(Entry { record, line: line.bytes }));
            }
        }
        Ok(None)
    }

    /// The file that is read is not the one that is written to any more.
    pub fn is_behind(&self, folder: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let written = std::fs::metadata(folder.join(CURRENT));
        let Ok(written) = written else { return false };
        let read = self.open.as_ref().and_then(|(_, file, _)| file.get_ref().metadata().ok());
        read.is_none_or(|read| (read.dev(), read.ino()) != (written.dev(), written.ino()))
    }

    /// Leaves out the records up to this number.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn skip_to(&mut self, number: u64) -> io::Result<()> {
        if number == 0 {
            return Ok(());
        }
        self.skip_files(number);
        while let Some(record) = self.next_record()? {
            if record.number >= number {
                break;
            }
        }
        Ok(())
    }

    /// Leaves out files that have only records before this one.
    pub fn skip_files(&mut self, number: u64) {
        // Each file is called by its first record: one whose next begins at or before it is all old.
        while let Some(next) = self.files.get(1)
            && let Some(first) = first_of(next)
            && first <= number
        {
            self.files.pop_front();
        }
    }

    /// The next line. A line without an end comes again with the rest that is written to it; one that
    /// is longer than any comes in pieces.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            if self.open.is_none() {
                let Some(path) = self.files.pop_front() else { return Ok(None) };
                let file = File::open(&path)?;
                self.open = Some((path, BufReader::new(file), 0));
            }
            let Some((path, file, number)) = &mut self.open else { return Ok(None) };
            let mut bytes = Vec::new();
            file.by_ref().take(TAIL + 1).read_until(b'\n', &mut bytes)?;
            let whole = bytes.ends_with(b"\n");
            if bytes.is_empty() {
                if self.files.is_empty() {
                    return Ok(None);
                }
                self.open = None;
                continue;
            }
            if !whole && bytes.len() as u64 <= TAIL {
                file.seek_relative(-(bytes.len() as i64))?;
            }
            if whole {
                bytes.pop();
            }
            *number += 1;
            return Ok(Some(Line { file: path.clone(), number: *number, bytes, whole }));
        }
    }
}

/// The number in the name of a file that was closed.
pub(crate) fn first_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()
}

/// The end of a log, to be kept where whoever may write to the log cannot: with it, records that were
/// cut off are found too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the last record.
    pub number: u64,
    /// Its digest: 64 hexadecimal digits.
    pub digest: String,
}

impl std::fmt::Display for Head {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.number, self.digest)
    }
}

impl FromStr for Head {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().split_once(':');
        let parsed = parts.and_then(|(number, digest)| {
            let is_digest =
                digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_digest.then_some(Self {
                number: number.parse().ok()?,
                digest: digest.to_ascii_lowercase(),
            })
        });
        parsed.ok_or_else(|| {
            "a head is a number, a colon and 64 hexadecimal digits, as `audit verify` prints it"
                .into()
        })
    }
}

/// Something that was done to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong there.
    pub what: String,
}

/// What was found out about a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Records that are there.
    pub records: u64,
    /// Its end; none when it is empty.
    pub head: Option<Head>,
    /// Pieces that are no records, as a writer leaves that is killed, and that were sealed.
    pub sealed: u64,
    /// Bytes at its end that are no record; the next writer seals them.
    pub unsealed: u64,
    /// The number of the first record, when earlier files are not there any more.
    pub begins_at: Option<u64>,
    /// What was done to it, in order; twenty at most.
    pub breaks: Vec<Break>,
}

/// Breaks that are told; one is enough.
const MAX_BREAKS: usize = 20;

/// Looks through the log in this folder. `known` is a head that was kept elsewhere.
///
/// # Errors
/// A file cannot be read.
pub fn verify(folder: &Path, known: Option<&Head>) -> io::Result<Verified> {
    let mut reader = Reader::open(folder)?;
    let mut state = State::default();
    while let Some(line) = reader.next_line()? {
        if line.is_piece() {
            // No writer goes on behind it, so there is nothing to be lost.
            let what = "it is longer than any record; nothing behind it was looked at";
            state.broken(&line.file, line.number, what.into());
            break;
        }
        let ended = line.whole;
        state.take(line, known);
        if !ended {
            break;
        }
    }
    Ok(state.finish(folder, known))
}

#[derive(Default)]
struct State {
    records: u64,
    sealed: u64,
    begins_at: Option<u64>,
    breaks: Vec<Break>,
    /// Number and digest of the record before.
    last: Option<Head>,
    /// Lines that are no records, whose seal must follow.
    torn: Option<Torn>,
    known_found: bool,
}

/// Lines that are no records.
struct Torn {
    file: PathBuf,
    /// The first one's number.
    line: u64,
    bytes: Vec<u8>,
}

impl State {
    fn broken(&mut self, file: &Path, line: u64, what: String) {
        if self.breaks.len() < MAX_BREAKS {
            self.breaks.push(Break { file: file.to_owned(), line, what });
        }
    }

    fn take(&mut self, line: Line, known: Option<&Head>) {
        let Line { file, number, bytes, whole } = line;
        let own = digest(&bytes);
        let record = serde_json::from_slice::<Record>(&bytes).ok().filter(|_| whole);
        let Some(record) = record else { return self.take_torn(file, number, &bytes) };
        let mut expected = self.last.clone();
        if let Some(torn) = self.torn.take() {
            let bytes = torn.bytes.len() as u64;
            let torn_digest = digest(&torn.bytes);
            let is_seal = record.event == "sealed"
                && record.previous == torn_digest
                && record.fields.get("torn-bytes").and_then(serde_json::Value::as_u64)
                    == Some(bytes);
            if is_seal {
                self.sealed += 1;
                let before = expected.map_or(0, |last| last.number);
                expected = Some(Head { number: before, digest: torn_digest });
            } else {
                self.broken(&torn.file, torn.line, "it is no record, and was not sealed".into());
                // What is behind it is judged by itself.
                expected = Some(Head {
                    number: record.number.saturating_sub(1),
                    digest: record.previous.clone(),
                });
            }
        }
        match expected {
            None if record.number == 1 && record.previous == NOTHING => {}
            // Older files may be somewhere else.
            None if record.number > 1 => self.begins_at = Some(record.number),
            None => self.broken(&file, number, "it is not what a log begins with".into()),
            Some(before) if record.number != before.number + 1 => {
                let (was, is) = (before.number, record.number);
                let what = match is {
                    is if is > was + 1 => match is - was - 1 {
                        1 => format!("record {} was removed before it", was + 1),
                        _ => format!("records {} to {} were removed before it", was + 1, is - 1),
                    },
                    _ => format!("record {is} is not in its place, behind record {was}"),
                };
                self.broken(&file, number, what);
            }
            Some(before) if record.previous != before.digest => {
                let what = format!("record {} was changed, or this one was", before.number);
                self.broken(&file, number, what);
            }
            Some(_) => {}
        }
        if let Some(known) = known.filter(|known| known.number == record.number) {
            self.known_found = true;
            if known.digest != own {
                let what = format!("record {} is not the one whose head is known", record.number);
                self.broken(&file, number, what);
            }
        }
        self.records += 1;
        self.last = Some(Head { number: record.number, digest: own });
    }

    /// A line that is no record: a seal may follow.
    fn take_torn(&mut self, file: PathBuf, line: u64, bytes: &[u8]) {
        match &mut self.torn {
            None => self.torn = Some(Torn { file, line, bytes: bytes.to_vec() }),
            Some(torn) if (torn.bytes.len() + bytes.len()) as u64 <= TAIL => {
                torn.bytes.push(b'\n');
                torn.bytes.extend_from_slice(bytes);
            }
            // More than any writer seals.
            Some(torn) => {
                let (file, line) = (torn.file.clone(), torn.line);
                self.torn = None;
                self.broken(&file, line, "it is no record, and was not sealed".into());
            }
        }
    }

    fn finish(mut self, folder: &Path, known: Option<&Head>) -> Verified {
        if let Some(known) = known
            && !self.known_found
        {
            let last = self.last.as_ref().map_or(0, |last| last.number);
            let what = match last < known.number {
                true => format!(
                    "records {} to {} were cut off: the log ended with record {} when its head was \
                     kept",
                    last + 1,
                    known.number,
                    known.number
                ),
                false => format!("record {}, whose head is known, is not there", known.number),
            };
            self.broken(&folder.join(CURRENT), 0, what);
        }
        Verified {
            records: self.records,
            head: self.last,
            sealed: self.sealed,
            unsealed: self.torn.map_or(0, |torn| torn.bytes.len() as u64),
            begins_at: self.begins_at,
            breaks: self.breaks,
        }
    }
}
