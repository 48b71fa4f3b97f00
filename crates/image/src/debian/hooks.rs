//! The two scripts mmdebstrap runs when the packages are installed. They are files of their
//! own, run without a shell's command line; what they need comes in one environment variable.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Attempt, FileError};

/// The environment variable with the kernel packages to try, in order.
pub(super) const KERNELS_VARIABLE: &str = "CASEMATE_KERNELS";

/// What dpkg leaves out: documentation and translations. Licences stay.
pub(super) const PATH_RULES: [&str; 8] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*/LC_*/*.mo",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
];

/// mmdebstrap's own hooks that make `/usr` merged from the start, so that the package which
/// merges it later, and the whole of Perl it needs, are left out.
const MERGED_USR: &str = "/usr/share/mmdebstrap/hooks/maybe-merged-usr";

const SCRIPTS: [(&str, &str); 2] = [
    ("settle.sh", include_str!("hooks/settle.sh")),
    ("kernel.sh", include_str!("hooks/kernel.sh")),
];

/// The scripts, written.
#[derive(Debug)]
pub(super) struct Hooks {
    /// Arguments of mmdebstrap that run them.
    pub(super) arguments: Vec<String>,
}

/// Writes the scripts to `work`.
pub(super) fn write(work: &Path) -> Result<Hooks, FileError> {
    let mut arguments = Vec::new();
    if Path::new(MERGED_USR).is_dir() {
        arguments.push(format!("--hook-directory={MERGED_USR}"));
        arguments.push("--include=usr-is-merged".to_owned());
    }
    for (name, text) in SCRIPTS {
        let path = work.join(name);
        fs::write(&path, text).attempt("write", &path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755)).attempt("write", &path)?;
        arguments.push(format!("--customize-hook={}", path.display()));
    }
    Ok(Hooks { arguments })
}

#[cfg(test)]
mod tests {
    use super::super::output::{KERNEL_MARK, NO_KERNEL_MARK};
    use super::*;

    #[test]
    fn kernel_script_says_what_is_listened_for() {
        let script = SCRIPTS[1].1;
        for words in [KERNEL_MARK, NO_KERNEL_MARK, KERNELS_VARIABLE] {
            assert!(script.contains(words), "{words}");
        }
    }
}
