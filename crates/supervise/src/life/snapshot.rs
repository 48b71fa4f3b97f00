//! The part of a life that takes a snapshot of the running compartment's volumes, and of its memory
//! ([`super::memory`]) where that is asked for.
//!
//! ```text
//!             layers are there        guest holds still        QEMU writes to them
//! Preparing ──────────────────▶ Freezing ──────────────▶ Switching ──────────────▶ kept
//!     │                            │  └▶ Writing ──────────▲ │    │ no answer in time
//!     │                            │       │ all of the     │    ▼
//!     │                            │       │ memory is      │  Late: kept or dropped by its answer,
//!     │ failed, too late           │       │ on the disk    │        else by whoever has the volumes
//!     └────────────────────────────┴───────┴──▶ dropped ◀───┘        next
//! ```
//!
//! Until QEMU was told to go over nothing has happened, and dropping is safe. From then on only its
//! answer tells; without one the volumes stay prepared, which loses nothing (`casemate-volume`).

use std::time::{Duration, Instant};

use casemate_link::orders::Order;

use super::memory::NOT_WRITTEN;
use super::{Effect, Life, RequestId, State};
use crate::control::{Failure, Snapshot};

/// For making the layers known to QEMU, which takes milliseconds.
const PREPARE_DEADLINE: Duration = Duration::from_secs(10);

/// For the guest to write out what it holds in memory. Its writers wait meanwhile.
const FREEZE_DEADLINE: Duration = Duration::from_secs(15);

/// For QEMU to finish what it writes and go over.
const SWITCH_DEADLINE: Duration = Duration::from_secs(15);

/// For writing the memory of the guest, which stands still meanwhile: 64 GiB at 100 MiB/s.
const WRITE_DEADLINE: Duration = Duration::from_secs(660);

/// What the guest is asked to hold still for, from when it hears of it.
const HOLD: Duration = Duration::from_secs(30);

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Preparing,
    Freezing,
    /// The guest is stopped, and its memory is written.
    Writing,
    Switching,
    /// Whoever wanted it was told that it failed.
    Late,
}

/// A snapshot that is being taken.
#[derive(Debug)]
pub(super) struct Shot {
    pub(super) number: u32,
    requester: Option<RequestId>,
    name: String,
    /// The memory is kept too.
    memory: bool,
    /// QEMU has written all of it, or (false) could not.
    pub(super) written: Option<bool>,
    /// All that was written is encrypted and on the disk.
    pub(super) encrypted: bool,
    pub(super) stage: Stage,
    pub(super) deadline: Instant,
    /// The guest was asked to hold still then.
    asked: Instant,
    /// The agent that holds still was not replaced since.
    held: bool,
}

impl Shot {
    /// When something has to be done about it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (self.stage != Stage::Late).then_some(self.deadline)
    }

    /// Its client has gone. It is finished all the same.
    pub(super) fn forget(&mut self, id: RequestId) {
        if self.requester == Some(id) {
            self.requester = None;
        }
    }
}

impl Life {
    pub(super) fn begin_snapshot(&mut self, id: RequestId, wanted: Snapshot, now: Instant) {
        let Snapshot { name, memory } = wanted;
        match &self.state {
            _ if self.shot.is_some() => {
                self.refuse(id, Failure::WrongState { state: "taking a snapshot".into() });
            }
            State::Running if memory && self.terms.memory_refused.is_some() => {
                let reason = self.terms.memory_refused.unwrap_or_default().into();
                let volumes = !self.terms.guest.volumes.is_empty();
                let hint = volumes.then(|| "without --memory its volumes are kept".into());
                self.refuse(id, Failure::Failed { reason, hint });
            }
            State::Running if self.terms.guest.volumes.is_empty() && !memory => {
                let reason = "it has no volumes".into();
                self.refuse(id, Failure::Failed { reason, hint: None });
            }
            State::Running => {
                self.shots += 1;
                let number = self.shots;
                self.shot = Some(Shot {
                    number,
                    requester: Some(id),
                    name: name.clone(),
                    memory,
                    written: None,
                    encrypted: false,
                    stage: Stage::Preparing,
                    deadline: now + PREPARE_DEADLINE,
                    asked: now,
                    held: true,
                });
                self.effects.push(Effect::PrepareSnapshot { number, name, memory });
            }
            State::Stopping { .. } | State::Over(_) => self.refuse_late(id),
            State::Preparing | State::Booting { .. } | State::Paused | State::Waiting { .. } => {
                let state = self.state().to_owned();
                self.refuse(id, Failure::WrongState { state });
            }
        }
    }

    /// QEMU has done what it was asked for, or has not; or the layers could not be made.
    pub(super) fn machine_did(&mut self, number: u32, result: Result<(), String>, now: Instant) {
        let Some(shot) = self.shot.as_mut().filter(|shot| shot.number == number) else { return };
        match (shot.stage, result) {
            (Stage::Preparing, Ok(())) => {
                (shot.stage, shot.asked) = (Stage::Freezing, now);
                shot.deadline = now + FREEZE_DEADLINE;
                let milliseconds = HOLD.as_millis() as u32;
                let memory = shot.memory;
                self.order(Order::Freeze { id: number, milliseconds, memory });
            }
            // What it has begun is told of when it is over.
            (Stage::Writing, Ok(())) => {}
            // The guest stands still, and goes on when the snapshot is kept.
            (Stage::Switching | Stage::Late, Ok(())) if shot.memory => {
                self.effects.push(Effect::KeepSnapshot { number });
            }
            (Stage::Switching | Stage::Late, Ok(())) => {
                let still = now.duration_since(shot.asked).as_millis();
                // First of all the guest goes on.
                self.order(Order::Thaw);
                self.log(false, format!("the guest held its volumes still for {still} ms"));
                self.effects.push(Effect::KeepSnapshot { number });
            }
            // It has answered to what was never asked.
            (Stage::Freezing, Ok(())) => {}
            (_, Err(reason)) => self.fail_snapshot(&reason, None, now),
        }
    }

    /// The agent has answered.
    pub(super) fn frozen(&mut self, id: u32, failure: Option<String>, now: Instant) {
        let waits = |shot: &&mut Shot| shot.number == id && shot.stage == Stage::Freezing;
        let Some(shot) = self.shot.as_mut().filter(waits) else { return };
        match failure {
            None if shot.memory => {
                (shot.stage, shot.deadline) = (Stage::Writing, now + WRITE_DEADLINE);
                self.effects.push(Effect::WriteMemory { number: id });
            }
            None => self.begin_switch(now),
            Some(reason) => {
                let reason = format!("the guest could not hold its volumes still: {reason}");
                self.fail_snapshot(&reason, stop_hint(), now);
            }
        }
    }

    /// Lets QEMU go over to the new layers.
    pub(super) fn begin_switch(&mut self, now: Instant) {
        let Some(shot) = self.shot.as_mut() else { return };
        (shot.stage, shot.deadline) = (Stage::Switching, now + SWITCH_DEADLINE);
        self.effects.push(Effect::SwitchLayers { number: shot.number });
    }

    /// The agent has begun anew, so nothing of it is frozen any more.
    pub(super) fn agent_began_anew(&mut self, now: Instant) {
        match &mut self.shot {
            Some(shot) if shot.stage == Stage::Freezing => {
                self.fail_snapshot("the guest's agent began anew meanwhile", None, now);
            }
            Some(shot) => shot.held = false,
            None => {}
        }
    }

    /// It was written down that the snapshot is taken, or could not be.
    pub(super) fn kept(&mut self, number: u32, result: Result<(), String>, now: Instant) {
        let Some(shot) = self.shot.take_if(|shot| shot.number == number) else { return };
        // A stopped guest holds still for certain.
        let held = shot.held && (shot.memory || now.duration_since(shot.asked) < HOLD);
        if shot.memory {
            let still = now.duration_since(shot.asked).as_millis();
            self.log(false, format!("the guest stood still for {still} ms"));
            self.run_on(now);
        }
        let (name, late) = (&shot.name, shot.stage == Stage::Late);
        match &result {
            Ok(()) => self.log(late, format!("snapshot {name} is taken")),
            Err(reason) => self.log(true, format!("snapshot {name} is taken, but {reason}")),
        }
        let Some(id) = shot.requester else { return };
        match result {
            Ok(()) => {
                let mut progress = self.progress(None);
                progress.notes = vec![];
                if !held {
                    progress.notes.push(
                        "the guest may not have held still all the while; the snapshot is then as \
                         after a power cut"
                            .into(),
                    );
                }
                self.effects.push(Effect::Reply(id, Ok(progress)));
            }
            Err(reason) if shot.memory => {
                let reason = format!("the volumes are kept, but {reason}");
                self.refuse(id, Failure::Failed { reason, hint: None });
            }
            Err(reason) => {
                let reason = format!("the snapshot is there when the compartment stops: {reason}");
                self.refuse(id, Failure::Failed { reason, hint: stop_hint() });
            }
        }
    }

    pub(super) fn snapshot_deadline(&mut self, now: Instant) {
        let Some(shot) = self.shot.as_mut() else { return };
        if shot.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match shot.stage {
            Stage::Preparing => {
                let seconds = PREPARE_DEADLINE.as_secs();
                self.fail_snapshot(
                    &format!("the VMM did not answer within {seconds} s"),
                    None,
                    now,
                );
            }
            Stage::Writing if shot.written == Some(false) => {
                self.fail_snapshot(NOT_WRITTEN, None, now);
            }
            Stage::Writing => {
                let seconds = WRITE_DEADLINE.as_secs();
                let reason = format!("the memory was not written within {seconds} s");
                self.fail_snapshot(&reason, None, now);
            }
            Stage::Freezing => {
                let seconds = FREEZE_DEADLINE.as_secs();
                let reason = format!("the guest did not hold its volumes still within {seconds} s");
                self.fail_snapshot(&reason, stop_hint(), now);
            }
            Stage::Switching | Stage::Late => {
                shot.stage = Stage::Late;
                let requester = shot.requester.take();
                // One that was stopped goes on with the answer: what it wrote before would be in
                // layers of which nobody knows.
                if !shot.memory {
                    self.order(Order::Thaw);
                }
                let seconds = SWITCH_DEADLINE.as_secs();
                let reason = format!(
                    "the VMM did not answer within {seconds} s; whether there is a snapshot shows \
                     when the compartment has stopped"
                );
                self.log(true, reason.clone());
                if let Some(id) = requester {
                    self.refuse(id, Failure::Failed { reason, hint: stop_hint() });
                }
            }
        }
    }

    /// The compartment is about to end. What QEMU was told to do may still be done.
    pub(super) fn end_snapshot(&mut self, failure: &Failure, now: Instant) {
        let begun = |shot: &mut Shot| {
            matches!(shot.stage, Stage::Preparing | Stage::Freezing | Stage::Writing)
        };
        if let Some(shot) = self.shot.take_if(begun) {
            self.effects.push(Effect::DropSnapshot { number: shot.number });
            match shot.stage {
                // To shut down it has to run.
                Stage::Writing => self.run_on(now),
                // The link holds back what was said since, that it shall shut down too.
                Stage::Freezing if shot.memory => self.order(Order::Thaw),
                _ => {}
            }
            if let Some(id) = shot.requester {
                self.refuse(id, failure.clone());
            }
        }
    }

    /// The compartment has ended. A snapshot that was left prepared is settled with the volumes.
    pub(super) fn forget_snapshot(&mut self) {
        if let Some(id) = self.shot.take().and_then(|shot| shot.requester) {
            let reason = "it ended while a snapshot was taken; `casemate snapshot list` shows \
                          whether it is there"
                .into();
            self.refuse(id, Failure::Ended { reason, hint: None });
        }
    }

    /// Nothing has happened, and what was prepared for it goes.
    pub(super) fn fail_snapshot(&mut self, reason: &str, hint: Option<String>, now: Instant) {
        let Some(shot) = self.shot.take() else { return };
        let stopped = shot.memory && !matches!(shot.stage, Stage::Preparing | Stage::Freezing);
        if shot.stage != Stage::Preparing && !stopped {
            self.order(Order::Thaw);
        }
        self.effects.push(Effect::DropSnapshot { number: shot.number });
        if stopped {
            self.run_on(now);
        }
        self.log(true, format!("snapshot {} is not taken: {reason}", shot.name));
        if let Some(id) = shot.requester {
            self.refuse(id, Failure::Failed { reason: reason.into(), hint });
        }
    }
}

fn stop_hint() -> Option<String> {
    Some("stop the compartment, and take it then".into())
}
