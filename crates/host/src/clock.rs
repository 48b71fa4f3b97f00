//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use casemate_wire::date::iso_8601;

/// Nanoseconds since 1970-01-01 00:00 UTC; 0 when the clock stands before that. It holds until the
/// year 2554.
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// A time in UTC as `2026-11-22T18-30-05Z`, which can be part of a file's name. `seconds` are those
/// since 1970.
pub fn stamp(seconds: u64) -> String {
    iso_8601(seconds).trim_end_matches("+00:00").replace(':', "-") + "Z"
}

#[cfg(test)]
mod tests {
    use super::stamp;

    /// As `date --utc` says.
    #[test]
    fn stamps_are_dates() {
        assert_eq!(stamp(0), "1970-01-01T00-00-00Z");
        assert_eq!(stamp(951_782_399), "2000-02-28T23-59-59Z");
        assert_eq!(stamp(951_782_400), "2000-02-29T00-00-00Z");
        assert_eq!(stamp(1_795_388_661), "2026-11-22T23-04-21Z");
        assert_eq!(stamp(4_107_542_400), "2100-03-01T00-00-00Z");
    }
}
