//! How a jail ends: with its program, with its monitor, with its launcher, or before it began.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use casemate_plan::jail::VisibleFile;
use casemate_plan::process::{Channel, Descriptor, DescriptorSource};
use common::{Fixture, SPEC, all_end, callers, descendants};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

fn pid(number: u32) -> Pid {
    Pid::from_raw(number as i32)
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("casemate-jail: "), "{said}");
    said
}

#[test]
fn exit_code_is_the_programs() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        assert_eq!(fixture.run(&fixture.probe(&["exit", "0"])).status.code(), Some(0));
        assert_eq!(fixture.run(&fixture.probe(&["exit", "7"])).status.code(), Some(7));
        let aborted = fixture.run(&fixture.probe(&["abort"]));
        assert_eq!(aborted.status.code(), Some(128 + Signal::SIGABRT as i32));
    }
}

#[test]
fn outside_the_program_is_the_subordinate_user() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let mut monitor = fixture.start(&fixture.probe(&["sleep"]), 1);
        let below = descendants(monitor.id());
        assert_eq!(below.len(), 2, "init and the program");
        let [init, program] = below[..] else { panic!("{below:?}") };

        let status = |pid: u32, name: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
            let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
            line.expect("a line").split_whitespace().nth(1).unwrap_or_default().to_owned()
        };
        assert_eq!(status(program, "Uid"), caller.subordinate.to_string());
        assert_eq!(status(program, "Gid"), caller.subordinate.to_string());
        assert_eq!(status(init, "CapEff"), "0000000000000020", "CAP_KILL");
        assert_eq!(status(monitor.id(), "CapEff"), "0000000000000000");
        for process in [monitor.id(), init, program] {
            assert_eq!(status(process, "NoNewPrivs"), "1");
        }
        // They are undumpable, so that only root may look at their descriptors.
        if Uid::current().is_root() {
            for process in [monitor.id(), init] {
                let open = fs::read_dir(format!("/proc/{process}/fd")).expect("descriptors");
                assert!(open.count() <= 4, "too many descriptors");
            }
        } else {
            println!("skipped: counting the descriptors of monitor and init needs root");
        }
        monitor.kill().and_then(|()| monitor.wait()).expect("killed");
    }
}

#[test]
fn end_of_the_monitor_ends_a_program_that_wants_to_stay() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let mut process = fixture.probe(&["linger"]);
        process.jail.files.push(VisibleFile::execute(&process.program));
        let mut monitor = fixture.start(&process, 4);
        let below = descendants(monitor.id());
        assert_eq!(below.len(), 5, "init, the program and its children");
        monitor.kill().and_then(|()| monitor.wait()).expect("killed");
        assert!(all_end(&below), "something of {below:?} lives on");
    }
}

#[test]
fn end_of_the_launcher_ends_everything() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let process = fixture.probe(&["sleep"]);
        // The shell is the launcher: it keeps the descriptor and forks.
        let jail = fixture.path("casemate-jail");
        let script = format!("{} --spec {SPEC} --parent $$ & wait", jail.display());
        let mut shell = fixture.command_of("/bin/sh".as_ref(), &process, Vec::new());
        let mut launcher = shell.args(["-c", &script]).spawn().expect("started");
        let mut line = String::new();
        let stdout = launcher.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        let below = descendants(launcher.id());
        assert_eq!(below.len(), 3, "monitor, init, program");
        launcher.kill().and_then(|()| launcher.wait()).expect("killed");
        assert!(all_end(&below), "something of {below:?} lives on");
    }
}

#[test]
fn detached_program_outlives_its_launcher_and_not_its_monitor() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let process = fixture.probe(&["sleep"]);
        let jail = fixture.path("casemate-jail");
        let script = format!("{} --spec {SPEC} --detached & wait", jail.display());
        let mut shell = fixture.command_of("/bin/sh".as_ref(), &process, Vec::new());
        let mut launcher = shell.args(["-c", &script]).spawn().expect("started");
        let mut line = String::new();
        let stdout = launcher.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let below = descendants(launcher.id());
        assert_eq!(below.len(), 3, "monitor, init, program");
        launcher.kill().and_then(|()| launcher.wait()).expect("killed");
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(below.iter().all(|&one| kill(pid(one), None).is_ok()), "{below:?}");
        kill(pid(below[0]), Signal::SIGKILL).expect("it runs");
        assert!(all_end(&below), "something of {below:?} lives on");
    }
}

#[test]
fn termination_is_handed_on() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let mut monitor = fixture.start(&fixture.probe(&["sleep"]), 1);
        kill(pid(monitor.id()), Signal::SIGINT).expect("sent");
        kill(pid(monitor.id()), Signal::SIGTERM).expect("sent");
        let status = monitor.wait().expect("ended");
        assert_eq!(status.code(), Some(128 + Signal::SIGTERM as i32));
        assert_eq!(status.signal(), None);
    }
}

#[test]
fn what_cannot_be_built_is_said_in_one_line() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let mut process = fixture.probe(&["exit", "0"]);
        process.jail.files.push(VisibleFile::read("/no/such/file"));
        let said = refused(&fixture.run(&process));
        assert_eq!(
            said,
            "casemate-jail: could not find /no/such/file: No such file or directory (os error 2)\n"
        );

        let mut process = fixture.probe(&["exit", "0"]);
        process.program = "/no/such/program".into();
        assert!(refused(&fixture.run(&process)).contains("could not open /no/such/program"));

        let mut process = fixture.probe(&["exit", "0"]);
        let what = DescriptorSource::Channel { channel: Channel::Agent };
        process.descriptors = vec![Descriptor { number: 5, what }];
        assert!(refused(&fixture.run(&process)).contains("descriptor 5: it is not open"));

        let mut command = fixture.command(&fixture.probe(&["exit", "0"]), Vec::new());
        let output = command.args(["--parent", "1"]).output().expect("started");
        assert!(refused(&output).contains("the launcher has ended"));
    }
}

#[test]
fn ids_outside_the_callers_range_are_refused() {
    for caller in callers().into_iter().filter(|caller| caller.uid != 0) {
        let fixture = Fixture::new(caller);
        let mut process = fixture.probe(&["exit", "0"]);
        process.jail.identity.uid = 1;
        let said = refused(&fixture.run(&process));
        assert!(said.contains("could not map the subordinate ids: newuidmap: "), "{said}");
    }
}
