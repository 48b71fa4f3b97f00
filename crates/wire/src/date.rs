//! Dates, for both ends: neither has a library for them.

/// `2026-01-02T03:04:05+00:00` for seconds since 1970 (ISO 8601, UTC).
pub fn iso_8601(seconds: u64) -> String {
    let (days, day) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the Gregorian calendar, counted from 0000-03-01 in eras of 400 years.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (day / 3600, day / 60 % 60, day % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}

#[cfg(test)]
mod tests {
    use super::iso_8601;

    /// As `date --utc` says.
    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(iso_8601(0), "1970-01-01T00:00:00+00:00");
        assert_eq!(iso_8601(951_782_399), "2000-02-28T23:59:59+00:00");
        assert_eq!(iso_8601(951_782_400), "2000-02-29T00:00:00+00:00");
        assert_eq!(iso_8601(1_767_323_045), "2026-01-02T03:04:05+00:00");
        assert_eq!(iso_8601(4_107_542_400), "2100-03-01T00:00:00+00:00");
    }
}
