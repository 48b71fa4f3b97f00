//! Confines itself and then tries what its argument says, for tests: it shall be killed for it.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;

use casemate_wayland::confine;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, what] = &words[..] else { panic!("confined ROLE WHAT") };
    match role.as_str() {
        "server" => confine::server().expect("confined"),
        "connector" => confine::connector().expect("confined"),
        other => panic!("no role {other}"),
    }
    match what.as_str() {
        "nothing" => {}
        "open" => drop(File::open("/etc/hostname")),
        "socket" => drop(UnixStream::connect("/nowhere")),
        "network" => drop(TcpStream::connect("127.0.0.1:9")),
        "exec" => drop(Command::new("/bin/true").status()),
        "threads" => drop(std::thread::spawn(|| {}).join()),
        other => panic!("nothing to try called {other}"),
    }
    std::process::exit(7);
}
