//! The path of an entry: where in the tree it is, and nowhere else.

use super::EntryFault;

/// Longest name, in bytes (`NAME_MAX` of `linux/limits.h`).
const MAX_NAME: usize = 255;
/// Longest path, in bytes (`PATH_MAX` of `linux/limits.h` without the zero at its end).
pub(super) const MAX_PATH: usize = 4095;

/// Names from the root down, none of them `.`, `..` or empty. Without any, it is the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct EntryPath(Vec<Vec<u8>>);

impl EntryPath {
    /// Reads a path as an archive has it. A leading `./`, doubled and trailing slashes mean
    /// nothing.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, EntryFault> {
        if raw.is_empty() {
            return Err(EntryFault::NoName);
        }
        if raw[0] == b'/' {
            return Err(EntryFault::Absolute);
        }
        if raw.len() > MAX_PATH {
            return Err(EntryFault::TooLong);
        }
        let mut names = Vec::new();
        for name in raw.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return Err(EntryFault::Parent),
                name if name.len() > MAX_NAME => return Err(EntryFault::TooLong),
                name if has_control(name) => return Err(EntryFault::ControlCharacter),
                name => names.push(name.to_vec()),
            }
        }
        Ok(Self(names))
    }

    /// The path of these names, which came from another path.
    pub(super) fn of_names(names: &[Vec<u8>]) -> Self {
        Self(names.to_vec())
    }

    /// The names.
    pub(crate) fn names(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// The path of the folder it is in, and its own name; none for the root.
    pub(crate) fn split(&self) -> Option<(&[Vec<u8>], &[u8])> {
        let (name, parent) = self.0.split_last()?;
        Some((parent, name))
    }
}

fn has_control(name: &[u8]) -> bool {
    // Bytes that are no UTF-8 become one replacement character, which is none.
    String::from_utf8_lossy(name).chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Result<String, EntryFault> {
        let path = EntryPath::parse(raw.as_bytes())?;
        Ok(String::from_utf8(path.names().join(&b'/')).unwrap())
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        for (raw, path) in
            [("./a/b", "a/b"), ("a//b/", "a/b"), ("./", ""), (".", ""), ("a/./b", "a/b")]
        {
            assert_eq!(parse(raw).as_deref(), Ok(path), "{raw}");
        }
        assert_eq!(parse("...").as_deref(), Ok("..."));
        assert_eq!(EntryPath::parse(b"caf\xe9").unwrap().names(), [b"caf\xe9"]);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for raw in ["..", "../a", "a/../../b", "./..", "a/.."] {
            assert_eq!(parse(raw), Err(EntryFault::Parent), "{raw}");
        }
        for raw in ["/", "/etc/passwd", "//a"] {
            assert_eq!(parse(raw), Err(EntryFault::Absolute), "{raw}");
        }
    }

    #[test]
    fn impossible_names_are_refused() {
        assert_eq!(parse(""), Err(EntryFault::NoName));
        assert_eq!(parse(&"a".repeat(256)), Err(EntryFault::TooLong));
        assert_eq!(parse(&"a/".repeat(2048)), Err(EntryFault::TooLong));
        for raw in ["a\nb", "a\0b", "\u{1b}[2J", "a/\u{7f}", "\u{9b}2J"] {
            assert_eq!(parse(raw), Err(EntryFault::ControlCharacter), "{raw:?}");
        }
    }
}
