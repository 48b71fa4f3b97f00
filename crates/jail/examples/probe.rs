//! What a program in a jail can see and do, told by one that is in it. For the tests only.
//!
//! `probe report [PATH…]` prints a JSON object about itself and whether each path exists, opens and
//! can be written; the other words make it behave in one way.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, abort, exit};
use std::time::Duration;

use serde_json::{Value, json};

// Children that nobody waits for are the point of `linger`.
#[allow(clippy::zombie_processes)]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("report") => println!("{}", report(&arguments[1..])),
        Some("exit") => exit(arguments[1].parse().expect("a number")),
        Some("abort") => abort(),
        Some("sleep") => sleep(),
        // Wants to outlive everything: no parent-death signal, children in sessions of their own.
        Some("linger") => {
            nix::sys::prctl::set_pdeathsig(None).expect("cleared");
            for _ in 0..3 {
                Command::new("/proc/self/exe").arg("daemon").spawn().expect("a child");
            }
            sleep();
        }
        Some("daemon") => {
            nix::sys::prctl::set_pdeathsig(None).expect("cleared");
            nix::unistd::setsid().expect("a session");
            sleep();
        }
        _ => exit(2),
    }
}

fn sleep() -> ! {
    println!("ready");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn report(paths: &[String]) -> Value {
    let status: BTreeMap<String, String> = fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.into(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect();
    json!({
        "status": status,
        "limits": fs::read_to_string("/proc/self/limits").unwrap_or_default(),
        "processes": names("/proc").into_iter().filter(|n| n.parse::<u32>().is_ok()).collect::<Vec<_>>(),
        "pid": std::process::id(),
        "session": nix::unistd::getsid(None).map(|pid| pid.as_raw()).unwrap_or(-1),
        "descriptors": names("/proc/self/fd"),
        "devices": fs::read_to_string("/proc/self/net/dev").unwrap_or_default()
            .lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned())
            .collect::<Vec<_>>(),
        "udp": outcome(UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"x", "127.0.0.1:9"))),
        "tcp": outcome(TcpListener::bind("127.0.0.1:0")),
        "unshare": outcome(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)),
        "clone3": clone3(),
        "signal-init": outcome(nix::sys::signal::kill(nix::unistd::Pid::from_raw(1), None)),
        "environment": std::env::vars().collect::<BTreeMap<_, _>>(),
        "directory": std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
        "host-name": nix::unistd::gethostname().map(|name| name.display().to_string()).unwrap_or_default(),
        "create-in-root": outcome(fs::write("/new", "x")),
        "set-user-id": paths.iter().map(|path| (path.clone(), set_user_id(path))).collect::<BTreeMap<_, _>>(),
        "paths": paths.iter().map(|path| (path.clone(), look(path))).collect::<BTreeMap<_, _>>(),
    })
}

/// What the kernel says of clone3 with nothing in it.
fn clone3() -> String {
    // SAFETY: of no structure nothing is read.
    #[expect(unsafe_code, reason = "libc has no function for it")]
    unsafe {
        nix::libc::syscall(nix::libc::SYS_clone3, std::ptr::null::<u8>(), 0)
    };
    nix::errno::Errno::last().to_string()
}

fn look(path: &str) -> Value {
    let directory = fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
    json!({
        "exists": fs::symlink_metadata(path).is_ok(),
        "link": fs::read_link(path).ok(),
        "read": if directory { outcome(fs::read_dir(path)) } else { outcome(fs::File::open(path)) },
        "write": if directory {
            outcome(fs::write(format!("{path}/new"), "x"))
        } else {
            outcome(OpenOptions::new().append(true).open(path))
        },
    })
}

/// Gives a file of its own in a folder a mode, and then one with the bit.
fn set_user_id(folder: &str) -> [String; 3] {
    let file = format!("{folder}/program");
    let set = |mode| outcome(fs::set_permissions(&file, fs::Permissions::from_mode(mode)));
    [outcome(fs::write(&file, "x")), set(0o755), set(0o4755)]
}

fn names(directory: &str) -> Vec<String> {
    fs::read_dir(directory)
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().display().to_string()).collect()
        })
        .unwrap_or_default()
}

fn outcome<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "ok".into())
}
