//! Launching planned processes for real: their descriptors, their end, and the end of what a
//! start made.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_host::launch::{Ended, LaunchError, Launched, launch};
use casemate_host::linux::LinuxHost;
use casemate_host::sockets::channel_pair;
use casemate_host::step::{Applied, Host};
use casemate_plan::Step;
use casemate_plan::jail::{IdMapMethod, Identity, Jail, Limits, Reach, VisibleFile};
use casemate_plan::process::{Channel, Descriptor, DescriptorSource, Process, Role};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `casemate-jail` as cargo builds it beside the tests; none, said aloud, when it is not built or
/// this user cannot have a jail with ids that root may choose.
fn jail() -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: these jails take ids that only root may map");
        return None;
    }
    let tests = std::env::current_exe().expect("the test");
    let jail = tests.parent()?.parent()?.join("casemate-jail");
    if !jail.exists() {
        println!("skipped: {} is not built (cargo build -p casemate-jail)", jail.display());
        return None;
    }
    Some(jail)
}

/// A shell script in a jail with the system's programs.
fn shell(role: Role, script: &str, descriptors: Vec<Descriptor>) -> Process {
    let system = ["/usr", "/bin", "/lib", "/lib64"];
    Process {
        role,
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        descriptors,
        jail: Jail {
            identity: Identity {
                uid: 210_000,
                gid: 210_000,
                map: IdMapMethod::Direct,
                keep_groups: false,
            },
            files: system.map(|path| VisibleFile::execute(path).if_there()).into(),
            limits: Limits {
                open_files: 64,
                address_space: None,
                file_size: 1 << 20,
                processes: 32,
            },
            reach: Reach::Nothing,
        },
    }
}

fn channel(number: i32, channel: Channel) -> Descriptor {
    Descriptor { number, what: DescriptorSource::Channel { channel } }
}

fn log() -> (File, OwnedFd) {
    let log = tempfile::tempfile().expect("a file");
    let other = log.try_clone().expect("a descriptor");
    (log, other.into())
}

fn text(mut log: File) -> String {
    let mut text = String::new();
    std::io::Seek::rewind(&mut log).expect("rewound");
    log.read_to_string(&mut text).expect("read");
    text
}

fn run(jail: &Path, process: &Process, channels: Vec<(i32, OwnedFd)>) -> (Ended, String) {
    let (log, stderr) = log();
    let mut launched = launch(process, jail, channels, stderr).expect("launched");
    (launched.wait().expect("ended"), text(log))
}

#[test]
fn process_talks_over_its_channel_and_ends() {
    let Some(jail) = jail() else { return };
    let (ours, theirs) = channel_pair(Channel::Agent).expect("a pair");
    let process = shell(Role::Vmm, "read x <&3; echo got $x >&3", vec![channel(3, Channel::Agent)]);
    let (_, stderr) = log();
    let mut launched = launch(&process, &jail, vec![(3, theirs)], stderr).expect("launched");
    assert_eq!(launched.try_wait().expect("asked"), None);

    let mut ours = UnixStream::from(ours);
    ours.write_all(b"this\n").expect("written");
    let mut answer = String::new();
    // The end of the stream comes: neither monitor nor init holds the channel.
    ours.read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "got this\n");

    let mut ends = [PollFd::new(launched.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ends, PollTimeout::from(5000u16)), Ok(1), "the end is not told");
    assert_eq!(launched.try_wait().expect("asked"), Some(Ended::Exited(0)));
    assert_eq!(launched.wait().expect("asked again"), Ended::Exited(0));
}

#[test]
fn files_and_logs_are_opened_by_the_launcher() {
    let Some(jail) = jail() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let (disk, console) = (directory.path().join("disk"), directory.path().join("console"));
    fs::write(&disk, "content").expect("written");
    let descriptors = vec![
        Descriptor {
            number: 5,
            what: DescriptorSource::File { path: disk.clone(), writable: false },
        },
        Descriptor { number: 9, what: DescriptorSource::Log { path: console.clone() } },
    ];
    // The directory is private to this user, and the process is another one.
    let process = shell(Role::Vmm, "cat <&5 >&9; echo x >&5", descriptors);
    let (ended, said) = run(&jail, &process, vec![]);
    assert_eq!(ended, Ended::Exited(1), "{said}");
    assert_eq!(fs::read_to_string(&console).expect("read"), "content");
    assert_eq!(fs::read_to_string(&disk).expect("read"), "content");
}

#[test]
fn ends_are_told_apart() {
    let Some(jail) = jail() else { return };
    assert_eq!(run(&jail, &shell(Role::Vmm, "exit 3", vec![]), vec![]).0, Ended::Exited(3));
    assert_eq!(run(&jail, &shell(Role::Vmm, "kill -9 $$", vec![]), vec![]).0, Ended::Killed(9));
    let mut process = shell(Role::Vmm, "", vec![]);
    process.program = "/nothing".into();
    let (ended, said) = run(&jail, &process, vec![]);
    assert_eq!(ended, Ended::NotBuilt);
    assert!(said.starts_with("casemate-jail: could not open /nothing: "), "{said}");

    let process = shell(Role::Vmm, "trap 'exit 7' TERM; while :; do sleep 0.01; done", vec![]);
    let (_, stderr) = log();
    let mut launched = launch(&process, &jail, vec![], stderr).expect("launched");
    // Asking before the trap is set ends it by the signal itself.
    std::thread::sleep(Duration::from_millis(300));
    launched.terminate().expect("asked");
    assert_eq!(launched.wait().expect("ended"), Ended::Exited(7));
}

#[test]
fn dropping_ends_the_process() {
    let Some(jail) = jail() else { return };
    let (ours, theirs) = channel_pair(Channel::Agent).expect("a pair");
    let process = shell(Role::Vmm, "echo >&3; sleep 100", vec![channel(3, Channel::Agent)]);
    let (_, stderr) = log();
    let launched = launch(&process, &jail, vec![(3, theirs)], stderr).expect("launched");
    let mut ours = UnixStream::from(ours);
    ours.read_exact(&mut [0]).expect("started");
    drop::<Launched>(launched);
    assert_eq!(ours.read(&mut [0]).expect("read"), 0, "something still holds the channel");
}

#[test]
fn what_does_not_fit_the_plan_is_refused() {
    let Some(jail) = jail() else { return };
    let process = shell(Role::Vmm, "", vec![channel(3, Channel::Agent)]);
    let refused = |channels, jail: &Path| {
        launch(&process, jail, channels, log().1).expect_err("refused").to_string()
    };
    let end = || channel_pair(Channel::Agent).expect("a pair").0;
    assert!(refused(vec![], &jail).contains("descriptor 3"));
    assert!(refused(vec![(3, end()), (4, end())], &jail).contains("descriptor 4"));
    let path = Path::new("/none/casemate-jail");
    assert_eq!(refused(vec![(3, end())], path), "could not find an executable /none/casemate-jail");
    let mut process = process.clone();
    process.descriptors[0].what =
        DescriptorSource::File { path: "/no/disk".into(), writable: true };
    let error = launch(&process, &jail, vec![], log().1).expect_err("refused");
    assert!(matches!(error, LaunchError::Open { .. }), "{error}");
}

#[test]
fn start_connects_the_processes_and_leaves_nothing() {
    let Some(jail) = jail() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("banking");
    let vmm = shell(
        Role::Vmm,
        "read x <&4; echo $x >&3; sleep 100",
        vec![channel(3, Channel::Agent), channel(4, Channel::Monitor)],
    );
    let mut link = shell(Role::Link, "cat <&3; sleep 100", vec![channel(3, Channel::Agent)]);
    link.jail.identity.uid += 1;
    let (log, stderr) = log();
    let mut host = LinuxHost::new(jail);
    host.assign(vec![link, vmm], vec![], stderr);
    let mut applied = Applied::default();
    let steps = [
        Step::RunDirectory { path: path.clone() },
        Step::Channels,
        Step::Start { role: Role::Link },
        Step::Start { role: Role::Vmm },
    ];
    for step in &steps {
        applied.apply(&mut host, step).expect("applied");
    }
    let mut monitor = UnixStream::from(host.take_channel(Channel::Monitor).expect("ours"));
    assert!(host.take_channel(Channel::Agent).is_none(), "between the two");
    monitor.write_all(b"hello\n").expect("written");
    while log.metadata().expect("there").len() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(path.join("lock").exists());
    assert_eq!(applied.undo(&mut host).len(), 0);
    assert_eq!(monitor.read(&mut [0]).expect("read"), 0);
    assert!(host.running(Role::Vmm).is_none() && host.running(Role::Link).is_none());
    assert!(!path.exists());
    assert_eq!(text(log), "hello\n");
    host.undo(&steps[0]).expect("nothing left to undo");
}
