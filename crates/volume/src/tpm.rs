//! Keys sealed by the machine's TPM 2.0, by the tpm2-tools; which TPM is theirs to know
//! (`TPM2TOOLS_TCTI`).
//!
//! The key is sealed below a primary key of the owner hierarchy, which the TPM derives anew each
//! time from its seed: nothing stays in the TPM. It is bound to no PCR, so it protects a disk that
//! leaves the machine, not one in a machine that another system is started on.

use std::fs;
use std::path::Path;

use crate::key::{KeyError, files};
use crate::secret::{RANDOM_LENGTH, Secret};
use crate::tool::{Tool, ToolError};

/// The sealed key's public part, beside the header.
pub(crate) const PUBLIC: &str = "tpm2.pub";
/// The sealed key's private part, encrypted by the TPM.
pub(crate) const PRIVATE: &str = "tpm2.priv";
/// Bytes of the largest of these files: both are below 200.
pub(crate) const MOST: u64 = 4 << 10;

const PACKAGE: &str = "tpm2-tools";
const CREATE_PRIMARY: Tool = Tool { program: "tpm2_createprimary", package: PACKAGE };
const CREATE: Tool = Tool { program: "tpm2_create", package: PACKAGE };
const LOAD: Tool = Tool { program: "tpm2_load", package: PACKAGE };
const UNSEAL: Tool = Tool { program: "tpm2_unseal", package: PACKAGE };
const FLUSH: Tool = Tool { program: "tpm2_flushcontext", package: PACKAGE };

/// Seals a random key; its two files are in `directory` when this returns.
pub(crate) fn make(directory: &Path) -> Result<Secret, KeyError> {
    let key = Secret::random().map_err(files("make a key in", directory))?;
    seal(directory, &key).map_err(KeyError::Tpm)?;
    for name in [PUBLIC, PRIVATE] {
        let path = directory.join(name);
        let synced = fs::File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(files("write", &path))?;
    }
    Ok(key)
}

/// The key sealed in the two files in `directory`.
pub(crate) fn open(directory: &Path) -> Result<Secret, KeyError> {
    for name in [PUBLIC, PRIVATE] {
        let path = directory.join(name);
        let length = fs::metadata(&path).map_err(files("read", &path))?.len();
        if length > MOST {
            return Err(KeyError::BadLength(path));
        }
    }
    let key = unseal(directory).map_err(KeyError::Tpm)?;
    if key.bytes().len() != RANDOM_LENGTH {
        return Err(KeyError::BadLength(directory.join(PRIVATE)));
    }
    Ok(key)
}

fn seal(directory: &Path, key: &Secret) -> Result<(), ToolError> {
    let contexts = Contexts::with_primary()?;
    let (public, private) = (directory.join(PUBLIC), directory.join(PRIVATE));
    let primary = contexts.path("primary");
    CREATE.run(
        [
            "-Q".as_ref(),
            "-C".as_ref(),
            primary.as_os_str(),
            "-i".as_ref(),
            "-".as_ref(),
            "-u".as_ref(),
            public.as_os_str(),
            "-r".as_ref(),
            private.as_os_str(),
        ],
        key.bytes(),
    )?;
    flush()
}

fn unseal(directory: &Path) -> Result<Secret, ToolError> {
    let contexts = Contexts::with_primary()?;
    let (public, private) = (directory.join(PUBLIC), directory.join(PRIVATE));
    let (primary, sealed) = (contexts.path("primary"), contexts.path("sealed"));
    LOAD.run(
        [
            "-Q".as_ref(),
            "-C".as_ref(),
            primary.as_os_str(),
            "-u".as_ref(),
            public.as_os_str(),
            "-r".as_ref(),
            private.as_os_str(),
            "-c".as_ref(),
            sealed.as_os_str(),
        ],
        b"",
    )?;
    flush()?;
    let key = UNSEAL.run(["-Q".as_ref(), "-c".as_ref(), sealed.as_os_str()], b"")?;
    flush()?;
    Ok(key)
}

/// A folder for what the TPM gives out between two programs: encrypted by it, of no use elsewhere.
struct Contexts(tempfile::TempDir);

impl Contexts {
    fn with_primary() -> Result<Self, ToolError> {
        let folder = tempfile::tempdir();
        let folder =
            folder.map_err(|source| ToolError::Run { program: CREATE_PRIMARY.program, source })?;
        let contexts = Self(folder);
        let primary = contexts.path("primary");
        let options = ["-Q", "-C", "o", "-g", "sha256", "-G", "ecc", "-c"];
        let arguments = options.iter().map(AsRef::as_ref).chain([primary.as_os_str()]);
        CREATE_PRIMARY.run(arguments, b"")?;
        flush()?;
        Ok(contexts)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

/// Frees the TPM's three places for objects, which nobody frees where there is no resource manager
/// (a simulator). Behind one, each program sees only its own objects, and this frees nothing.
fn flush() -> Result<(), ToolError> {
    FLUSH.run(["-t"], b"").map(drop)
}
