//! Shares: one file server (virtiofsd) for each, in a jail that shows it nothing but its folder.
//!
//! It runs as whoever owns the files ([`identity::of_folder`]), so that the host's permissions hold
//! and what the guest makes is his. Any user of the guest is that one user to the host; to the
//! guest, his files are its default user's. See docs/design/0008-shares.md.

use crate::facts::{HostFacts, VirtiofsdFacts};
use crate::jail::{Access, Jail, Limits, Reach, VisibleFile};
use crate::process::{Channel, Descriptor, DescriptorSource, Process, Role};
use crate::vm::LOG_SIZE;
use crate::{Refusal, Request, ShareParts, guest, identity};

/// The server's listening socket.
const SOCKET: i32 = 3;

/// Where the server sees the folder.
const FOLDER: &str = "/share";

/// The user and group of the server, as it sees them itself: those of `casemate-jail`.
const OWN: u32 = 1;

/// Files that the server may have open: one for each file the guest's kernel knows of, with some
/// 1.5 KiB of the host's kernel for each. A tree of Linux with its history has 90 000.
const OPEN_FILES: u64 = 1 << 18;

/// Threads of the server: one a queue, and what the C library starts.
const THREADS: u64 = 16;

/// What the server reads before all else, to raise a limit that it is told to leave alone.
const NR_OPEN: &str = "/proc/sys/fs/nr_open";

/// The file server of each share, in the order of the configuration.
///
/// # Errors
/// There is no virtiofsd, or none that is new enough.
pub(crate) fn servers(request: &Request<'_>, facts: &HostFacts) -> Result<Vec<Process>, Refusal> {
    if request.compartment.shares.is_empty() {
        return Ok(vec![]);
    }
    let virtiofsd = virtiofsd(facts)?;
    let shares = request.compartment.shares.iter().zip(&request.shares);
    let server = |(index, (share, parts)): (usize, (&casemate_config::Share, &ShareParts))| {
        let access = if share.read_only { Access::Read } else { Access::Change };
        let folder = VisibleFile {
            target: FOLDER.into(),
            access,
            inode: Some(parts.inode),
            ..VisibleFile::read(parts.folder.clone())
        };
        let mut files = programs(virtiofsd, facts);
        files.extend([VisibleFile::read(NR_OPEN), folder]);
        Process {
            role: Role::Share(index as u16),
            program: virtiofsd.path.clone(),
            arguments: arguments(share.read_only, guest::default_uid(request.compartment)),
            environment: vec![],
            descriptors: vec![Descriptor {
                number: SOCKET,
                what: DescriptorSource::Listener { channel: Channel::Share(index as u16) },
            }],
            jail: Jail {
                identity: identity::of_folder(&facts.caller, parts.owner),
                files,
                limits: Limits {
                    open_files: OPEN_FILES,
                    address_space: None,
                    file_size: if share.read_only { LOG_SIZE } else { u64::MAX },
                    processes: THREADS,
                },
                reach: Reach::Nothing,
            },
        }
    };
    Ok(shares.enumerate().map(server).collect())
}

fn virtiofsd(facts: &HostFacts) -> Result<&VirtiofsdFacts, Refusal> {
    let (major, minor, micro) = VirtiofsdFacts::OLDEST;
    let hint = format!(
        "install the package `virtiofsd` where it is {major}.{minor} or later (Debian 13, Fedora \
         42), else: apt-get install libseccomp-dev libcap-ng-dev && \
         cargo install --locked --root /usr/local virtiofsd"
    );
    match &facts.virtiofsd {
        None => Err(Refusal::HostNotReady {
            what: "virtiofsd is not installed, which `shares` needs".into(),
            hint,
        }),
        Some(found) if !found.is_usable() => {
            let path = found.path.display();
            let found = match found.version {
                Some((major, minor, micro)) => {
                    format!("{path} is virtiofsd {major}.{minor}.{micro}")
                }
                None => format!("{path} is the old virtiofsd that came with QEMU"),
            };
            Err(Refusal::HostNotReady {
                what: format!("{found}; `shares` needs {major}.{minor}.{micro} or later"),
                hint,
            })
        }
        Some(found) => Ok(found),
    }
}

/// The server and the libraries it needs.
fn programs(virtiofsd: &VirtiofsdFacts, facts: &HostFacts) -> Vec<VisibleFile> {
    let mut files: Vec<VisibleFile> =
        facts.system_directories.iter().map(|path| VisibleFile::execute(path.clone())).collect();
    if !files.iter().any(|file| virtiofsd.path.starts_with(&file.source)) {
        files.push(VisibleFile::execute(virtiofsd.path.clone()));
    }
    files.push(VisibleFile::read("/etc/ld.so.cache").if_there());
    files
}

fn arguments(read_only: bool, guest_uid: u32) -> Vec<String> {
    let mut list = vec![
        format!("--fd={SOCKET}"),
        format!("--shared-dir={FOLDER}"),
        // It stands in a jail already, where it may make no other.
        "--sandbox=none".into(),
        // Handles need a privilege, and lead to files by number instead of by folder.
        "--inode-file-handles=never".into(),
        "--no-announce-submounts".into(),
        // What the host changes is seen within a second.
        "--cache=auto".into(),
        "--rlimit-nofile=0".into(),
        "--log-level=warn".into(),
    ];
    for kind in ["uid", "gid"] {
        // Whoever it is in the guest, here it is one user.
        list.push(format!("--translate-{kind}=squash-guest:0:{OWN}:{}", u32::MAX));
        list.push(format!("--translate-{kind}=host:{OWN}:{guest_uid}:1"));
    }
    if read_only {
        list.push("--readonly".into());
    }
    list
}
