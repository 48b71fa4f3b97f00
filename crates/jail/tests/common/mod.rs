//! A jail for a test: the binaries where everybody can read them, and a caller to start it.

// UNSAFETY: becoming another user between fork and exec.
#![allow(unsafe_code, dead_code, unreachable_pub, missing_docs)]

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use casemate_plan::jail::{IdMapMethod, Identity, Jail, Limits, VisibleFile};
use casemate_plan::process::{Process, Role};
use command_fds::{CommandFdExt, FdMapping};
use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};
use tempfile::TempDir;

/// The descriptor that the specification comes by.
pub const SPEC: i32 = 40;

/// A supplementary group of every caller, beside his own.
const OTHER_GROUP: Gid = Gid::from_raw(24);

/// Who starts the jail.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub subordinate: u32,
    pub map: IdMapMethod,
}

/// Root, and an ordinary user with subordinate ids, as far as this machine lets us be them.
pub fn callers() -> Vec<Caller> {
    let me = Uid::current();
    let mut callers = Vec::new();
    if me.is_root() {
        callers.push(Caller { uid: 0, gid: 0, subordinate: 200_000, map: IdMapMethod::Direct });
    } else {
        println!("skipped as root: the tests do not run as root");
    }
    let ranges = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let ordinary = ranges.lines().find_map(|line| {
        let mut fields = line.split(':');
        let user = User::from_name(fields.next()?).ok()??;
        (!user.uid.is_root() && (me.is_root() || user.uid == me))
            .then_some((user, fields.next()?.parse::<u32>().ok()?))
    });
    match ordinary {
        Some((user, first)) if Path::new("/usr/bin/newuidmap").exists() => callers.push(Caller {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            subordinate: first + 7,
            map: IdMapMethod::Newidmap,
        }),
        _ => println!("skipped as an ordinary user: no newuidmap, or nobody is in /etc/subuid"),
    }
    callers
}

/// Copies a program that shall run at once. By another process: a child that another thread forks
/// meanwhile would have the file open to write for a moment, and nobody can run it then (ETXTBSY).
fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").args([from, to]).status().expect("cp starts");
    assert!(status.success(), "copied");
}

/// The binaries in a directory that every user can read.
pub struct Fixture {
    directory: TempDir,
    pub caller: Caller,
}

impl Fixture {
    pub fn new(caller: Caller) -> Self {
        let directory = TempDir::new().expect("a directory");
        let open = || Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), open()).expect("mode");
        let jail = Path::new(env!("CARGO_BIN_EXE_casemate-jail"));
        let probe = jail.parent().expect("a directory").join("examples/probe");
        for (from, name) in [(jail, "casemate-jail"), (probe.as_path(), "probe")] {
            let to = directory.path().join(name);
            copy_program(from, &to);
            fs::set_permissions(&to, open()).expect("mode");
        }
        Self { directory, caller }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The probe with what it needs to run, but for itself: it is executed by descriptor.
    pub fn probe(&self, arguments: &[&str]) -> Process {
        let system = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache"];
        Process {
            role: Role::Link,
            program: self.path("probe"),
            arguments: arguments.iter().map(|&argument| argument.into()).collect(),
            environment: Vec::new(),
            descriptors: Vec::new(),
            jail: Jail {
                identity: Identity {
                    uid: self.caller.subordinate,
                    gid: self.caller.subordinate,
                    map: self.caller.map,
                    keep_groups: false,
                },
                files: system.map(|path| VisibleFile::execute(path).if_there()).into(),
                limits: Limits {
                    open_files: 64,
                    address_space: None,
                    file_size: 1 << 20,
                    processes: 32,
                },
                reach: casemate_plan::jail::Reach::Nothing,
            },
        }
    }

    /// The command that starts it, as the caller, with `extra` files at descriptors from 3 on.
    pub fn command(&self, process: &Process, extra: Vec<File>) -> Command {
        let mut command = self.command_of(&self.path("casemate-jail"), process, extra);
        command.args(["--spec", &SPEC.to_string()]);
        command
    }

    /// The same for another program that hands the descriptors on.
    pub fn command_of(&self, program: &Path, process: &Process, extra: Vec<File>) -> Command {
        let mut spec = tempfile::tempfile().expect("a file");
        serde_json::to_writer(&mut spec, process).expect("written");
        spec.flush().and_then(|()| spec.rewind()).expect("rewound");
        let mut mappings = vec![FdMapping { parent_fd: spec.into(), child_fd: SPEC }];
        for (file, number) in extra.into_iter().zip(3..) {
            mappings.push(FdMapping { parent_fd: file.into(), child_fd: number });
        }
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if Uid::current().is_root() {
            let (user, group) = (Uid::from_raw(self.caller.uid), Gid::from_raw(self.caller.gid));
            // SAFETY: system calls only; nothing is allocated and no lock is taken.
            unsafe {
                command.pre_exec(move || {
                    setgroups(&[group, OTHER_GROUP])?;
                    setgid(group)?;
                    Ok(setuid(user)?)
                });
            }
        }
        command.fd_mappings(mappings).expect("no two at one number");
        command
    }

    pub fn run(&self, process: &Process) -> Output {
        self.command(process, Vec::new()).output().expect("started")
    }

    /// Starts it and waits until it says that it is ready, `times` times.
    pub fn start(&self, process: &Process, times: usize) -> Child {
        let mut child = self.command(process, Vec::new()).spawn().expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert_eq!(lines.take(times).filter(|line| line.is_ok()).count(), times, "not ready");
        child
    }
}

/// All descendants of a process, children first.
pub fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let (mut found, mut next) = (Vec::new(), vec![of]);
    while let Some(one) = next.pop() {
        let children = parents.iter().filter(|(_, parent)| *parent == one).map(|(pid, _)| *pid);
        next.extend(children.clone());
        found.extend(children);
    }
    found
}

/// Waits until none of them runs (a zombie does not).
pub fn all_end(pids: &[u32]) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while pids.iter().any(|&pid| parent(pid).is_some()) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The parent of a process that has not ended.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.next()?.parse().ok())?
}
