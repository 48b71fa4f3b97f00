//! What comes in: the text of each configuration file and the few facts about its reader.
//!
//! Nothing here opens a file. The caller reads `casemate.toml` and its drop-ins in order and hands
//! over their text; `Span` later points back into it.

use std::path::{Path, PathBuf};

/// One configuration file, already read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Shown in errors. Relative paths inside the file resolve against its parent.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
    /// Which syntax the text is in.
    pub format: Format,
    /// Whose file it is.
    pub origin: Origin,
}

impl Source {
    /// The folder that relative paths in this file start from.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new(""))
    }
}

/// A text with a name that spans point into: what a diagnostic can be drawn in.
pub trait Document {
    /// Shown above the text.
    fn path(&self) -> &Path;
    /// The whole text.
    fn text(&self) -> &str;
}

impl Document for Source {
    fn path(&self) -> &Path {
        &self.path
    }

    fn text(&self) -> &str {
        &self.text
    }
}

/// The path, line and column (both from 1, in characters) where a span begins.
pub fn position<D: Document>(documents: &[D], span: Span) -> Option<(&Path, usize, usize)> {
    let document = documents.get(span.source as usize)?;
    let before = document.text().get(..span.start as usize)?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    Some((document.path(), line, before[line_start..].chars().count() + 1))
}

/// The syntax of a configuration file; the tree of keys is the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.1.
    Toml,
    /// Strict JSON; a key whose value is `null` counts as not written.
    Json,
}

impl Format {
    /// JSON for a name ending in `.json`, TOML for every other name.
    pub fn of_path(path: &Path) -> Self {
        if path.extension().is_some_and(|extension| extension == "json") {
            Self::Json
        } else {
            Self::Toml
        }
    }
}

/// Whose configuration a file, and everything declared in it, belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The machine's, written by its administrator.
    System,
    /// One user's own.
    User,
}

/// The only facts from outside the files that may change their meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// What `~/` stands for; `None` makes such paths an error.
    pub home: Option<PathBuf>,
    /// Login name of who reads the configuration: the owner of user compartments.
    pub user: String,
}

/// A stretch of bytes in one of the loaded sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Index of the source, in the order given to `load`.
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes `range` of the document with this index.
    pub fn new(source: u32, range: std::ops::Range<usize>) -> Self {
        // A configuration of more than 4 GiB is cut off at the end, not refused.
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { source, start: narrow(range.start), end: narrow(range.end.max(range.start)) }
    }

    pub(crate) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}
