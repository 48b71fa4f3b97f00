//! What the agent costs: starting a command, and moving data through one, beside what the same
//! port does with nothing but `cat` behind it.

#[path = "../tests/machine/mod.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod machine;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use casemate_wire::OpenSession;
use machine::Machine;
use machine::host::session;

const DATA: usize = 64 << 20;

fn main() {
    let parts = match machine::Parts::find(None) {
        Ok(parts) => parts,
        Err(reason) => return println!("skipped: bench: {reason}"),
    };
    let mut guest = Machine::boot(&parts);
    starts(&mut guest, &["true"]);
    starts(&mut guest, &["/bin/true"]);
    starts(&mut guest, &["/sbin/ldconfig", "-V"]);
    starts(&mut guest, &["/none"]);
    for _ in 0..3 {
        through_session(&mut guest);
    }
    println!("one way, out of the guest: {}", one_way(&mut guest, true));
    println!("one way, into the guest:   {}", one_way(&mut guest, false));
    through_bare_cat(&mut guest);
}

/// Time from asking for a command to knowing how it ended.
fn starts(guest: &mut Machine, command: &[&str]) {
    let mut times: Vec<Duration> = (0..60)
        .map(|_| {
            let begin = Instant::now();
            guest.host.run(session(command), b"");
            begin.elapsed()
        })
        .collect();
    times.sort();
    println!("{command:?}: p50 {:?}, p95 {:?}, least {:?}", times[30], times[57], times[0]);
}

/// Megabytes per second, by the clock and by QEMU's processor time.
struct Rate {
    begin: Instant,
    used: Duration,
}

impl Rate {
    fn begin(guest: &Machine) -> Self {
        Self { begin: Instant::now(), used: guest.processor_time() }
    }

    fn end(&self, guest: &Machine) -> String {
        let rate = |time: Duration| DATA as f64 / 1e6 / time.as_secs_f64();
        let used = guest.processor_time() - self.used;
        format!("{:.0} MB/s ({:.0} per processor second)", rate(self.begin.elapsed()), rate(used))
    }
}

fn through_session(guest: &mut Machine) {
    let input = vec![7; DATA];
    let begin = Rate::begin(guest);
    let ended = guest.host.run(session(&["cat"]), &input);
    assert_eq!(ended.stdout.len(), DATA);
    println!("through `cat` in a session: {} each way", begin.end(guest));
}

fn one_way(guest: &mut Machine, out: bool) -> String {
    let count = (DATA / 65536).to_string();
    let blocks = format!("count={count}");
    let begin = Rate::begin(guest);
    if out {
        let ended = guest
            .host
            .run(session(&["dd", "if=/dev/zero", "bs=65536", &blocks, "status=none"]), b"");
        assert_eq!(ended.stdout.len(), DATA);
    } else {
        guest.host.run(session(&["dd", "of=/dev/null", "bs=65536", "status=none"]), &vec![0; DATA]);
    }
    begin.end(guest)
}

/// The same with `cat` reading and writing a port itself.
fn through_bare_cat(guest: &mut Machine) {
    let script = "exec cat <> /dev/vport0p2 >&0";
    let command = OpenSession { user: Some("root".into()), ..session(&["sh", "-c", script]) };
    let mut port = guest.bare_port().expect("the port's socket");
    let stream = guest.host.open(command);
    guest.host.run_until(Duration::from_secs(20), |host| host.streams[&stream].started.is_some());
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..3 {
        let mut writing = port.try_clone().expect("a second descriptor");
        let begin = Rate::begin(guest);
        let writer = std::thread::spawn(move || writing.write_all(&vec![7; DATA]));
        let mut bytes = vec![0; 65536];
        let mut count = 0;
        while count < DATA {
            count += port.read(&mut bytes).expect("bytes");
        }
        println!("through `cat` on a bare port: {} each way", begin.end(guest));
        writer.join().expect("no panic").expect("written");
    }
}
