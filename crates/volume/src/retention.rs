//! Which snapshots a rule keeps. Pure: dates in, decisions out.
//!
//! Each part of a rule goes back in time through its periods, and keeps the newest snapshot of each
//! period that has any, until it has kept its number. A snapshot stays when any part keeps it.
//! Days begin at 00:00 UTC, weeks on Monday.

use std::fmt;
use std::str::FromStr;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Periods a rule can speak of, from the shortest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

const WORDS: [(&str, Period); 5] = [
    ("hourly", Period::Hour),
    ("daily", Period::Day),
    ("weekly", Period::Week),
    ("monthly", Period::Month),
    ("yearly", Period::Year),
];

/// A rule such as `7 daily, 4 weekly`. The newest snapshot is always kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention(Vec<(u32, Period)>);

/// The text is no rule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "could not understand {0:?}: a rule is a list such as `7 daily, 4 weekly`; \
     hourly, daily, weekly, monthly and yearly can each be there once, with a number from 1 to 1000"
)]
pub struct BadRetention(String);

impl FromStr for Retention {
    type Err = BadRetention;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadRetention(text.chars().take(80).collect());
        let mut parts: Vec<(u32, Period)> = Vec::new();
        for part in text.split(',') {
            let (count, word) = part.trim().split_once(' ').ok_or_else(bad)?;
            let count: u32 = count.parse().map_err(|_| bad())?;
            let named = WORDS.iter().find(|(name, _)| *name == word.trim());
            let (_, period) = named.ok_or_else(bad)?;
            let twice = parts.iter().any(|(_, other)| other == period);
            if twice || !(1..=1000).contains(&count) {
                return Err(bad());
            }
            parts.push((count, *period));
        }
        parts.sort_by_key(|(_, period)| *period);
        Ok(Self(parts))
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (count, period)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{count} {}", WORDS[*period as usize].0)?;
        }
        Ok(())
    }
}

impl Retention {
    /// The indices of those snapshots, taken at these seconds since 1970, which no part of the
    /// rule keeps; ascending. The order of the dates does not matter.
    pub fn to_delete(&self, taken: &[u64]) -> Vec<usize> {
        let mut newest_first: Vec<usize> = (0..taken.len()).collect();
        newest_first.sort_by_key(|index| std::cmp::Reverse((taken[*index], *index)));
        let mut kept = vec![false; taken.len()];
        if let Some(newest) = newest_first.first() {
            kept[*newest] = true;
        }
        for (count, period) in &self.0 {
            let mut left = *count;
            let mut last = None;
            for index in &newest_first {
                let number = period.number(taken[*index]);
                if last != Some(number) && left > 0 {
                    last = Some(number);
                    left -= 1;
                    kept[*index] = true;
                }
            }
        }
        (0..taken.len()).filter(|index| !kept[*index]).collect()
    }
}

impl Period {
    /// Which of these periods since 1970 the second is in.
    fn number(self, second: u64) -> u64 {
        let day = second / DAY;
        match self {
            Self::Hour => second / 3600,
            Self::Day => day,
            // 1970 began on a Thursday, three days after a Monday.
            Self::Week => (day + 3) / 7,
            Self::Month => {
                let (year, month) = month(day);
                year * 12 + month
            }
            Self::Year => month(day).0,
        }
    }
}

/// Year and month (0 to 11) of a day since 1970, in the Gregorian calendar.
fn month(day: u64) -> (u64, u64) {
    // 400 years repeat, with 97 leap days; from there it is at most 400 steps.
    let (mut year, mut left) = (1970 + day / 146_097 * 400, day % 146_097);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-22 22:41:48 UTC, a Sunday.
    const NOW: u64 = 1_795_387_308;

    fn rule(text: &str) -> Retention {
        text.parse().expect("a rule")
    }

    fn kept(rule: &Retention, taken: &[u64]) -> Vec<usize> {
        let gone = rule.to_delete(taken);
        (0..taken.len()).filter(|index| !gone.contains(index)).collect()
    }

    #[test]
    fn a_year_of_days_leaves_days_weeks_and_months() {
        let taken: Vec<u64> = (0..365).map(|ago| NOW - ago * DAY).collect();
        let daily = kept(&rule("7 daily"), &taken);
        assert_eq!(daily, [0, 1, 2, 3, 4, 5, 6]);
        // Sundays end their weeks.
        assert_eq!(kept(&rule("4 weekly"), &taken), [0, 7, 14, 21]);
        // October 31st, September 30th.
        assert_eq!(kept(&rule("3 monthly"), &taken), [0, 22, 53]);
        assert_eq!(kept(&rule("5 yearly"), &taken), [0, 326]);
        let all = kept(&rule("7 daily, 4 weekly, 3 monthly"), &taken);
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7, 14, 21, 22, 53]);
    }

    #[test]
    fn the_newest_of_a_period_stays() {
        let taken = [NOW - 3 * 3600, NOW, NOW - 3600, NOW - DAY, NOW - DAY - 60];
        assert_eq!(kept(&rule("2 daily"), &taken), [1, 3]);
        assert_eq!(rule("1 yearly").to_delete(&[]), [0_usize; 0]);
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        for (day, expected) in [
            (0, (1970, 0)),
            (58, (1970, 1)),
            (59, (1970, 2)),
            (11_016, (2000, 1)), // 2000-02-29
            (11_017, (2000, 2)),
            (20_779, (2026, 10)), // 2026-11-22
            (20_818, (2026, 11)), // 2026-12-31
            (20_819, (2027, 0)),
            (47_540, (2100, 1)), // 2100-02-28
            (47_541, (2100, 2)),
        ] {
            assert_eq!(month(day), expected, "day {day}");
        }
    }

    #[test]
    fn rules_are_read_and_written() {
        assert_eq!(rule("4 weekly,7  daily").to_string(), "7 daily, 4 weekly");
        for bad in
            ["", "daily", "7", "7 days", "0 daily", "1001 daily", "1 daily, 2 daily", "-1 daily"]
        {
            assert!(bad.parse::<Retention>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_kept_again_and_never_more_than_the_rule_says(
            ages in prop::collection::vec(0..3 * 365 * DAY, 0..60),
            days in 1_u32..10, weeks in 1_u32..6,
        ) {
            let rule = rule(&format!("{days} daily, {weeks} weekly"));
            let taken: Vec<u64> = ages.iter().map(|age| NOW - age).collect();
            let first: Vec<u64> = kept(&rule, &taken).into_iter().map(|index| taken[index]).collect();
            prop_assert!(first.len() <= (days + weeks) as usize);
            prop_assert_eq!(first.is_empty(), taken.is_empty());
            prop_assert!(rule.to_delete(&first).is_empty());
            prop_assert_eq!(first.iter().max(), taken.iter().max());
        }
    }
}
