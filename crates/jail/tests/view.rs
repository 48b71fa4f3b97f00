//! What a program in a jail can see: tried by one that is in it, on the real kernel, as root and as
//! an ordinary user.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use casemate_plan::jail::{Access, IdMapMethod, Identity, Inode, Reach, VisibleFile};
use casemate_plan::process::{Channel, Descriptor, DescriptorSource, Process};
use common::{Fixture, callers};
use nix::unistd::{Uid, getgroups};
use serde_json::{Value, json};

fn report(fixture: &Fixture, process: &Process) -> Value {
    let output = fixture.run(process);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {} {said}", fixture.caller, output.status);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn program_has_no_privilege() {
    for caller in callers() {
        let seen = report(&Fixture::new(caller), &Fixture::new(caller).probe(&["report"]));
        let status = &seen["status"];
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        assert_eq!(status["NoNewPrivs"], "1");
        assert_eq!(status["Uid"], "1 1 1 1");
        assert_eq!(status["Gid"], "1 1 1 1");
        assert_eq!(status["Groups"], "");
        assert_eq!(status["SigBlk"], "0000000000000000");
        assert_eq!(status["Umask"], "0077");
        assert_eq!(seen["session"], seen["pid"]);
        assert_ne!(seen["signal-init"], "ok");
    }
}

#[test]
fn supplementary_groups_are_kept_only_where_planned() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let mut process = fixture.probe(&["report"]);
        let groups = |process: &Process| report(&fixture, process)["status"]["Groups"].clone();
        assert_eq!(groups(&process), "");
        process.jail.identity.keep_groups = true;
        // Not mapped, but there: the kernel shows the overflow group, once for each.
        let count = if Uid::current().is_root() { 2 } else { getgroups().expect("groups").len() };
        assert_eq!(groups(&process), vec!["65534"; count].join(" "));
    }
}

#[test]
fn program_sees_no_other_process_and_no_network() {
    for caller in callers() {
        let seen = report(&Fixture::new(caller), &Fixture::new(caller).probe(&["report"]));
        assert_eq!(seen["processes"], json!([seen["pid"].to_string()]));
        assert_eq!(seen["devices"], json!(["lo"]));
        assert!(seen["udp"].as_str().expect("text").contains("unreachable"), "{}", seen["udp"]);
        assert_ne!(seen["tcp"], "ok");
        assert_eq!(seen["host-name"], "jail");
    }
}

#[test]
fn program_that_reaches_the_hosts_network_still_reaches_nothing_else() {
    let own = fs::read_to_string("/proc/self/net/dev").expect("there");
    let own: Vec<&str> =
        own.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let secret = fixture.path("secret");
        fs::write(&secret, "text").expect("written");
        let secret = secret.display().to_string();
        let mut process = fixture.probe(&["report", &secret, "/tmp", "/etc/shadow"]);
        process.jail.files.push(VisibleFile::empty("/tmp"));
        process.jail.reach = Reach::HostNetwork;
        let seen = report(&fixture, &process);
        assert_eq!(seen["devices"], json!(own));
        assert_eq!(seen["udp"], "ok");
        assert_eq!(seen["paths"]["/tmp"]["read"], "ok");
        assert_ne!(seen["paths"]["/tmp"]["write"], "ok");
        for path in [secret.as_str(), "/etc/shadow"] {
            assert_eq!(seen["paths"][path]["exists"], false, "{path}");
        }
        assert_eq!(seen["processes"], json!([seen["pid"].to_string()]));
        assert_ne!(seen["signal-init"], "ok");
        assert_ne!(seen["create-in-root"], "ok");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(seen["status"][set], "0000000000000000", "{set}");
        }
    }
}

#[test]
fn program_sees_no_file_but_the_listed() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let (open, secret) = (fixture.path("open"), fixture.path("secret"));
        let area = fixture.path("area");
        for path in [&open, &secret] {
            fs::write(path, "text").expect("written");
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("mode");
        }
        fs::create_dir(&area).expect("made");
        fs::set_permissions(&area, fs::Permissions::from_mode(0o777)).expect("mode");
        std::os::unix::fs::symlink("/usr/lib", fixture.path("link")).expect("linked");

        let mut process = fixture.probe(&["report", "/etc/passwd", "/sys", "/home", "/dev/null"]);
        process.arguments.extend(["/seen", "/area", "/usr", "/link", "/dev/zero"].map(Into::into));
        process.arguments.push(secret.display().to_string());
        process.arguments.push(open.display().to_string());
        let at = |mut file: VisibleFile, target: &str| {
            file.target = target.into();
            file
        };
        process.jail.files.extend([
            at(VisibleFile::write(&open), "/seen"),
            at(VisibleFile::read(&area), "/area"),
            at(VisibleFile::read(fixture.path("link")), "/link"),
            VisibleFile::write("/dev/null"),
            VisibleFile::read(fixture.path("nothing")).if_there(),
        ]);
        let seen = report(&fixture, &process);
        let look = |path: &str| seen["paths"][path].clone();

        for hidden in ["/etc/passwd", "/sys", "/home", "/dev/zero"] {
            assert_eq!(look(hidden)["exists"], false, "{hidden}");
        }
        assert_eq!(look(&secret.display().to_string())["exists"], false);
        assert_eq!(look(&open.display().to_string())["exists"], false);
        assert_eq!((&look("/seen")["read"], &look("/seen")["write"]), (&json!("ok"), &json!("ok")));
        assert_eq!(look("/dev/null")["write"], "ok");
        assert_eq!(look("/area")["read"], "ok");
        assert_ne!(look("/area")["write"], "ok");
        assert_eq!(look("/usr")["read"], "ok");
        assert_ne!(look("/usr")["write"], "ok");
        assert_eq!(look("/link")["link"], "/usr/lib");
        assert_ne!(seen["create-in-root"], "ok");
        assert_eq!(seen["directory"], "/");
    }
}

/// A folder of the caller's, and the probe as himself with the right to change it.
fn as_caller(fixture: &Fixture) -> (std::path::PathBuf, Process) {
    let caller = fixture.caller;
    let folder = fixture.path("his");
    fs::create_dir(&folder).expect("made");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("mode");
    if Uid::current().is_root() {
        chown(&folder, Some(caller.uid), Some(caller.gid)).expect("given");
    }
    let mut process =
        fixture.probe(&["report", "/his", "/proc/sys/fs/nr_open", "/proc/sys/kernel"]);
    let root = caller.uid == 0;
    process.jail.identity = Identity {
        uid: caller.uid,
        gid: caller.gid,
        map: if root { IdMapMethod::Direct } else { IdMapMethod::Caller },
        keep_groups: !root,
    };
    let found = fs::metadata(&folder).expect("there");
    process.jail.files.extend([
        VisibleFile::read("/proc/sys/fs/nr_open"),
        VisibleFile {
            target: "/his".into(),
            access: Access::Change,
            inode: Some(Inode { device: found.dev(), number: found.ino() }),
            ..VisibleFile::read(&folder)
        },
    ]);
    (folder, process)
}

#[test]
fn program_that_is_the_caller_changes_his_folder_alone_and_without_privilege() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let (folder, process) = as_caller(&fixture);
        let seen = report(&fixture, &process);
        let status = &seen["status"];
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set}");
        }
        assert_eq!((&status["Uid"], &status["Gid"]), (&json!("1 1 1 1"), &json!("1 1 1 1")));
        assert_eq!(seen["paths"]["/his"]["write"], "ok");
        assert_eq!(seen["processes"], json!([]), "they are elsewhere");
        assert_eq!(seen["paths"]["/proc/sys/fs/nr_open"]["read"], "ok");
        assert_ne!(seen["paths"]["/proc/sys/fs/nr_open"]["write"], "ok");
        assert_eq!(seen["paths"]["/proc/sys/kernel"]["exists"], false);
        // It can be written, and can have a mode, but not that bit.
        let [written, mode, bit] = [0, 1, 2].map(|at| seen["set-user-id"]["/his"][at].clone());
        assert_eq!((written, mode), (json!("ok"), json!("ok")));
        assert!(bit.as_str().expect("text").contains("not permitted"), "{bit}");
        let made = fs::metadata(folder.join("program")).expect("there");
        assert_eq!((made.uid(), made.gid()), (caller.uid, caller.gid));
        assert_eq!(made.mode() & 0o7777, 0o755);
    }
}

#[test]
fn folder_that_took_the_place_of_another_is_not_shown() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let (folder, process) = as_caller(&fixture);
        let kept = fs::File::open(&folder).expect("opened");
        fs::rename(&folder, fixture.path("moved")).expect("moved");
        for link in [false, true] {
            match link {
                false => fs::create_dir(&folder).expect("made"),
                true => {
                    fs::remove_dir(&folder).expect("removed");
                    std::os::unix::fs::symlink("/", &folder).expect("linked");
                }
            }
            let output = fixture.run(&process);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(125), "{said}");
            assert!(said.contains("could not mount"), "{said}");
        }
        drop(kept);
    }
}

#[test]
fn program_gets_the_listed_descriptors_environment_and_limits() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let mut process = fixture.probe(&["report"]);
        process.environment = vec![("LANG".into(), "C".into())];
        process.jail.limits.address_space = Some(1 << 30);
        let what = DescriptorSource::Channel { channel: Channel::Agent };
        process.descriptors = vec![Descriptor { number: 4, what }];
        // Three are open, the one in the middle is listed.
        let files = (0..3).map(|_| fs::File::open("/dev/null").expect("opened")).collect();
        let output = fixture.command(&process, files).output().expect("started");
        let seen: Value = serde_json::from_slice(&output.stdout).expect("JSON");

        // The last one is the directory being read.
        assert_eq!(seen["descriptors"], json!(["0", "1", "2", "3", "4"]));
        assert_eq!(seen["environment"], json!({"LANG": "C"}));
        let limits = seen["limits"].as_str().expect("text");
        for expected in [
            ["Max", "core", "file", "size", "1", "1"].as_slice(),
            &["Max", "open", "files", "64", "64"],
            &["Max", "processes", "32", "32"],
            &["Max", "address", "space", "1073741824", "1073741824"],
        ] {
            let found = limits.lines().any(|line| {
                line.split_whitespace().take(expected.len()).eq(expected.iter().copied())
            });
            assert!(found, "{expected:?} in {limits}");
        }
    }
}

#[test]
fn program_has_its_name_where_it_is_visible() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let mut process = fixture.probe(&["report"]);
        process.jail.files.push(VisibleFile::execute(&process.program));
        let seen = report(&fixture, &process);
        assert_eq!(seen["status"]["Name"], "probe");
        assert_eq!(seen["directory"], "/");
    }
}

#[test]
fn program_that_makes_sockets_makes_no_namespaces_and_no_other_socket() {
    for caller in callers() {
        let fixture = Fixture::new(caller);
        let seen = report(&fixture, &fixture.probe(&["report"]));
        assert_eq!(seen["clone3"], "EINVAL: Invalid argument", "without the filter it is there");
        let folder = fixture.path("sockets");
        fs::create_dir(&folder).expect("made");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("mode");
        let mut process = fixture.probe(&["report"]);
        process.jail.files.push(VisibleFile {
            target: "/his".into(),
            access: Access::Sockets,
            ..VisibleFile::read(&folder)
        });
        let seen = report(&fixture, &process);
        assert_eq!(seen["clone3"], "ENOSYS: Function not implemented");
        assert_eq!(seen["unshare"], "EPERM: Operation not permitted");
        for kind in ["udp", "tcp"] {
            let said = seen[kind].as_str().expect("text");
            assert!(said.contains("not permitted"), "{kind}: {said}");
        }
    }
}
