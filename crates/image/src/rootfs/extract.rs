//! Unpacks a normalized archive where its owners can be kept, and packs it for the image.
//!
//! ```text
//! work/stage/          ours; open for a moment to the user root is in the namespace
//!   root/              that root's: the root file system
//!   packed/root.erofs  that root's: what becomes of it
//! ```

use std::fs::{self, File, Permissions};
use std::io::{BufWriter, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Digest;
use crate::archive::{self, Spool, Tree};
use crate::build::BuildError;
use crate::command::{Call, CommandError, MKDIR, MMDEBSTRAP, TAR, Tool};
use crate::debian::{self, DebianError, EPOCH, Privilege};
use crate::erofs::Pack;
use crate::error::Attempt;

use super::RootfsError;

/// File with the packed root file system, as seen from the root folder.
const PACKED: &str = "../packed/root.erofs";

/// Folders of the build.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    work: &'a Path,
    folder: PathBuf,
    privilege: Privilege,
}

impl<'a> Stage<'a> {
    /// Makes the folders.
    pub(super) fn new(work: &'a Path) -> Result<Self, BuildError> {
        let privilege = Privilege::of_this_process()?;
        let stage = Self { work, folder: work.join("stage"), privilege };
        let mode = |mode| {
            fs::set_permissions(&stage.folder, Permissions::from_mode(mode))
                .attempt("prepare", &stage.folder)
        };
        fs::create_dir(&stage.folder).attempt("create", &stage.folder)?;
        // In a sticky folder nobody else can take away or replace what that root makes.
        mode(0o1777)?;
        stage
            .run(stage.call(MKDIR, &["--mode=755", "root", "packed"])?.directory(&stage.folder))?;
        mode(0o755)?;
        Ok(stage)
    }

    /// Writes the tree, which was read from `origin`, as an archive and unpacks that; returns its
    /// digest. The spool is gone before the same contents are written a third time.
    pub(super) fn extract(
        &self,
        tree: &Tree,
        spool: Spool,
        origin: &Path,
    ) -> Result<Digest, BuildError> {
        // Without a name, handed over open: nobody else can read what may be private.
        let file = tempfile::tempfile_in(self.work).attempt("create a file in", self.work)?;
        let mut output = BufWriter::new(file);
        let digest = archive::write(tree, &spool, &mut output)
            .map_err(|source| RootfsError::Archive { path: origin.to_owned(), source })?;
        drop(spool);
        let mut file = finish(output).attempt("write to a file in", self.work)?;
        file.rewind().attempt("read a file in", self.work)?;
        let arguments = [
            "--extract",
            "--file=-",
            "--numeric-owner",
            "--same-owner",
            "--same-permissions",
            "--xattrs",
            "--xattrs-include=user.*",
            "--xattrs-include=security.capability",
        ];
        let call = self.call(TAR, &arguments)?.directory(&self.root()).input(file);
        self.run(call.env("LC_ALL", "C"))?;
        Ok(digest)
    }

    /// Packs what was unpacked; returns where that is.
    pub(super) fn pack(&self) -> Result<PathBuf, BuildError> {
        let call = Pack {
            root: &self.root(),
            file: PACKED,
            exclude: None,
            time: EPOCH,
            in_namespace: self.in_namespace(),
        }
        .call()
        .map_err(DebianError::from)?;
        self.run(call)?;
        Ok(self.folder.join("packed/root.erofs"))
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn in_namespace(&self) -> bool {
        self.privilege == Privilege::Subordinate
    }

    fn call(&self, tool: Tool, arguments: &[&str]) -> Result<Call, BuildError> {
        let call = match self.in_namespace() {
            true => {
                let helper = ["--unshare-helper", tool.program];
                MMDEBSTRAP.command(helper.iter().chain(arguments))
            }
            false => tool.command(arguments),
        };
        Ok(call.map_err(DebianError::from)?)
    }

    /// Runs a program. Whatever tar could not keep is an error, even where it only warns of it.
    fn run(&self, call: Call) -> Result<(), BuildError> {
        let mut warning = None;
        debian::run(call, self.work, &mut |line| {
            if line.starts_with("tar: ") && line.contains("Cannot ") {
                warning.get_or_insert_with(|| line.to_owned());
            }
        })?;
        match warning {
            Some(line) => {
                Err(DebianError::from(CommandError::Warned { program: TAR.program, line }).into())
            }
            None => Ok(()),
        }
    }
}

fn finish(output: BufWriter<File>) -> std::io::Result<File> {
    let mut output = output;
    output.flush()?;
    output.into_inner().map_err(std::io::IntoInnerError::into_error)
}
