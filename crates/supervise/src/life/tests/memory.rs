//! Snapshots with memory, and going on from one.

use super::snapshots::words;
use super::*;

fn with_volume() -> Terms {
    let mut terms = terms();
    terms.guest.volumes = vec![volume()];
    terms
}

impl Stage {
    fn keep(&mut self, id: RequestId) -> Vec<Effect> {
        let wanted = Snapshot { name: "x".into(), memory: true };
        self.tell(Event::Request(id, Request::Snapshot(wanted)))
    }

    fn did(&mut self, snapshot: u32) -> Vec<Effect> {
        self.tell(Event::MachineDid { snapshot, result: Ok(()) })
    }

    fn encrypted(&mut self, snapshot: u32, result: Result<(), String>) -> Vec<Effect> {
        self.tell(Event::MemoryEncrypted { snapshot, result })
    }

    /// A memory that is being written for request 1.
    fn writing(terms: Terms) -> Self {
        let mut stage = Self::running(terms);
        assert_eq!(words(&stage.keep(1)), ["prepare"]);
        let effects = stage.did(1);
        let freeze = |effect: &Effect| {
            matches!(effect, Effect::Order(Order::Freeze { memory: true, .. }, None))
        };
        assert!(effects.iter().any(freeze), "{effects:?}");
        let frozen = Event::Report(Report::Frozen { id: 1, failure: None });
        assert_eq!(words(&stage.tell(frozen)), ["write"]);
        assert!(stage.did(1).is_empty());
        stage
    }

    fn resuming() -> Self {
        let mut stage = Self::new(Terms { resume: Some("x".into()), ..with_volume() });
        assert!(words(&stage.tell(Event::Launched)).contains(&"knock"));
        stage
    }
}

fn again() -> Event {
    Event::Report(Report::Hello {
        version: "1".into(),
        features: vec![],
        kernel: "6".into(),
        booted: true,
    })
}

#[test]
fn volumes_go_over_when_the_memory_is_written_and_encrypted_and_the_guest_goes_on_last() {
    for written_first in [true, false] {
        let mut stage = Stage::writing(with_volume());
        let mut events =
            [Event::MemoryWritten(true), Event::MemoryEncrypted { snapshot: 1, result: Ok(()) }];
        if !written_first {
            events.reverse();
        }
        let [first, second] = events;
        assert!(stage.tell(first).is_empty(), "half of it");
        assert_eq!(words(&stage.tell(second)), ["switch"]);
        assert_eq!(words(&stage.did(1)), ["keep"]);
        let effects = stage.tell(Event::SnapshotKept { snapshot: 1, result: Ok(()) });
        assert_eq!(words(&effects), ["run", "thaw", "done"]);
        assert_eq!(words(&stage.keep(2)), ["prepare"]);
    }
}

#[test]
fn a_compartment_without_volumes_has_a_memory_too() {
    let mut stage = Stage::writing(terms());
    stage.tell(Event::MemoryWritten(true));
    assert_eq!(words(&stage.encrypted(1, Ok(()))), ["keep"]);
}

#[test]
fn a_memory_that_cannot_be_kept_is_dropped_and_the_guest_goes_on() {
    let failures = [
        Event::MemoryEncrypted { snapshot: 1, result: Err("no space".into()) },
        Event::MachineDid { snapshot: 1, result: Err("no".into()) },
    ];
    for event in failures {
        let mut stage = Stage::writing(with_volume());
        let effects = stage.tell(event);
        assert_eq!(words(&effects), ["drop", "run", "thaw", "failed"]);
        assert_eq!(stage.life.state(), "running");
        // What QEMU says of it later lets the guest go on, if it could not before.
        assert_eq!(words(&stage.tell(Event::MemoryWritten(false))), ["run"]);
        assert_eq!(words(&stage.keep(2)), ["prepare"]);
    }
    // Who encrypts it knows why the VMM could not write.
    let mut stage = Stage::writing(with_volume());
    assert!(stage.tell(Event::MemoryWritten(false)).is_empty());
    let effects = stage.encrypted(1, Err("no space".into()));
    assert_eq!(words(&effects), ["drop", "run", "thaw", "failed"]);
    assert!(format!("{effects:?}").contains("no space"), "{effects:?}");
    let mut stage = Stage::writing(with_volume());
    stage.tell(Event::MemoryWritten(false));
    assert_eq!(words(&stage.encrypted(1, Ok(()))), ["drop", "run", "thaw", "failed"]);
    let mut stage = Stage::writing(with_volume());
    stage.tell(Event::MemoryWritten(false));
    assert_eq!(words(&stage.wait(11)), ["drop", "run", "thaw", "failed"]);
    let mut stage = Stage::writing(with_volume());
    assert!(stage.wait(600).is_empty());
    assert_eq!(words(&stage.wait(60)), ["drop", "run", "thaw", "failed"]);
}

#[test]
fn a_machine_that_does_not_say_whether_it_went_over_stays_stopped() {
    let mut stage = Stage::writing(with_volume());
    stage.tell(Event::MemoryWritten(true));
    stage.encrypted(1, Ok(()));
    assert_eq!(words(&stage.wait(15)), ["failed"]);
    assert_eq!(words(&stage.did(1)), ["keep"]);
    let effects = stage.tell(Event::SnapshotKept { snapshot: 1, result: Ok(()) });
    assert_eq!(words(&effects), ["run", "thaw"]);
}

#[test]
fn a_stop_lets_a_guest_that_stands_still_run_so_that_it_can_shut_down() {
    let mut stage = Stage::writing(with_volume());
    let effects = stage.tell(Event::Request(9, Request::Stop(Stop { force: false })));
    assert_eq!(words(&effects), ["shutdown", "drop", "run", "thaw", "failed"]);
    assert_eq!(words(&stage.tell(Event::MemoryWritten(false))), ["run"]);

    // The link holds back what it is told behind the freeze.
    let mut stage = Stage::running(with_volume());
    stage.keep(1);
    stage.did(1);
    let effects = stage.tell(Event::Request(9, Request::Stop(Stop { force: false })));
    assert_eq!(words(&effects), ["shutdown", "drop", "thaw", "failed"]);
}

#[test]
fn memory_is_refused_where_the_plan_says_so() {
    let memory_refused = Some("folders are shared with it");
    for volumes in [vec![], vec![volume()]] {
        let mut terms = Terms { memory_refused, ..terms() };
        terms.guest.volumes = volumes.clone();
        let mut stage = Stage::running(terms);
        let effects = stage.keep(1);
        let Some(Failure::Failed { reason, hint }) = failure(&effects, 1) else {
            panic!("{effects:?}")
        };
        assert_eq!(reason, "folders are shared with it");
        assert_eq!(hint.is_some(), !volumes.is_empty());
    }
}

#[test]
fn a_guest_goes_on_when_its_agent_greets_and_is_told_the_time_first() {
    let mut stage = Stage::resuming();
    stage.run(1);
    assert!(stage.tell(Event::MemoryRead(Ok(()))).is_empty());
    let effects = stage.tell(Event::MemoryWritten(true));
    assert!(matches!(effects[..], [Effect::GoOn]), "{effects:?}");
    let effects = stage.tell(again());
    assert_eq!(words(&effects)[0], "resumed", "{effects:?}");
    assert!(opened(&effects).is_some());
    assert_eq!(stage.life.state(), "running");
    // Once: an agent that greets again goes on in this life.
    assert!(!words(&stage.tell(again())).contains(&"resumed"));
}

#[test]
fn a_memory_that_cannot_be_read_ends_the_start_for_good() {
    let restart = Restart::Always;
    // The VMM ends because of it, and may be heard of first.
    for vmm_first in [false, true] {
        let mut stage = Stage::new(Terms { resume: Some("x".into()), restart, ..with_volume() });
        stage.tell(Event::Launched);
        stage.tell(Event::Request(1, Request::Start));
        let mut effects = Vec::new();
        if vmm_first {
            effects.extend(stage.tell(Event::Exited(Role::Vmm, "ended with code 1".into())));
            effects.extend(stage.tell(Event::Report(Report::PortClosed)));
        }
        effects.extend(stage.tell(Event::MemoryRead(Err("age says no".into()))));
        let Some(Failure::Ended { reason, .. }) = failure(&effects, 1) else {
            panic!("{effects:?}")
        };
        assert!(
            reason.starts_with("could not go on from the memory of x: age says no"),
            "{reason}"
        );
        stage.everything_ends();
        assert!(stage.life.outcome().is_some_and(Outcome::is_failure), "it is not started again");
    }
}

#[test]
fn a_machine_that_does_not_take_the_memory_is_quoted() {
    let mut stage = Stage::resuming();
    stage.tell(Event::Request(1, Request::Start));
    stage.tell(Event::MemoryRead(Ok(())));
    stage.tell(Event::Exited(Role::Vmm, "ended with code 1: load of migration failed".into()));
    let effects = stage.tell(Event::Report(Report::PortClosed));
    let Some(Failure::Ended { reason, .. }) = failure(&effects, 1) else { panic!("{effects:?}") };
    assert!(reason.contains("memory of x") && reason.contains("load of migration"), "{reason}");
}

#[test]
fn who_asks_too_late_hears_why_it_did_not_go_on() {
    let mut stage = Stage::resuming();
    stage.tell(Event::MemoryRead(Err("no identity".into())));
    let effects = stage.tell(Event::Request(7, Request::Start));
    let told = effects.iter().any(|effect| {
        matches!(effect, Effect::Reply(7, Err(Failure::Ended { reason, .. }))
            if reason.contains("no identity"))
    });
    assert!(told, "{effects:?}");
}
