//! Boots a guest, runs one command in it and says how long everything took. For trying the agent
//! without the rest of casemate: `cargo run --example drive -- uname -a`; as `DRIVE_USER`.

#[path = "../tests/machine/mod.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod machine;

use std::time::{Duration, Instant};

use casemate_wire::FromHost;
use machine::host::session;

fn main() {
    let parts = match machine::Parts::find(None) {
        Ok(parts) => parts,
        Err(reason) => return println!("skipped: drive: {reason}"),
    };
    let begin = Instant::now();
    let mut guest = machine::Machine::boot(&parts);
    println!("ready after {:?}", begin.elapsed());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begin = Instant::now();
    let mut command = session(&arguments);
    command.user = std::env::var("DRIVE_USER").ok();
    let ended = guest.host.run(command, b"");
    println!("{:?} after {:?}", ended.exit, begin.elapsed());
    print!("{}", String::from_utf8_lossy(&ended.stdout));
    eprint!("{}", String::from_utf8_lossy(&ended.stderr));
    let begin = Instant::now();
    guest.host.send(&FromHost::Shutdown);
    guest.host.run_until(Duration::from_millis(1), |_| false);
    println!("shut down: {:?} (total {:?})", guest.wait_for_end(), begin.elapsed());
}
