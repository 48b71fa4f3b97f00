//! Names of snapshots.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes.
const LONGEST: usize = 64;

/// Name of a snapshot: letters, digits, `-`, `_` and `.`, beginning with a letter or digit, at
/// most 64 of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName(String);

/// The text is no name of a snapshot.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not use {0:?} as the name of a snapshot: letters, digits, `-`, `_` and `.`, \
     beginning with a letter or digit, at most {LONGEST}"
)]
pub struct BadSnapshotName(String);

impl SnapshotName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotName {
    type Err = BadSnapshotName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for SnapshotName {
    type Error = BadSnapshotName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let good = text.len() <= LONGEST
            && text.bytes().all(letter)
            && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if good { Ok(Self(text)) } else { Err(BadSnapshotName(text.chars().take(80).collect())) }
    }
}

impl From<SnapshotName> for String {
    fn from(name: SnapshotName) -> Self {
        name.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_a_line_and_a_path() {
        for good in ["a", "before-upgrade", "2026-11-22T2241", "v1.2_x"] {
            assert_eq!(good.parse::<SnapshotName>().expect("good").as_str(), good);
        }
        for bad in ["", ".", "-a", "a/b", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad:?}");
        }
    }
}
