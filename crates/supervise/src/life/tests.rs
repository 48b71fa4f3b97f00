//! Sequences of events: by hand for what matters, at random for the rest.

use casemate_wire::limits::MAX_SESSIONS;
use proptest::prelude::*;

use super::*;
use crate::control::{HangUp, Request, Signal, Snapshot, Stop, View};

mod calls;
mod memory;
mod services;
mod snapshots;
mod windows;

fn terms() -> Terms {
    Terms {
        name: "test".into(),
        guest: Boot {
            hostname: "x".into(),
            machine_id: String::new(),
            clock: 0,
            seed: vec![],
            root: casemate_wire::RootDisk {
                serial: "root".into(),
                filesystem: "erofs".into(),
                overlay: true,
                verity: None,
            },
            overlay_size: 0,
            volumes: vec![],
            init: casemate_wire::Init::Agent,
            units: vec![],
            users: vec![],
            default_user: "user".into(),
            files: vec![],
            sysctls: vec![],
            timezone: None,
            environment: vec![],
            console_user: None,
            secrets: vec![],
            restrictions: Default::default(),
            shares: vec![],
            network: None,
            ports: vec![],
        },
        boot_deadline: Duration::from_secs(60),
        stop_deadline: Duration::from_secs(10),
        idle_timeout: None,
        fresh: false,
        without_kvm: None,
        restart: Restart::No,
        health_check: None,
        notes: vec![],
        resume: None,
        memory_refused: None,
    }
}

fn check() -> HealthCheck {
    HealthCheck {
        command: vec!["true".into()],
        user: None,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        retries: 2,
        start_period: Duration::from_secs(30),
    }
}

/// A life with a clock that only moves when told to.
struct Stage {
    life: Life,
    now: Instant,
}

impl Stage {
    fn new(terms: Terms) -> Self {
        Self { life: Life::new(terms), now: Instant::now() }
    }

    fn running(terms: Terms) -> Self {
        let mut stage = Self::new(terms);
        stage.tell(Event::Launched);
        stage.tell(Event::Report(hello()));
        stage.tell(Event::Report(Report::Ready));
        assert_eq!(stage.life.state(), "running");
        stage
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        self.life.handle(event, self.now)
    }

    fn wait(&mut self, seconds: u64) -> Vec<Effect> {
        self.now += Duration::from_secs(seconds);
        if self.life.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.tell(Event::Deadline)
        } else {
            vec![]
        }
    }

    fn run(&mut self, id: RequestId) -> Vec<Effect> {
        let run = Run { argv: vec!["true".into()], ..Run::default() };
        self.tell(Event::Request(id, Request::Run(Box::new(run))))
    }

    fn everything_ends(&mut self) -> Vec<Effect> {
        let mut effects = self.tell(Event::Exited(Role::Vmm, "ended with code 0".into()));
        effects.extend(self.tell(Event::Report(Report::PortClosed)));
        effects.extend(self.tell(Event::Exited(Role::Link, "ended with code 0".into())));
        effects
    }
}

fn volume() -> casemate_wire::VolumeMount {
    casemate_wire::VolumeMount {
        name: "data".into(),
        serial: "volume0".into(),
        mount_point: "/data".into(),
        filesystem: "ext4".into(),
        blank: false,
        sector_size: 4096,
        key: casemate_wire::Key::new(&[]),
    }
}

fn hello() -> Report {
    Report::Hello { version: "1".into(), features: vec![], kernel: "6".into(), booted: false }
}

fn failure(effects: &[Effect], wanted: RequestId) -> Option<&Failure> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply(id, Err(failure)) if *id == wanted => Some(failure),
        _ => None,
    })
}

fn replied(effects: &[Effect], wanted: RequestId) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Reply(id, Ok(_)) if *id == wanted))
}

fn kills(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Kill))
}

fn opened(effects: &[Effect]) -> Option<u32> {
    effects.iter().find_map(|effect| match effect {
        Effect::Order(Order::Open { stream, .. }, Some(_)) => Some(*stream),
        _ => None,
    })
}

#[test]
fn a_run_asked_for_before_the_guest_is_ready_is_opened_when_it_is() {
    let mut stage = Stage::new(terms());
    assert_eq!(opened(&stage.run(1)), None);
    stage.tell(Event::Launched);
    let effects = stage.tell(Event::Report(hello()));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SendBoot(_))));
    let effects = stage.tell(Event::Report(Report::Ready));
    assert_eq!(opened(&effects), Some(1));
    let effects =
        stage.tell(Event::Report(Report::Ended { stream: 1, status: Some(ExitStatus::Code(0)) }));
    assert!(replied(&effects, 1));
}

#[test]
fn a_guest_that_stays_silent_is_killed_and_everybody_is_told() {
    let mut stage = Stage::new(terms());
    stage.tell(Event::Launched);
    stage.run(1);
    assert!(stage.wait(59).is_empty());
    let effects = stage.wait(1);
    assert!(kills(&effects));
    let Some(Failure::Ended { reason, .. }) = failure(&effects, 1) else { panic!("{effects:?}") };
    assert_eq!(reason, "the guest did not say Hello within 60 s");
    stage.everything_ends();
    assert!(matches!(stage.life.outcome(), Some(Outcome::Failed { .. })));
}

#[test]
fn a_guest_that_never_gets_ready_after_its_hello_is_killed_too() {
    let mut stage = Stage::new(terms());
    stage.tell(Event::Launched);
    stage.tell(Event::Report(hello()));
    assert!(kills(&stage.wait(60)));
}

#[test]
fn silence_under_kvm_is_answered_with_one_start_without_it() {
    let mut stage = Stage::new(Terms { without_kvm: Some(Box::new(terms())), ..terms() });
    stage.tell(Event::Launched);
    stage.run(1);
    let effects = stage.wait(60);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::RelaunchWithoutKvm)));
    assert_eq!(failure(&effects, 1), None, "the request goes on waiting");
    stage.tell(Event::Launched);
    stage.tell(Event::Report(hello()));
    assert_eq!(opened(&stage.tell(Event::Report(Report::Ready))), Some(1));
    // Only once.
    let mut stage = Stage::new(Terms { without_kvm: Some(Box::new(terms())), ..terms() });
    stage.tell(Event::Launched);
    stage.wait(60);
    stage.tell(Event::Launched);
    assert!(kills(&stage.wait(60)));
}

#[test]
fn a_reset_under_kvm_before_any_word_is_answered_the_same_way() {
    let terms_without = Terms { boot_deadline: Duration::from_secs(999), ..terms() };
    let mut stage = Stage::new(Terms { without_kvm: Some(Box::new(terms_without)), ..terms() });
    stage.tell(Event::Launched);
    stage.tell(Event::GuestStopped { reset: true });
    let mut effects = stage.tell(Event::Exited(Role::Vmm, "ended with code 0".into()));
    effects.extend(stage.tell(Event::Report(Report::PortClosed)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::RelaunchWithoutKvm)));
    stage.tell(Event::Launched);
    assert!(stage.wait(998).is_empty(), "the terms are those without KVM");
}

#[test]
fn a_fresh_disposable_nobody_waits_for_any_more_is_ended_at_boot() {
    let mut stage = Stage::new(Terms { fresh: true, ..terms() });
    stage.tell(Event::Launched);
    stage.run(1);
    assert!(kills(&stage.tell(Event::RequestGone(1))));
}

#[test]
fn a_fresh_disposable_takes_one_command_only() {
    let mut stage = Stage::new(Terms { fresh: true, ..terms() });
    stage.tell(Event::Launched);
    stage.run(1);
    assert_eq!(failure(&stage.run(2), 2), Some(&Failure::Stopping));
    stage.tell(Event::Report(hello()));
    stage.tell(Event::Report(Report::Ready));
    assert_eq!(failure(&stage.run(3), 3), Some(&Failure::Stopping));
}

#[test]
fn a_pause_is_no_idleness_and_a_paused_guest_is_asked_before_it_is_stopped() {
    let idle_timeout = Some(Duration::from_secs(30));
    let mut stage = Stage::running(Terms { idle_timeout, ..terms() });
    stage.tell(Event::Request(1, Request::Pause));
    assert!(stage.wait(1000).is_empty());
    stage.tell(Event::Request(2, Request::Resume));
    assert!(stage.wait(29).is_empty());
    stage.tell(Event::Request(3, Request::Pause));
    let effects = stage.tell(Event::Request(4, Request::Stop(Stop { force: false })));
    let [Effect::Execute(true), Effect::Order(Order::Shutdown, None), ..] = &effects[..] else {
        panic!("{effects:?}")
    };
}

#[test]
fn a_guest_that_talks_without_end_is_cut_off_in_the_log() {
    let mut stage = Stage::running(terms());
    let lines: usize = (0..5000)
        .map(|_| stage.tell(Event::Report(Report::GuestLog { text: "x".into() })).len())
        .sum();
    assert_eq!(lines, GUEST_LINES as usize);
}

#[test]
fn stopping_asks_the_guest_first_and_kills_it_at_the_deadline() {
    let mut stage = Stage::running(terms());
    let effects = stage.tell(Event::Request(7, Request::Stop(Stop { force: false })));
    assert!(effects.iter().any(|e| matches!(e, Effect::Order(Order::Shutdown, None))));
    assert!(!kills(&effects));
    assert!(kills(&stage.wait(10)));
    let effects = stage.everything_ends();
    assert!(replied(&effects, 7));
    assert!(matches!(stage.life.outcome(), Some(Outcome::Stopped { .. })));
}

#[test]
fn the_end_of_the_vmm_while_stopping_takes_the_link_along() {
    let mut stage = Stage::running(terms());
    stage.tell(Event::Request(7, Request::Stop(Stop { force: false })));
    assert!(kills(&stage.tell(Event::Exited(Role::Vmm, "ended with code 0".into()))));
    let effects = stage.tell(Event::Exited(Role::Link, "was ended by signal 9".into()));
    assert!(replied(&effects, 7));
}

#[test]
fn a_killed_vmm_fails_its_sessions_with_the_reason() {
    let mut stage = Stage::running(terms());
    stage.run(1);
    let mut effects = stage.tell(Event::Exited(Role::Vmm, "was ended by signal 9".into()));
    assert_eq!(failure(&effects, 1), None, "the link may still have something to say");
    effects = stage.tell(Event::Report(Report::PortClosed));
    let Some(Failure::Ended { reason, .. }) = failure(&effects, 1) else { panic!("{effects:?}") };
    assert_eq!(reason, "the virtual machine monitor was ended by signal 9");
}

#[test]
fn a_guest_whose_network_is_gone_ends_in_order() {
    let mut terms = terms();
    terms.guest.network = Some(casemate_wire::Interface {
        mac: [2, 0, 0, 0, 0, 1],
        address: [172, 16, 200, 7].into(),
        gateway: [172, 16, 200, 6].into(),
        v6: None,
        name_servers: vec![],
        mtu: 1500,
    });
    let mut stage = Stage::running(terms.clone());
    stage.run(1);
    let effects = stage.tell(Event::Exited(Role::Network, "ended with code 1".into()));
    let Some(Failure::Ended { reason, .. }) = failure(&effects, 1) else { panic!("{effects:?}") };
    assert_eq!(reason, "the keeper of the network ended with code 1");
    assert!(!kills(&effects), "volumes are written first");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Order(Order::Shutdown, None))));

    // While the guest shuts down anyway, it needs none.
    let mut stage = Stage::running(terms);
    stage.tell(Event::Terminate);
    let effects = stage.tell(Event::Exited(Role::Network, "ended with code 1".into()));
    assert!(!kills(&effects), "{effects:?}");
}

/// Two shares, of which the second is called `kept`.
fn with_shares() -> Terms {
    let mut terms = terms();
    terms.guest.shares = ["share0", "kept"]
        .map(|tag| casemate_wire::ShareMount {
            tag: tag.into(),
            mount_point: format!("/mnt/{tag}"),
            read_only: false,
        })
        .into();
    terms
}

fn share_ends(stage: &mut Stage, index: u16, how: &str) -> Vec<Effect> {
    stage.tell(Event::Exited(Role::Share(index), how.into()))
}

#[test]
fn a_share_that_is_gone_is_named_and_the_guest_may_end_in_order() {
    let mut stage = Stage::running(with_shares());
    stage.run(1);
    assert_eq!(failure(&share_ends(&mut stage, 1, "was ended by signal 9"), 1), None);
    let effects = stage.wait(2);
    let Some(Failure::Ended { reason, .. }) = failure(&effects, 1) else { panic!("{effects:?}") };
    assert_eq!(reason, "the file server of the share `kept` was ended by signal 9");
    assert!(!kills(&effects), "volumes are written first");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Order(Order::Shutdown, None))));
    // The guest may wait for the share, but not for long.
    let patience = terms().stop_deadline.as_secs();
    assert!(kills(&stage.wait(patience)));
    stage.everything_ends();
    share_ends(&mut stage, 0, "was ended by signal 9");
    let Some(Outcome::Failed { reason }) = stage.life.outcome() else { panic!() };
    assert!(reason.contains("`kept`"), "{reason}");
}

#[test]
fn the_end_of_the_vmm_is_no_fault_of_its_shares() {
    for servers_first in [false, true] {
        let mut stage = Stage::running(with_shares());
        if servers_first {
            share_ends(&mut stage, 0, "ended with code 0");
        }
        stage.tell(Event::Exited(Role::Vmm, "was ended by signal 9".into()));
        share_ends(&mut stage, 1, "ended with code 0");
        if !servers_first {
            share_ends(&mut stage, 0, "ended with code 0");
        }
        stage.tell(Event::Report(Report::PortClosed));
        stage.tell(Event::Exited(Role::Link, "was ended by signal 9".into()));
        let Some(Outcome::Failed { reason }) = stage.life.outcome() else { panic!() };
        assert_eq!(reason, "the virtual machine monitor was ended by signal 9");
    }
}

#[test]
fn a_vmm_that_cannot_begin_without_its_share_is_no_riddle() {
    // Under KVM, which is not to blame either.
    let mut terms = with_shares();
    terms.without_kvm = Some(Box::new(with_shares()));
    let mut stage = Stage::new(terms);
    stage.tell(Event::Launched);
    share_ends(&mut stage, 0, "could not be confined: could not mount /x");
    stage.tell(Event::Exited(Role::Vmm, "ended with code 1".into()));
    stage.tell(Event::Report(Report::PortClosed));
    stage.tell(Event::Exited(Role::Link, "was ended by signal 9".into()));
    share_ends(&mut stage, 1, "was ended by signal 9");
    let Some(Outcome::Failed { reason }) = stage.life.outcome() else { panic!() };
    assert!(reason.starts_with("the file server of the share `share0` could not be"), "{reason}");
}

#[test]
fn a_link_that_never_reports_the_end_of_the_port_is_not_waited_for_long() {
    let mut stage = Stage::running(terms());
    stage.run(1);
    stage.tell(Event::Exited(Role::Vmm, "was ended by signal 9".into()));
    assert!(failure(&stage.wait(2), 1).is_some());
}

#[test]
fn a_guest_that_powers_off_in_order_is_stopped_not_failed() {
    let mut stage = Stage::running(terms());
    stage.tell(Event::GuestStopped { reset: true });
    stage.tell(Event::Exited(Role::Vmm, "ended with code 0".into()));
    // The agent's last words arrive after the end of the VMM.
    stage.tell(Event::Report(Report::ShuttingDown));
    stage.tell(Event::Report(Report::PortClosed));
    stage.tell(Event::Exited(Role::Link, "ended with code 0".into()));
    assert_eq!(
        stage.life.outcome(),
        Some(&Outcome::Stopped { why: "the guest shut itself down".into() })
    );
}

#[test]
fn a_guest_that_resets_without_a_word_has_failed() {
    let mut stage = Stage::running(terms());
    stage.tell(Event::GuestStopped { reset: true });
    stage.everything_ends();
    assert!(
        matches!(stage.life.outcome(), Some(Outcome::Failed { reason }) if reason.contains("panic"))
    );
}

#[test]
fn an_idle_disposable_ends_and_a_busy_one_does_not() {
    let idle_timeout = Some(Duration::from_secs(30));
    let mut stage = Stage::running(Terms { idle_timeout, ..terms() });
    assert!(stage.wait(29).is_empty());
    stage.run(1);
    assert!(stage.wait(1000).is_empty());
    stage.tell(Event::Report(Report::Ended { stream: 1, status: None }));
    assert!(stage.wait(29).is_empty());
    assert!(kills(&stage.wait(1)));
}

#[test]
fn a_fresh_disposable_ends_with_its_session() {
    let mut stage = Stage::running(Terms { fresh: true, ..terms() });
    stage.run(1);
    let effects = stage.tell(Event::Report(Report::Ended { stream: 1, status: None }));
    assert!(kills(&effects));
    assert!(replied(&effects, 1), "{effects:?}");
}

#[test]
fn what_somebody_stops_at_boot_is_not_started_again_by_who_waits() {
    let mut stage = Stage::new(terms());
    stage.tell(Event::Launched);
    stage.run(1);
    let effects = stage.tell(Event::Request(2, Request::Stop(Stop { force: false })));
    let Some(Failure::Ended { reason, .. }) = failure(&effects, 1) else { panic!("{effects:?}") };
    assert_eq!(reason, "it was asked to stop");
}

#[test]
fn requests_made_while_it_stops_are_told_to_ask_again() {
    let mut stage = Stage::running(terms());
    stage.tell(Event::Terminate);
    assert_eq!(failure(&stage.run(3), 3), Some(&Failure::Stopping));
    let effects = stage.tell(Event::Request(4, Request::Start));
    assert_eq!(failure(&effects, 4), Some(&Failure::Stopping));
}

#[test]
fn the_number_of_sessions_is_bounded() {
    let mut stage = Stage::running(terms());
    for id in 0..MAX_SESSIONS as u64 {
        assert!(opened(&stage.run(id)).is_some());
    }
    let effects = stage.run(9999);
    assert_eq!(failure(&effects, 9999), Some(&Failure::TooManySessions));
}

#[test]
fn a_detached_session_is_answered_when_it_runs() {
    let mut stage = Stage::running(terms());
    let run = Run { argv: vec!["sleep".into()], detach: true, ..Run::default() };
    let effects = stage.tell(Event::Request(1, Request::Run(Box::new(run))));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::OpenDetached(1, _))));
    let effects = stage.tell(Event::Report(Report::Started { stream: 1, pid: 5 }));
    assert!(replied(&effects, 1));
    let effects = stage.tell(Event::RequestGone(1));
    assert!(effects.is_empty(), "it goes on without its client");
    assert_eq!(stage.life.sessions(stage.now).len(), 1);
}

#[test]
fn arguments_that_cannot_exist_are_refused() {
    let mut stage = Stage::running(terms());
    for run in [
        Run { argv: vec!["a\0b".into()], ..Run::default() },
        Run { argv: vec!["x".repeat(1 << 20)], ..Run::default() },
        Run { environment: vec!["novalue".into()], ..Run::default() },
        Run { environment: vec!["=x".into()], ..Run::default() },
    ] {
        let effects = stage.tell(Event::Request(1, Request::Run(Box::new(run))));
        assert!(matches!(failure(&effects, 1), Some(Failure::InvalidParameter { .. })));
    }
}

/// Anything that can happen, in any order.
#[derive(Clone, Debug)]
enum Op {
    Launched,
    Start,
    Run { detach: bool },
    Stop { force: bool },
    Pause,
    Resume,
    View,
    Signal(u32),
    HangUp(u32),
    Gone(u64),
    Hello,
    Ready,
    BootFailed,
    Started(u32),
    Ended(u32),
    Broken,
    ShuttingDown,
    PortClosed,
    GuestStopped(bool),
    PortOpened(bool),
    VmmExits,
    LinkExits,
    Terminate,
    Snapshot,
    Machine(u32, bool),
    Frozen(u32, bool),
    Keep,
    Written(bool),
    Encrypted(u32, bool),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::Launched),
        Just(Op::Start),
        any::<bool>().prop_map(|detach| Op::Run { detach }),
        any::<bool>().prop_map(|force| Op::Stop { force }),
        Just(Op::Pause),
        Just(Op::Resume),
        Just(Op::View),
        (0..5u32).prop_map(Op::Signal),
        (0..5u32).prop_map(Op::HangUp),
        (0..20u64).prop_map(Op::Gone),
        Just(Op::Hello),
        Just(Op::Ready),
        Just(Op::BootFailed),
        (0..5u32).prop_map(Op::Started),
        (0..5u32).prop_map(Op::Ended),
        Just(Op::Broken),
        Just(Op::ShuttingDown),
        Just(Op::PortClosed),
        any::<bool>().prop_map(Op::GuestStopped),
        any::<bool>().prop_map(Op::PortOpened),
        Just(Op::VmmExits),
        Just(Op::LinkExits),
        Just(Op::Terminate),
        Just(Op::Snapshot),
        Just(Op::Snapshot),
        (0..4u32, any::<bool>()).prop_map(|(number, good)| Op::Machine(number, good)),
        (0..4u32, any::<bool>()).prop_map(|(number, good)| Op::Frozen(number, good)),
        Just(Op::Keep),
        any::<bool>().prop_map(Op::Written),
        (0..4u32, any::<bool>()).prop_map(|(number, good)| Op::Encrypted(number, good)),
        (0..100u64).prop_map(Op::Wait),
    ]
}

fn result(good: bool) -> Result<(), String> {
    if good { Ok(()) } else { Err("x".into()) }
}

fn event(op: &Op, id: RequestId) -> Option<Event> {
    let request = |request| Event::Request(id, request);
    Some(match op {
        Op::Launched => Event::Launched,
        Op::Start => request(Request::Start),
        Op::Run { detach } => {
            let run = Run { argv: vec!["x".into()], detach: *detach, ..Run::default() };
            request(Request::Run(Box::new(run)))
        }
        Op::Stop { force } => request(Request::Stop(Stop { force: *force })),
        Op::Pause => request(Request::Pause),
        Op::Resume => request(Request::Resume),
        Op::View => request(Request::View(View { interactive: true })),
        Op::Signal(session) => request(Request::Signal(Signal { session: *session, signal: 15 })),
        Op::HangUp(session) => request(Request::HangUp(HangUp { session: *session })),
        Op::Gone(id) => Event::RequestGone(*id),
        Op::Hello => Event::Report(hello()),
        Op::Ready => Event::Report(Report::Ready),
        Op::BootFailed => Event::Report(Report::BootFailed { reason: "x".into() }),
        Op::Started(stream) => Event::Report(Report::Started { stream: *stream, pid: 1 }),
        Op::Ended(stream) => Event::Report(Report::Ended { stream: *stream, status: None }),
        Op::Broken => Event::Report(Report::Broken { reason: "x".into() }),
        Op::ShuttingDown => Event::Report(Report::ShuttingDown),
        Op::PortClosed => Event::Report(Report::PortClosed),
        Op::GuestStopped(reset) => Event::GuestStopped { reset: *reset },
        Op::PortOpened(open) => Event::PortOpened(*open),
        Op::VmmExits => Event::Exited(Role::Vmm, "ended".into()),
        Op::LinkExits => Event::Exited(Role::Link, "ended".into()),
        Op::Terminate => Event::Terminate,
        Op::Snapshot => request(Request::Snapshot(Snapshot { name: "x".into(), memory: false })),
        Op::Machine(snapshot, good) => {
            Event::MachineDid { snapshot: *snapshot, result: result(*good) }
        }
        Op::Frozen(id, good) => {
            Event::Report(Report::Frozen { id: *id, failure: result(*good).err() })
        }
        Op::Keep => request(Request::Snapshot(Snapshot { name: "x".into(), memory: true })),
        Op::Written(good) => Event::MemoryWritten(*good),
        Op::Encrypted(snapshot, good) => {
            Event::MemoryEncrypted { snapshot: *snapshot, result: result(*good) }
        }
        Op::Wait(_) => return None,
    })
}

proptest! {
    /// Whatever happens: nobody is answered twice, and once the processes are gone and the
    /// deadlines have passed the life is over and everybody has been answered.
    #[test]
    fn everybody_is_answered_once_and_every_life_ends(
        ops in proptest::collection::vec(op(), 0..60),
        fresh: bool,
        kvm: bool,
        idle in proptest::option::of(1..50u64),
        restart in prop_oneof![Just(Restart::No), Just(Restart::OnFailure), Just(Restart::Always)],
        checked: bool,
    ) {
        let idle_timeout = idle.map(Duration::from_secs);
        let health_check = checked.then(check);
        let mut guest = terms().guest;
        guest.volumes = vec![volume()];
        let all = Terms { fresh, idle_timeout, restart, health_check, guest, ..terms() };
        let without_kvm = kvm.then(|| Box::new(all.clone()));
        let mut stage = Stage::new(Terms { without_kvm, ..all });
        let mut open = std::collections::BTreeSet::new();
        let mut asked = std::collections::BTreeSet::new();
        let mut relaunch = false;
        let launched = std::cell::Cell::new(false);
        let mut step = |stage: &mut Stage, event: Option<Event>, seconds: u64,
                        asked: &mut std::collections::BTreeSet<RequestId>| {
            let effects = match event {
                Some(event) => stage.tell(event),
                None => stage.wait(seconds),
            };
            let mut effects = std::collections::VecDeque::from(effects);
            while let Some(effect) = effects.pop_front() {
                match effect {
                    Effect::Reply(id, _) => {
                        assert!(asked.remove(&id), "request {id} answered twice");
                    }
                    Effect::PrepareSnapshot { number, .. } => {
                        assert!(open.is_empty(), "two at a time");
                        open.insert(number);
                    }
                    Effect::SwitchLayers { number } => assert!(open.contains(&number)),
                    Effect::DropSnapshot { number } => assert!(open.remove(&number)),
                    Effect::KeepSnapshot { number } => {
                        assert!(open.remove(&number) && effects.is_empty());
                        let result = result(number % 2 == 0);
                        effects.extend(stage.tell(Event::SnapshotKept { snapshot: number, result }));
                    }
                    Effect::RelaunchWithoutKvm => {
                        assert!(!std::mem::replace(&mut relaunch, true), "relaunched twice");
                        launched.set(false);
                    }
                    // What was left of a snapshot is settled with the volumes.
                    Effect::ClearUp => open.clear(),
                    Effect::Relaunch => {
                        assert!(restart != Restart::No, "nobody wanted it started again");
                        assert!(stage.life.alive.is_empty(), "it still runs");
                        launched.set(false);
                    }
                    _ => {}
                }
            }
        };
        for (id, op) in ops.iter().enumerate() {
            if stage.life.outcome().is_some() {
                break;
            }
            // The runtime launches once, before anything else but requests.
            if matches!(op, Op::Launched) && launched.replace(true) {
                continue;
            }
            let id = id as RequestId;
            if matches!(op, Op::Start | Op::Run { .. } | Op::Stop { .. } | Op::Pause | Op::Resume
                | Op::View | Op::Signal(_) | Op::HangUp(_) | Op::Snapshot
                | Op::Keep)
            {
                asked.insert(id);
            }
            if let Op::Gone(gone) = op {
                asked.remove(gone);
            }
            let seconds = if let Op::Wait(seconds) = op { *seconds } else { 0 };
            step(&mut stage, event(op, id), seconds, &mut asked);
        }
        for event in [Event::Terminate, Event::Report(Report::PortClosed),
            Event::Exited(Role::Vmm, "ended".into()), Event::Exited(Role::Link, "ended".into())]
        {
            step(&mut stage, Some(event), 0, &mut asked);
        }
        for _ in 0..3 {
            step(&mut stage, None, 1000, &mut asked);
        }
        prop_assert!(stage.life.outcome().is_some(), "still {}", stage.life.state());
        prop_assert!(asked.is_empty(), "never answered: {asked:?}");
        prop_assert_eq!(stage.life.sessions(stage.now).len(), 0);
    }
}
