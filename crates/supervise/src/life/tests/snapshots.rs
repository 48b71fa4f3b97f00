//! Snapshots of a running compartment: each stage, and what can come between.

use super::*;

fn with_volume() -> Terms {
    let mut terms = terms();
    terms.guest.volumes = vec![volume()];
    terms
}

impl Stage {
    fn snapshot(&mut self, id: RequestId) -> Vec<Effect> {
        self.tell(Event::Request(
            id,
            Request::Snapshot(Snapshot { name: "x".into(), memory: false }),
        ))
    }

    fn machine_did(&mut self, snapshot: u32, result: Result<(), String>) -> Vec<Effect> {
        self.tell(Event::MachineDid { snapshot, result })
    }

    fn frozen(&mut self, id: u32, failure: Option<&str>) -> Vec<Effect> {
        let failure = failure.map(str::to_owned);
        self.tell(Event::Report(Report::Frozen { id, failure }))
    }

    fn kept(&mut self, snapshot: u32, result: Result<(), String>) -> Vec<Effect> {
        self.tell(Event::SnapshotKept { snapshot, result })
    }
}

pub(super) fn words(effects: &[Effect]) -> Vec<&'static str> {
    let word = |effect: &Effect| match effect {
        Effect::PrepareSnapshot { .. } => "prepare",
        Effect::Order(Order::Freeze { .. }, _) => "freeze",
        Effect::SwitchLayers { .. } => "switch",
        Effect::WriteMemory { .. } => "write",
        Effect::Execute(true) => "run",
        Effect::Resumed => "resumed",
        Effect::Order(Order::Knock, _) => "knock",
        Effect::Order(Order::Thaw, _) => "thaw",
        Effect::KeepSnapshot { .. } => "keep",
        Effect::DropSnapshot { .. } => "drop",
        Effect::Order(Order::Shutdown, _) => "shutdown",
        Effect::Kill => "kill",
        Effect::Reply(_, Ok(_)) => "done",
        Effect::Reply(_, Err(_)) => "failed",
        Effect::Log(..) => "log",
        _ => "other",
    };
    effects.iter().map(word).filter(|word| *word != "log").collect()
}

/// A snapshot asked for by request 1 and numbered 1, whose guest holds still.
fn switching() -> Stage {
    let mut stage = Stage::running(with_volume());
    assert_eq!(words(&stage.snapshot(1)), ["prepare"]);
    assert_eq!(words(&stage.machine_did(1, Ok(()))), ["freeze"]);
    assert_eq!(words(&stage.frozen(1, None)), ["switch"]);
    stage
}

#[test]
fn a_snapshot_is_prepared_then_the_guest_holds_still_then_the_machine_goes_over() {
    let mut stage = switching();
    assert_eq!(words(&stage.machine_did(1, Ok(()))), ["thaw", "keep"]);
    let effects = stage.kept(1, Ok(()));
    assert!(replied(&effects, 1), "{effects:?}");
    assert_eq!(stage.life.deadline(), None);
    assert_eq!(words(&stage.snapshot(2)), ["prepare"]);
}

#[test]
fn a_second_snapshot_and_a_pause_are_refused_while_one_is_taken() {
    let mut stage = switching();
    let busy = Failure::WrongState { state: "taking a snapshot".into() };
    assert_eq!(failure(&stage.snapshot(2), 2), Some(&busy));
    assert_eq!(failure(&stage.tell(Event::Request(3, Request::Pause)), 3), Some(&busy));
    stage.machine_did(1, Ok(()));
    assert!(replied(&stage.kept(1, Ok(())), 1));
}

#[test]
fn only_a_running_compartment_with_volumes_is_asked() {
    let mut stage = Stage::running(terms());
    assert!(matches!(failure(&stage.snapshot(1), 1), Some(Failure::Failed { .. })));
    let mut stage = Stage::running(with_volume());
    stage.tell(Event::Request(1, Request::Pause));
    let paused = Failure::WrongState { state: "paused".into() };
    assert_eq!(failure(&stage.snapshot(2), 2), Some(&paused));
    stage.tell(Event::Request(3, Request::Stop(Stop { force: true })));
    assert_eq!(failure(&stage.snapshot(4), 4), Some(&Failure::Stopping));
}

#[test]
fn a_guest_that_does_not_hold_still_in_time_costs_the_snapshot_and_nothing_else() {
    let mut stage = Stage::running(with_volume());
    stage.snapshot(1);
    stage.machine_did(1, Ok(()));
    assert!(stage.wait(14).is_empty());
    let effects = stage.wait(1);
    assert_eq!(words(&effects), ["thaw", "drop", "failed"]);
    let Some(Failure::Failed { reason, hint }) = failure(&effects, 1) else {
        panic!("{effects:?}")
    };
    assert_eq!(reason, "the guest did not hold its volumes still within 15 s");
    assert!(hint.is_some());
    // Its answer comes too late, and is none to the next freeze.
    assert_eq!(words(&stage.frozen(1, None)), [""; 0]);
    stage.snapshot(2);
    stage.machine_did(2, Ok(()));
    assert_eq!(words(&stage.frozen(1, None)), [""; 0]);
    assert_eq!(words(&stage.frozen(2, None)), ["switch"]);
    assert_eq!(stage.life.state(), "running");
}

#[test]
fn a_guest_that_cannot_hold_still_is_quoted() {
    let mut stage = Stage::running(with_volume());
    stage.snapshot(1);
    stage.machine_did(1, Ok(()));
    let effects = stage.frozen(1, Some("no"));
    assert_eq!(words(&effects), ["thaw", "drop", "failed"]);
    let Some(Failure::Failed { reason, .. }) = failure(&effects, 1) else { panic!("{effects:?}") };
    assert!(reason.ends_with("still: no"), "{reason}");
}

#[test]
fn an_answer_nobody_asked_for_means_nothing() {
    let mut stage = Stage::running(with_volume());
    assert!(stage.frozen(0, None).is_empty() && stage.frozen(1, Some("no")).is_empty());
    stage.snapshot(1);
    // Before the layers are there.
    assert!(stage.frozen(1, None).is_empty());
    assert_eq!(words(&stage.machine_did(1, Ok(()))), ["freeze"]);
    assert_eq!(words(&stage.frozen(1, None)), ["switch"]);
    assert!(stage.frozen(1, None).is_empty(), "said twice");
}

#[test]
fn layers_that_cannot_be_made_leave_nothing() {
    let mut stage = Stage::running(with_volume());
    stage.snapshot(1);
    assert_eq!(words(&stage.machine_did(1, Err("no space".into()))), ["drop", "failed"]);
    // A VMM that does not answer.
    stage.snapshot(2);
    assert_eq!(words(&stage.wait(10)), ["drop", "failed"]);
    assert!(stage.machine_did(2, Ok(())).is_empty());
}

#[test]
fn a_machine_that_refuses_to_go_over_leaves_nothing() {
    let mut stage = switching();
    assert_eq!(words(&stage.machine_did(1, Err("no".into()))), ["thaw", "drop", "failed"]);
}

#[test]
fn what_the_machine_does_too_late_still_counts() {
    let mut stage = switching();
    assert_eq!(words(&stage.wait(15)), ["thaw", "failed"]);
    // Whether it went over is not known, so nothing may be dropped and no other taken.
    assert!(matches!(failure(&stage.snapshot(2), 2), Some(Failure::WrongState { .. })));
    assert_eq!(stage.life.deadline(), None);
    assert_eq!(words(&stage.machine_did(1, Ok(()))), ["thaw", "keep"]);
    assert!(stage.kept(1, Ok(())).iter().all(|effect| matches!(effect, Effect::Log(true, _))));
    assert_eq!(words(&stage.snapshot(3)), ["prepare"]);
}

#[test]
fn a_guest_that_had_time_to_thaw_is_told_of() {
    for (wait, agent_again, noted) in [(0, false, false), (14, false, false), (0, true, true)] {
        let mut stage = switching();
        stage.wait(wait);
        if agent_again {
            stage.tell(Event::Report(hello()));
        }
        stage.machine_did(1, Ok(()));
        let effects = stage.kept(1, Ok(()));
        let Some(Effect::Reply(1, Ok(progress))) = effects.last() else { panic!("{effects:?}") };
        assert_eq!(progress.notes.len(), usize::from(noted), "{progress:?}");
    }
}

#[test]
fn an_agent_that_begins_anew_while_it_was_to_freeze_ends_the_snapshot() {
    let mut stage = Stage::running(with_volume());
    stage.snapshot(1);
    stage.machine_did(1, Ok(()));
    assert_eq!(words(&stage.tell(Event::Report(hello()))), ["thaw", "drop", "failed"]);
}

#[test]
fn a_stop_drops_what_is_not_begun_and_lets_the_machine_finish_what_is() {
    let stop = |force| Event::Request(9, Request::Stop(Stop { force }));
    let mut stage = Stage::running(with_volume());
    stage.snapshot(1);
    stage.machine_did(1, Ok(()));
    let effects = stage.tell(stop(false));
    assert_eq!(words(&effects), ["shutdown", "drop", "failed"]);

    let mut stage = switching();
    assert_eq!(words(&stage.tell(stop(false))), ["shutdown"]);
    assert_eq!(words(&stage.machine_did(1, Ok(()))), ["thaw", "keep"]);
    assert!(replied(&stage.kept(1, Ok(())), 1));

    let mut stage = switching();
    assert_eq!(words(&stage.tell(stop(true))), ["kill"]);
    let effects = stage.everything_ends();
    assert!(matches!(failure(&effects, 1), Some(Failure::Ended { .. })), "{effects:?}");
    assert!(!words(&effects).contains(&"drop"), "it may have gone over");
}

#[test]
fn a_machine_that_dies_or_a_link_that_is_gone_ends_the_snapshot_with_the_life() {
    for event in [
        Event::Exited(Role::Link, "ended".into()),
        Event::Report(Report::Broken { reason: "x".into() }),
    ] {
        let mut stage = Stage::running(with_volume());
        stage.snapshot(1);
        stage.machine_did(1, Ok(()));
        let effects = stage.tell(event);
        assert!(matches!(failure(&effects, 1), Some(Failure::Ended { .. })), "{effects:?}");
        assert!(words(&effects).contains(&"drop"));
    }
    let mut stage = switching();
    let effects = stage.everything_ends();
    assert!(matches!(failure(&effects, 1), Some(Failure::Ended { .. })), "{effects:?}");
}

#[test]
fn idleness_waits_for_the_end_of_a_snapshot() {
    let idle_timeout = Some(Duration::from_secs(5));
    let mut stage = Stage::running(Terms { idle_timeout, ..with_volume() });
    stage.wait(4);
    stage.snapshot(1);
    assert!(stage.wait(3).is_empty());
    stage.machine_did(1, Ok(()));
    stage.frozen(1, None);
    stage.machine_did(1, Ok(()));
    assert!(replied(&stage.kept(1, Ok(())), 1));
    assert!(kills(&stage.wait(0)));
}

#[test]
fn a_client_that_has_gone_does_not_keep_its_snapshot_from_being_taken() {
    let mut stage = switching();
    stage.tell(Event::RequestGone(1));
    assert_eq!(words(&stage.machine_did(1, Ok(()))), ["thaw", "keep"]);
    assert_eq!(words(&stage.kept(1, Ok(()))), [""; 0]);
}

#[test]
fn what_cannot_be_written_down_is_said_with_what_to_do() {
    let mut stage = switching();
    stage.machine_did(1, Ok(()));
    let effects = stage.kept(1, Err("no space".into()));
    let Some(Failure::Failed { reason, hint }) = failure(&effects, 1) else {
        panic!("{effects:?}")
    };
    assert!(reason.contains("no space") && hint.is_some(), "{reason}");
}
