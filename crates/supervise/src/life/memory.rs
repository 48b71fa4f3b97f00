//! The part of a life that keeps the guest's memory with a snapshot, and the part that goes on from
//! one.
//!
//! Keeping comes between the freezing and the switch of [`super::snapshot`]: the guest is stopped, its
//! memory written through a program that encrypts it, and only when all of it is on the disk the
//! volumes go over and the guest runs on. Until then, dropping is safe.
//!
//! Going on is a boot without booting: the link knocks, the agent that wakes up in the kept memory
//! greets it, and is told the time and given random numbers before anything else.

use std::time::{Duration, Instant};

use casemate_link::orders::Order;

use super::snapshot::Stage;
use super::{Effect, Life, State};

/// What is said when nobody knows better.
pub(super) const NOT_WRITTEN: &str = "the VMM could not write the guest's memory";

/// For who reads what the VMM writes to say why it could not: a full disk is known only there.
const CAUSE_DEADLINE: Duration = Duration::from_secs(10);

/// A guest that is about to go on from a kept memory.
#[derive(Debug)]
pub(super) struct Resuming {
    /// The snapshot it was kept with.
    snapshot: String,
    /// All of it was decrypted.
    read: bool,
}

impl Life {
    /// The VMM has written the memory of the stopped guest, or read that of one to go on.
    pub(super) fn memory_written(&mut self, good: bool, now: Instant) {
        if self.resuming.is_some() {
            // What is wrong with it is told by the end of the VMM.
            if good {
                self.effects.push(Effect::GoOn);
            }
            return;
        }
        let may_run = self.may_run();
        match &mut self.shot {
            Some(shot) if shot.stage == Stage::Writing => {
                shot.written = Some(good);
                if !good {
                    shot.deadline = now + CAUSE_DEADLINE;
                }
                self.memory_is_there(now);
            }
            // What was given up is over only now, and the guest could not go on before.
            None if may_run => self.effects.push(Effect::Execute(true)),
            _ => {}
        }
    }

    /// Nobody has paused it, and nobody has killed it.
    fn may_run(&self) -> bool {
        matches!(self.state, State::Running | State::Stopping { killed: false, .. })
    }

    /// What was written is on the disk.
    pub(super) fn memory_encrypted(
        &mut self,
        number: u32,
        result: Result<(), String>,
        now: Instant,
    ) {
        let Some(shot) = self.shot.as_mut().filter(|shot| shot.number == number) else { return };
        match result {
            Ok(()) => {
                shot.encrypted = true;
                self.memory_is_there(now);
            }
            Err(reason)
                if matches!(shot.stage, Stage::Preparing | Stage::Freezing | Stage::Writing) =>
            {
                self.fail_snapshot(&format!("could not keep the memory: {reason}"), None, now);
            }
            Err(_) => {}
        }
    }

    /// When all of it is: the volumes may go over.
    fn memory_is_there(&mut self, now: Instant) {
        let Some(shot) = self.shot.as_mut() else { return };
        if shot.stage != Stage::Writing || !shot.encrypted {
            return;
        }
        let number = shot.number;
        match shot.written {
            None => return,
            Some(false) => return self.fail_snapshot(NOT_WRITTEN, None, now),
            Some(true) => {}
        }
        if self.terms.guest.volumes.is_empty() {
            shot.stage = Stage::Switching;
            self.effects.push(Effect::KeepSnapshot { number });
        } else {
            self.begin_switch(now);
        }
    }

    /// The guest that was stopped for its memory runs on.
    pub(super) fn run_on(&mut self, now: Instant) {
        self.effects.push(Effect::Execute(true));
        self.order(Order::Thaw);
        // Time in which nothing could run is no idleness, and no sickness.
        if self.idle_since.is_some() {
            self.idle_since = Some(now);
        }
        if let Some(health) = &mut self.health {
            health.resumed(now);
        }
    }

    /// The processes were started: the guest goes on from a memory, if it shall.
    pub(super) fn begin_resuming(&mut self) {
        self.resuming = self.terms.resume.take().map(|snapshot| Resuming { snapshot, read: false });
        if self.resuming.is_some() {
            self.order(Order::Knock);
        }
    }

    /// The agent has greeted from the memory.
    pub(super) fn go_on_from_memory(&mut self) {
        if let Some(resuming) = self.resuming.take() {
            self.effects.push(Effect::Resumed);
            self.log(false, format!("it goes on from the memory of {}", resuming.snapshot));
        }
    }

    /// The end of the VMM is better explained by what is still to be heard of the memory.
    pub(super) fn waits_for_memory(&self) -> bool {
        self.resuming.as_ref().is_some_and(|resuming| !resuming.read)
    }

    /// The memory was decrypted to its end, or could not be.
    pub(super) fn memory_read(&mut self, result: Result<(), String>, now: Instant) {
        match result {
            Ok(()) => {
                if let Some(resuming) = &mut self.resuming {
                    resuming.read = true;
                    self.judge(now);
                }
            }
            Err(reason) => {
                // Even if it runs already: the last of its memory was not what was kept.
                self.hopeless = true;
                let reason = self.not_resumed(&reason);
                self.fail(reason, now);
            }
        }
    }

    pub(super) fn not_resumed(&self, reason: &str) -> String {
        let of =
            self.resuming.as_ref().map_or(String::new(), |one| format!(" of {}", one.snapshot));
        format!(
            "could not go on from the memory{of}: {reason}\n\
             its volumes are as they were then; the next start boots it"
        )
    }
}
