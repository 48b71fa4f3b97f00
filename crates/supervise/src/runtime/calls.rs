//! The brokers of the guest's calls: started, listened to, ended.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use casemate_link::orders::Order;

use super::Runtime;
use crate::audit::{self, Pace};
use crate::broker::{COMMAND, MAX_VERDICT, Served, Verdict};
use crate::life::Event;

/// Exit code of a caller when its broker failed.
const TROUBLE: u8 = 125;

/// Those that have a call: for each, our end of the pair whose other end it connects. A broker ends
/// when that is closed.
#[derive(Debug)]
pub(super) struct Brokers {
    by_call: HashMap<u32, OwnedFd>,
    pace: Arc<Mutex<Pace>>,
}

impl Default for Brokers {
    fn default() -> Self {
        let pace = Arc::new(Mutex::new(Pace::new(Instant::now())));
        Self { by_call: HashMap::new(), pace }
    }
}

impl Brokers {
    /// Whether one more thing that a guest has caused may be recorded. What is left out is told with
    /// the next call.
    pub(super) fn admit(&self) -> bool {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).allows(Instant::now())
    }
}

impl Runtime<'_> {
    pub(super) fn decide(&mut self, call: u32, target: &str, service: &str) {
        if let Err(error) = self.start_broker(call, target, service) {
            tracing::warn!("could not start the broker of a call: {error}");
            let reason = "the host could not decide it".to_owned();
            let event = Event::CallDecided { call, result: Err((TROUBLE, reason)) };
            // Not `tell`: the effects of this round come first.
            let _ = self.events.send((self.launches, event));
        }
    }

    fn start_broker(&mut self, call: u32, target: &str, service: &str) -> std::io::Result<()> {
        let broker = &self.assignment.broker;
        let (ours, theirs) = UnixStream::pair()?;
        // The link never waits for it, and what is at the other end expects to.
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&broker.path);
        if let Some(config) = &broker.config {
            command.arg("--config").arg(config);
        }
        command.args([COMMAND, &broker.source, "--", target, service]);
        command.current_dir("/").stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let (events, launch) = (self.events.clone(), self.launches);
        let what = format!("{service} from {} to {target:?}", broker.source);
        let [source, target, service] = [&broker.source, target, service].map(str::to_owned);
        let (record, pace) = (self.assignment.audit.clone(), self.brokers.pace.clone());
        std::thread::spawn(move || {
            let mut line = String::new();
            let mut said = BufReader::new(stdout.take(MAX_VERDICT));
            let read = said.read_line(&mut line);
            let verdict = read.ok().and_then(|_| serde_json::from_str::<Verdict>(&line).ok());
            let admitted =
                pace.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
            if let Some(left_out) = admitted {
                if left_out > 0 {
                    tracing::info!("{left_out} calls are not in this log, there were too many");
                    record.write(&audit::calls_left_out(&source, left_out));
                }
                if let Some(verdict) = &verdict {
                    record.write(&audit::call(&source, &target, &service, verdict));
                }
                match &verdict {
                    Some(Verdict::Connected { target, by }) => {
                        tracing::info!("call {what}: goes to {target}, by {by}");
                    }
                    Some(Verdict::Refused { code, detail, .. }) => {
                        tracing::info!("call {what}: refused ({code}), {detail}");
                    }
                    None => tracing::warn!("call {what}: its broker said nothing"),
                }
            }
            let result = match verdict {
                Some(Verdict::Connected { .. }) => Ok(()),
                Some(Verdict::Refused { code, reason, .. }) => Err((code, reason)),
                None => Err((TROUBLE, "the host could not decide it".to_owned())),
            };
            // Nobody listens when the life has ended meanwhile.
            let _ = events.send((launch, Event::CallDecided { call, result }));
            // A service of the host goes on in it, and may have something to tell at its end.
            line.clear();
            let served = said.read_line(&mut line).ok();
            if let Some(served) = served.and_then(|_| serde_json::from_str::<Served>(&line).ok())
                && pace.lock().unwrap_or_else(PoisonError::into_inner).allows(Instant::now())
            {
                record.write(&audit::served(&source, &served));
            }
            let _ = child.wait();
        });
        self.brokers.by_call.insert(call, ours.into());
        Ok(())
    }

    /// The caller's link gets its end of what the broker has connected.
    pub(super) fn connect_call(&mut self, stream: u32, call: u32) {
        if let Some(socket) = self.brokers.by_call.remove(&call) {
            self.order(Order::Connect { stream, call }, Some(socket));
        }
    }

    /// Nobody waits for it any more: the question it may be asking goes away.
    pub(super) fn forget_call(&mut self, call: u32) {
        self.brokers.by_call.remove(&call);
    }
}
