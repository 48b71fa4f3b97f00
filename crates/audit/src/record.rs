//! Records: their fields, their bytes, and the digest that binds the next one to them.

use casemate_host::clock;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// What the first record has in the place of a digest.
pub(crate) const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Something worth a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened: `start`, `stop`, `session`, `call`, …
    pub kind: &'static str,
    /// The compartment it happened to; none for things of the machine.
    pub compartment: Option<String>,
    /// More about it, by name.
    pub fields: Vec<(&'static str, Value)>,
}

impl Event {
    /// Something that happened to a compartment.
    pub fn of(compartment: &str, kind: &'static str) -> Self {
        Self { kind, compartment: Some(compartment.to_owned()), fields: Vec::new() }
    }

    /// Something that happened to something else.
    pub fn general(kind: &'static str) -> Self {
        Self { kind, compartment: None, fields: Vec::new() }
    }

    /// With one more field.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// A record as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 1.
    pub number: u64,
    /// When, UTC, as RFC 3339 has it.
    pub time: String,
    /// User id of who wrote it.
    pub user: u32,
    /// Process id of who wrote it.
    pub process: u32,
    /// What happened.
    pub event: String,
    /// The compartment it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compartment: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
    /// Digest of the line before, without its end: SHA-256, 64 hexadecimal digits.
    pub previous: String,
}

impl Record {
    pub(crate) fn new(number: u64, previous: String, event: &Event) -> Self {
        let fields = event.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Self {
            number,
            time: rfc_3339(clock::now_ns()),
            user: nix::unistd::getuid().as_raw(),
            process: std::process::id(),
            event: event.kind.to_owned(),
            compartment: event.compartment.clone(),
            fields: fields.collect(),
            previous,
        }
    }

    /// The line, without its end.
    ///
    /// # Panics
    /// Never: all of it has a JSON form.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).expect("a record has a JSON form")
    }

    /// When, in whole seconds since 1970; none when it is no time.
    pub fn seconds(&self) -> Option<u64> {
        // Times of one form compare as their texts do; the inverse of the clock's own division is
        // found by halving.
        let text = self.time.get(..19)?;
        let (mut low, mut high) = (0_u64, 1 << 34);
        while low < high {
            let middle = (low + high) / 2;
            match rfc_3339(middle * 1_000_000_000).get(..19)? {
                at if at < text => low = middle + 1,
                _ => high = middle,
            }
        }
        (rfc_3339(low * 1_000_000_000).get(..19)? == text).then_some(low)
    }
}

/// The digest of a line.
pub(crate) fn digest(line: &[u8]) -> String {
    let bytes = Sha256::digest(line);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `2026-11-22T18:30:05.123456Z`.
fn rfc_3339(nanoseconds: u64) -> String {
    let stamp = clock::stamp(nanoseconds / 1_000_000_000);
    let (date, time) = stamp.split_once('T').unwrap_or((&stamp, ""));
    let time = time.trim_end_matches('Z').replace('-', ":");
    format!("{date}T{time}.{:06}Z", nanoseconds % 1_000_000_000 / 1000)
}

/// Not a time that records can be looked up by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time: 30s, 10m, 2h, 7d back from now, or a date such as 2026-11-22 or 2026-11-22T18:30"
)]
pub struct TimeError(String);

/// The earliest time that is meant, as records begin with: `2h` before `now` (seconds since 1970), or
/// the beginning of a date.
///
/// # Errors
/// It is neither.
pub fn parse_since(text: &str, now: u64) -> Result<String, TimeError> {
    let no = || TimeError(text.to_owned());
    if let Some((count, unit)) = text.char_indices().last().map(|(at, unit)| (&text[..at], unit))
        && let Ok(count) = count.parse::<u64>()
        && let Some(factor) = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)]
            .iter()
            .find_map(|(letter, factor)| (*letter == unit).then_some(*factor))
    {
        let back = count.checked_mul(factor).ok_or_else(no)?;
        return Ok(rfc_3339(now.saturating_sub(back) * 1_000_000_000));
    }
    const FORM: &str = "0000-00-00T00:00:00";
    let fits = text.len() >= 10
        && text.len() <= FORM.len()
        && text.bytes().zip(FORM.bytes()).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        });
    if fits { Ok(text.to_owned()) } else { Err(no()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_rfc_3339_and_come_back() {
        assert_eq!(rfc_3339(1_795_388_661_123_456_789), "2026-11-22T23:04:21.123456Z");
        for seconds in [0, 951_782_399, 951_782_400, 1_795_388_661] {
            let event = Event::general("x");
            let mut record = Record::new(1, NOTHING.into(), &event);
            record.time = rfc_3339(seconds * 1_000_000_000 + 999_999_999);
            assert_eq!(record.seconds(), Some(seconds));
        }
    }

    #[test]
    fn a_span_or_a_date_says_since_when() {
        let now = 1_795_388_661;
        assert_eq!(parse_since("2h", now).expect("a span"), "2026-11-22T21:04:21.000000Z");
        assert_eq!(parse_since("2026-11-22", now).expect("a date"), "2026-11-22");
        assert_eq!(parse_since("2026-11-22T18:30", now).expect("a time"), "2026-11-22T18:30");
        for text in ["", "h", "2", "yesterday", "2026", "2026-11-22 18:30", "99999999999999999999d"]
        {
            assert!(parse_since(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        let event = Event::of("work", "session").with("program", "a\n\"b\u{7}");
        let line = Record::new(7, NOTHING.into(), &event).line();
        assert!(!line.contains('\n') && !line.contains('\u{7}'), "{line}");
        let record: Record = serde_json::from_str(&line).expect("a record");
        assert_eq!(record.fields["program"], "a\n\"b\u{7}");
    }
}
