//! What the agent has to say: to the kernel's log always, to the host when the link is up.
//!
//! Messages for the host wait here until somebody takes them; a guest in trouble must not flood
//! the host, so there are few per second and the rest is only counted.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

/// Messages to the host in one second. The protocol's limit for all kinds of message is far above.
const PER_SECOND: u32 = 20;

/// The kernel's severity numbers (syslog(2)). `quiet` kernels show those below 4 on the console.
#[derive(Clone, Copy)]
enum Severity {
    Critical = 2,
    Warning = 4,
    Info = 6,
}

/// Where messages go.
#[derive(Debug)]
pub(crate) struct Log {
    kmsg: Option<File>,
    for_host: Vec<String>,
    second: Instant,
    sent: u32,
    dropped: u32,
}

impl Log {
    /// A log; opens `/dev/kmsg` when that is there already.
    pub(crate) fn new() -> Self {
        let kmsg = OpenOptions::new().write(true).open("/dev/kmsg").ok();
        Self { kmsg, for_host: Vec::new(), second: Instant::now(), sent: 0, dropped: 0 }
    }

    /// Worth knowing for a person who debugs the guest; stays in the guest.
    pub(crate) fn info(&mut self, text: &str) {
        self.kernel(Severity::Info, text);
    }

    /// Something is not as it should be: to the kernel's log and to the host.
    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.kernel(Severity::Warning, &text);
        if self.second.elapsed() > Duration::from_secs(1) {
            self.second = Instant::now();
            self.sent = 0;
            let dropped = std::mem::take(&mut self.dropped);
            if dropped > 0 {
                self.for_host.push(format!("{dropped} messages of the agent were left out"));
            }
        }
        self.sent += 1;
        if self.sent > PER_SECOND {
            self.dropped += 1;
        } else {
            self.for_host.push(text);
        }
    }

    /// The guest cannot go on; shown on its console too.
    pub(crate) fn critical(&mut self, text: &str) {
        self.kernel(Severity::Critical, text);
    }

    /// Takes the messages that wait for the host.
    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.for_host)
    }

    fn kernel(&mut self, severity: Severity, text: &str) {
        if let Some(kmsg) = &mut self.kmsg {
            // One write is one record; the kernel takes at most about 1000 bytes.
            let line = format!("<{}>casemate-agent: {text}", severity as u8);
            let mut record = line.into_bytes();
            record.truncate(900);
            // Without a line break the kernel waits for more of the record.
            record.push(b'\n');
            let _ = kmsg.write_all(&record);
        }
    }
}
