//! Confines a thread, and so the program it starts, to the files of one volume: Landlock
//! (landlock(7)). For the one program that reads what a guest's VMM has written, qemu-img.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};

/// The newest interface these rules were tried with. Older kernels apply what they know.
const NEWEST: ABI = ABI::V7;

/// Where programs and libraries are, on any distribution; what is not there is left out.
const SYSTEM: [&str; 8] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache", "/dev/urandom"];

/// Lets this thread and what it starts read the system's programs, read and write below `folder`,
/// and reach no other file, no TCP port and no process outside. For good.
///
/// # Errors
/// The kernel has Landlock and refuses the rules.
pub(crate) fn this_thread(program: &Path, folder: &Path) -> io::Result<()> {
    let read = |directory: bool| match directory {
        true => AccessFs::from_read(NEWEST),
        false => AccessFs::ReadFile | AccessFs::Execute,
    };
    let confine = || -> Result<(), landlock::RulesetError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        for path in SYSTEM.map(Path::new).into_iter().chain([program]) {
            let Ok(opened) = PathFd::new(path) else { continue };
            rules = rules.add_rule(PathBeneath::new(opened, read(path.is_dir())))?;
        }
        for (path, rights) in [
            (Path::new("/dev/null"), AccessFs::ReadFile | AccessFs::WriteFile),
            (folder, AccessFs::from_all(NEWEST) & !AccessFs::Execute),
        ] {
            let Ok(opened) = PathFd::new(path) else { continue };
            rules = rules.add_rule(PathBeneath::new(opened, rights))?;
        }
        rules.restrict_self()?;
        Ok(())
    };
    confine().map_err(io::Error::other)
}
