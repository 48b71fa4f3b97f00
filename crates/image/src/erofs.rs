//! Packs a folder into a read-only erofs file system.
//!
//! Only options that erofs-utils 1.5 and later have alike; figures behind the choice of
//! compression stand in `docs/design/0004-images.md`.

use std::path::Path;

use crate::command::{Call, CommandError, MKFS_EROFS, MMDEBSTRAP};

/// The oldest version these options are known to work with.
pub(crate) const OLDEST: [u32; 2] = [1, 5];

/// Compression of the file system.
const COMPRESSION: &str = "-zlz4hc";
/// Every image has the same file system id: nothing looks for an image by it.
const UUID: &str = "00000000-0000-4000-8000-000000000000";

/// What to pack.
#[derive(Debug)]
pub(crate) struct Pack<'a> {
    /// The root folder.
    pub(crate) root: &'a Path,
    /// The file to write, relative to the root folder.
    pub(crate) file: &'a str,
    /// What to leave out, relative to the root folder: a path with all below it.
    pub(crate) exclude: Option<&'a str>,
    /// The time of every file, in seconds since 1970.
    pub(crate) time: u64,
    /// Whether the root folder belongs to subordinate users.
    pub(crate) in_namespace: bool,
}

impl Pack<'_> {
    /// The call that packs it. The contents of `/dev` are left out: the agent mounts over it.
    pub(crate) fn call(&self) -> Result<Call, CommandError> {
        let mut arguments = vec![
            "--quiet".to_owned(),
            format!("-T{}", self.time),
            format!("-U{UUID}"),
            COMPRESSION.to_owned(),
            "--exclude-regex=^dev/.*".to_owned(),
        ];
        arguments.extend(self.exclude.map(|path| format!("--exclude-path={path}")));
        arguments.extend([self.file.to_owned(), ".".to_owned()]);
        let call = if self.in_namespace {
            let helper = ["--unshare-helper".to_owned(), MKFS_EROFS.program.to_owned()];
            MMDEBSTRAP.command(helper.into_iter().chain(arguments))?
        } else {
            MKFS_EROFS.command(arguments)?
        };
        Ok(call.directory(self.root))
    }
}
