//! The programs a build needs: whether they are there, and new enough.

use std::collections::BTreeMap;

use super::DebianError;
use crate::command::{MKFS_EROFS, MMDEBSTRAP, SETPRIV, Tool};
use crate::erofs;

/// The oldest mmdebstrap this is known to work with.
const OLDEST_MMDEBSTRAP: [u32; 2] = [1, 3];

/// Finds the programs a build needs and returns the versions of those that shape the image.
pub(crate) fn check() -> Result<BTreeMap<String, String>, DebianError> {
    SETPRIV.find()?;
    let mut versions = BTreeMap::new();
    for (tool, option, oldest) in
        [(MMDEBSTRAP, "--version", OLDEST_MMDEBSTRAP), (MKFS_EROFS, "-V", erofs::OLDEST)]
    {
        versions.insert(tool.program.to_owned(), version(tool, option, oldest)?);
    }
    Ok(versions)
}

/// The version a program reports, in a line such as `mkfs.erofs 1.5`. Its exit status counts for
/// nothing: mkfs.erofs 1.5 fails for want of other arguments.
fn version(tool: Tool, option: &str, oldest: [u32; 2]) -> Result<String, DebianError> {
    let mut found = None;
    let result = tool.command([option])?.run(|line| {
        let mut words = line.split_whitespace();
        if found.is_none() && words.next() == Some(tool.program) {
            found = words.map(str::to_owned).find(|word| is_version(word));
        }
    });
    let Some(found) = found else {
        result?;
        return Err(DebianError::NoVersion { program: tool.program });
    };
    if numbers(&found) < oldest {
        return Err(DebianError::TooOld {
            program: tool.program,
            found,
            oldest: format!("{}.{}", oldest[0], oldest[1]),
        });
    }
    Ok(found)
}

fn is_version(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.')
}

/// The first two numbers of a version.
fn numbers(version: &str) -> [u32; 2] {
    let mut numbers = version
        .split(|other: char| !other.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    [(); 2].map(|()| numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: Tool = Tool { program: "echo", package: "coreutils" };

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("1.10") > numbers("1.5"));
        assert!(numbers("1.8.6-1") >= [1, 5]);
        assert!(numbers("1.4") < [1, 5]);
    }

    #[test]
    fn the_version_is_found_behind_the_name_of_the_program() {
        assert_eq!(version(ECHO, "echo (tools) 1.8.6", [1, 5]).unwrap(), "1.8.6");
        assert!(matches!(
            version(ECHO, "echo 1.4", [1, 5]),
            Err(DebianError::TooOld { found, .. }) if found == "1.4"
        ));
        assert!(matches!(version(ECHO, "nothing", [1, 5]), Err(DebianError::NoVersion { .. })));
    }
}
