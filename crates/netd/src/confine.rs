//! What is left to the helper once it has its socket: a user of its own, the files it needs, and no
//! system call that changes what a process is or sees.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use casemate_netns::error::{KeeperError, While};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use nix::libc;
use nix::unistd::{Gid, Uid, User, chown, geteuid};
use seccompiler::{SeccompAction, SeccompFilter, TargetArch};

use crate::NetdError;
use crate::arguments::{Arguments, Task};

/// The newest interface these rules were tried with. Older kernels apply what they know.
const NEWEST: ABI = ABI::V7;

/// Read and executed: programs, libraries, users and name servers; what is not there is left out.
const READ: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store", "/etc", "/run", "/proc"];

/// Read and written.
const WRITTEN: [&str; 4] = ["/dev/null", "/dev/net/tun", "/dev/urandom", "/proc/sys/net/ipv4"];

/// System calls that neither the helper nor nft has use for, and somebody who took one over would.
const FORBIDDEN: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
];

/// Whom root becomes; none when somebody else, with CAP_NET_ADMIN, started this.
///
/// For a repair it is whoever the folder of the former helper belongs to.
///
/// # Errors
/// There is no such user.
pub(crate) fn user(arguments: &Arguments) -> Result<Option<(Uid, Gid)>, NetdError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    if arguments.task == Task::Repair
        && let Ok(found) = std::fs::symlink_metadata(&arguments.state)
        && found.uid() != 0
    {
        return Ok(Some((Uid::from_raw(found.uid()), Gid::from_raw(found.gid()))));
    }
    match User::from_name(&arguments.user) {
        Ok(Some(user)) if !user.uid.is_root() => Ok(Some((user.uid, user.gid))),
        _ => Err(NetdError::NoUser(arguments.user.clone())),
    }
}

/// `PATH`, and where nft is when it lacks that.
pub(crate) fn search_path() -> OsString {
    let mut path = OsString::from("/usr/sbin:/usr/bin:/sbin:/bin:");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

/// The folder of what outlives the helper, for it alone to write to. Others pass it, to the socket.
///
/// # Errors
/// It cannot be made, or is somebody else's.
pub(crate) fn make_state(path: &Path, user: Option<(Uid, Gid)>) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let Some((uid, gid)) = user else { return Ok(()) };
    let found = std::fs::symlink_metadata(path)?;
    if !found.is_dir() || (found.uid() != 0 && found.uid() != uid.as_raw()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(chown(path, Some(uid), Some(gid))?)
}

/// Confines this process and all it starts.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn confine(arguments: &Arguments) -> Result<(), KeeperError> {
    files(arguments).map_err(io::Error::other).while_("confine itself to its files")?;
    calls().map_err(io::Error::other).while_("filter system calls")
}

fn files(arguments: &Arguments) -> Result<(), landlock::RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        // Names of users may be asked for over sockets, abstract ones too.
        .scope(Scope::Signal)?
        .create()?;
    let program = std::env::current_exe().ok();
    let own = [program.as_deref(), arguments.config.as_deref()];
    for path in READ.map(Path::new).into_iter().chain(own.into_iter().flatten()) {
        let Ok(opened) = PathFd::new(path) else { continue };
        let rights = match path.is_dir() {
            true => AccessFs::from_read(NEWEST),
            false => AccessFs::ReadFile | AccessFs::Execute,
        };
        rules = rules.add_rule(PathBeneath::new(opened, rights))?;
    }
    for path in WRITTEN {
        let Ok(opened) = PathFd::new(path) else { continue };
        let rights =
            AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
        let rights = if path.starts_with("/dev") {
            rights
        } else {
            AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate
        };
        rules = rules.add_rule(PathBeneath::new(opened, rights))?;
    }
    if let Ok(opened) = PathFd::new(&arguments.state) {
        let rights = AccessFs::ReadFile
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::ReadDir
            | AccessFs::MakeReg
            | AccessFs::RemoveFile;
        rules = rules.add_rule(PathBeneath::new(opened, rights))?;
    }
    rules.restrict_self()?;
    Ok(())
}

fn calls() -> Result<(), seccompiler::Error> {
    let filter = || {
        let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
        let rules = FORBIDDEN.iter().map(|&call| (call, vec![])).collect();
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()
    };
    let program: Result<seccompiler::BpfProgram, seccompiler::BackendError> = filter();
    seccompiler::apply_filter(&program.map_err(seccompiler::Error::Backend)?)
}
