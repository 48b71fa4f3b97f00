//! Files of a policy: which names count, in which order they are read, and who hands over their
//! text. Nothing here opens a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use casemate_config::Document;

/// A text that was read, for diagnostics to be drawn in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText {
    /// Where it was read from.
    pub path: PathBuf,
    /// The whole of it.
    pub text: String,
}

impl Document for PolicyText {
    fn path(&self) -> &Path {
        &self.path
    }

    fn text(&self) -> &str {
        &self.text
    }
}

/// A file that may be there, with its text or why it could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its text; the reason in the words of the system when it cannot be read.
    pub text: Result<String, String>,
}

/// Hands over what files include.
///
/// `folder` is the directory the including file of the policy was loaded from; what is named is
/// relative to it, however deep the includes are nested.
pub trait Library {
    /// One file.
    ///
    /// # Errors
    /// Why there is none: one clause without a full stop.
    fn file(&self, folder: &Path, name: &str) -> Result<PolicyFile, String>;

    /// The files of a directory, every one, in no particular order.
    ///
    /// # Errors
    /// Why there is none: one clause without a full stop.
    fn folder(&self, folder: &Path, name: &str) -> Result<Vec<PolicyFile>, String>;
}

/// Whether a file of a policy directory is part of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It is.
    Counts,
    /// It is not: hidden, or without the suffix.
    Ignored,
    /// It looks as if it should be, and its name is not allowed: `[0-9a-z_.-]+\.policy`.
    Invalid,
}

/// What the name of a file in a policy directory says.
pub fn naming(path: &Path) -> Naming {
    let Some(name) = path.file_name() else { return Naming::Ignored };
    let bytes = name.as_encoded_bytes();
    if bytes.starts_with(b".") || !bytes.ends_with(b".policy") {
        return Naming::Ignored;
    }
    let letter = |byte: &u8| {
        byte.is_ascii_digit() || byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.' | b'-')
    };
    if bytes.iter().all(letter) { Naming::Counts } else { Naming::Invalid }
}

/// The files of a policy in the order of evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arranged {
    /// In order.
    pub files: Vec<PathBuf>,
    /// Files that are not read, each with the one of the same name that is.
    pub shadowed: Vec<(PathBuf, PathBuf)>,
}

/// Puts what lies in directories into the order of evaluation: C order of the names, and of two of
/// the same name the one of the later directory. Files that do not count are left out; those whose
/// name is not allowed are kept, for the parser to refuse.
pub fn arrange(directories: &[Vec<PathBuf>]) -> Arranged {
    let mut by_name: BTreeMap<&[u8], &PathBuf> = BTreeMap::new();
    let mut shadowed = Vec::new();
    for path in directories.iter().flatten() {
        if naming(path) == Naming::Ignored {
            continue;
        }
        let Some(name) = path.file_name() else { continue };
        if let Some(before) = by_name.insert(name.as_encoded_bytes(), path) {
            shadowed.push((before.clone(), path.clone()));
        }
    }
    Arranged { files: by_name.into_values().cloned().collect(), shadowed }
}

/// Files in memory, by their path: the policies of test vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    files: BTreeMap<PathBuf, String>,
}

impl Memory {
    /// With these files.
    pub fn new(files: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let files = files.into_iter().map(|(path, text)| (plain(&path), text)).collect();
        Self { files }
    }
}

impl Library for Memory {
    fn file(&self, folder: &Path, name: &str) -> Result<PolicyFile, String> {
        let path = plain(&folder.join(name));
        match self.files.get(&path) {
            Some(text) => Ok(PolicyFile { path, text: Ok(text.clone()) }),
            None => Err("there is no such file".into()),
        }
    }

    fn folder(&self, folder: &Path, name: &str) -> Result<Vec<PolicyFile>, String> {
        let folder = plain(&folder.join(name));
        let inside: BTreeSet<_> =
            self.files.keys().filter(|path| path.parent() == Some(folder.as_path())).collect();
        if inside.is_empty() {
            return Err("there is no such directory".into());
        }
        let file = |path: &PathBuf| PolicyFile {
            path: path.clone(),
            text: self.files.get(path).cloned().ok_or_else(String::new),
        };
        Ok(inside.into_iter().map(file).collect())
    }
}

/// Without `.` in it, as paths of files are compared.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}
