//! What the process may do once it has read its certificates: read the log and what names of machines
//! are looked up with, keep how far it is, and connect to the server's port.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use nix::sys::resource::{Resource, setrlimit};

/// The newest Landlock these rules were tried with. Older kernels apply what they know.
const NEWEST: ABI = ABI::V6;

/// What looking up names reads: configuration, modules of the C library, systemd-resolved's file.
const NAMES: [&str; 6] =
    ["/etc", "/usr", "/lib", "/lib64", "/run/systemd/resolve", "/run/resolvconf"];

/// Names are asked for over TCP too, where an answer is long.
const DNS: u16 = 53;

/// Descriptors: the log, its state, one connection.
const OPEN_FILES: u64 = 64;

/// Why the process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A limit is refused.
    #[error("could not limit descriptors and core dumps")]
    Limit(#[source] nix::Error),
    /// Landlock refuses.
    #[error("could not give up files and network by Landlock")]
    Landlock(#[from] RulesetError),
}

/// From now on this process can read the log, write beside it how far it is, and connect to `port`.
///
/// # Errors
/// See [`ConfineError`]; it must not go on then.
pub fn sender(log: &Path, state: &Path, port: Option<u16>) -> Result<(), ConfineError> {
    // 1 and not 0: with 0 a handler of dumps still gets them.
    for (resource, most) in [(Resource::RLIMIT_NOFILE, OPEN_FILES), (Resource::RLIMIT_CORE, 1)] {
        setrlimit(resource, most, most).map_err(ConfineError::Limit)?;
    }
    let read = AccessFs::from_read(NEWEST) & !AccessFs::Execute;
    let ports = [Some(DNS), port].into_iter().flatten();
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(NAMES.iter().map(Path::new).chain([log]), read))?
        .add_rules(path_beneath_rules([state], AccessFs::from_all(NEWEST) & !AccessFs::Execute))?
        .add_rules(
            ports.map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))),
        )?
        .no_new_privs(true)
        .restrict_self()?;
    Ok(())
}
