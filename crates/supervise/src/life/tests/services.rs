//! Compartments that come back by themselves, and their health checks.

use super::*;

fn has(effects: &[Effect], wanted: impl Fn(&Effect) -> bool) -> bool {
    effects.iter().any(wanted)
}

fn relaunches(effects: &[Effect]) -> bool {
    has(effects, |effect| matches!(effect, Effect::Relaunch))
}

fn checks(effects: &[Effect]) -> Option<u32> {
    effects.iter().find_map(|effect| match effect {
        Effect::OpenCheck(stream, _) => Some(*stream),
        _ => None,
    })
}

impl Stage {
    /// What the runtime does for [`Effect::Relaunch`], up to a guest that is ready.
    fn boots(&mut self) {
        self.tell(Event::Launched);
        self.tell(Event::Report(hello()));
        self.tell(Event::Report(Report::Ready));
        assert_eq!(self.life.state(), "running");
    }

    fn check_ends(&mut self, stream: u32, code: u8) -> Vec<Effect> {
        let status = Some(ExitStatus::Code(code));
        self.tell(Event::Report(Report::Ended { stream, status }))
    }
}

#[test]
fn a_compartment_that_fails_again_and_again_is_started_after_ever_longer_waits() {
    let mut stage = Stage::running(Terms { restart: Restart::OnFailure, ..terms() });
    for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let effects = stage.everything_ends();
        assert!(has(&effects, |effect| matches!(effect, Effect::ClearUp)));
        assert_eq!(stage.life.state(), "waiting");
        assert!(!relaunches(&stage.wait(seconds - 1)), "sooner than after {seconds} s");
        assert!(relaunches(&stage.wait(1)), "not after {seconds} s");
        stage.boots();
    }
    assert_eq!(stage.life.restarts().0, 11);
    // A minute of good health, and the waits begin anew.
    stage.wait(60);
    stage.everything_ends();
    assert!(relaunches(&stage.wait(1)));
}

#[test]
fn only_what_the_policy_names_is_started_again() {
    for (restart, again) in
        [(Restart::No, false), (Restart::OnFailure, false), (Restart::Always, true)]
    {
        let mut stage = Stage::running(Terms { restart, ..terms() });
        stage.tell(Event::Report(Report::ShuttingDown));
        stage.everything_ends();
        assert_eq!(stage.life.state(), if again { "waiting" } else { "stopped" });
    }
}

#[test]
fn what_was_stopped_stays_stopped_even_if_it_fails_on_the_way() {
    let mut stage = Stage::running(Terms { restart: Restart::Always, ..terms() });
    stage.tell(Event::Request(1, Request::Stop(Stop { force: false })));
    let effects = stage.everything_ends();
    assert!(replied(&effects, 1));
    assert!(stage.life.outcome().is_some());
}

#[test]
fn a_compartment_that_waits_to_be_started_again_can_be_stopped() {
    for event in [Event::Request(1, Request::Stop(Stop { force: false })), Event::Terminate] {
        let mut stage = Stage::running(Terms { restart: Restart::OnFailure, ..terms() });
        stage.everything_ends();
        stage.tell(event);
        assert_eq!(stage.life.state(), "stopped");
    }
}

#[test]
fn who_wants_a_compartment_that_waits_gets_it_at_once() {
    let mut stage = Stage::running(Terms { restart: Restart::OnFailure, ..terms() });
    stage.everything_ends();
    assert!(relaunches(&stage.run(1)));
    stage.tell(Event::Launched);
    stage.tell(Event::Report(hello()));
    assert!(opened(&stage.tell(Event::Report(Report::Ready))).is_some());
}

#[test]
fn who_comes_while_it_fails_waits_for_the_next_start() {
    let mut stage = Stage::running(Terms { restart: Restart::OnFailure, ..terms() });
    stage.tell(Event::Report(Report::Broken { reason: "x".into() }));
    assert_eq!(stage.life.state(), "stopping");
    assert!(failure(&stage.run(1), 1).is_none());
    assert!(relaunches(&stage.everything_ends()));
}

#[test]
fn what_would_fail_again_is_not_tried_again() {
    let mut stage = Stage::running(Terms { restart: Restart::Always, ..terms() });
    stage.life.give_up("the image is damaged".into(), stage.now);
    stage.everything_ends();
    assert_eq!(stage.life.state(), "failed");
}

#[test]
fn an_unhealthy_compartment_is_shut_down_and_started_again() {
    let terms = Terms { restart: Restart::OnFailure, health_check: Some(check()), ..terms() };
    let mut stage = Stage::running(terms);
    let first = checks(&stage.wait(0)).expect("the first check is made at once");
    stage.check_ends(first, 0);
    assert_eq!(stage.life.health(), Some("healthy"));
    let second = checks(&stage.wait(10)).expect("the next one after the interval");
    assert!(!has(&stage.check_ends(second, 1), |e| matches!(e, Effect::Order(..))));
    assert_eq!(stage.life.health(), Some("healthy"));
    let third = checks(&stage.wait(10)).expect("the next one after the interval");
    let effects = stage.check_ends(third, 1);
    assert!(has(&effects, |effect| matches!(effect, Effect::Order(Order::Shutdown, _))));
    stage.tell(Event::Report(Report::ShuttingDown));
    stage.everything_ends();
    assert_eq!(stage.life.state(), "waiting");
    let (_, last_end) = stage.life.restarts();
    assert_eq!(last_end, Some("its health check ended with code 1, 2 times in a row"));
}

#[test]
fn an_unhealthy_compartment_that_nobody_wants_restarted_goes_on() {
    let check = HealthCheck { start_period: Duration::ZERO, retries: 1, ..check() };
    let mut stage = Stage::running(Terms { health_check: Some(check), ..terms() });
    let first = checks(&stage.wait(0)).expect("a check");
    stage.check_ends(first, 1);
    assert_eq!((stage.life.state(), stage.life.health()), ("running", Some("unhealthy")));
    let second = checks(&stage.wait(10)).expect("a check");
    stage.check_ends(second, 0);
    assert_eq!(stage.life.health(), Some("healthy"));
}

#[test]
fn failures_do_not_count_while_the_service_starts() {
    let mut stage = Stage::running(Terms { health_check: Some(check()), ..terms() });
    let mut wait = 0;
    // At 0, 10 and 20 s they do not, at 30 and 40 s they do.
    for expected in ["starting", "starting", "starting", "starting", "unhealthy"] {
        let stream = checks(&stage.wait(wait)).expect("a check");
        stage.check_ends(stream, 1);
        assert_eq!(stage.life.health(), Some(expected));
        wait = 10;
    }
}

#[test]
fn a_check_that_does_not_end_is_killed_and_has_failed() {
    let check = HealthCheck { start_period: Duration::ZERO, retries: 1, ..check() };
    let mut stage = Stage::running(Terms { health_check: Some(check), ..terms() });
    let stream = checks(&stage.wait(0)).expect("a check");
    let effects = stage.wait(5);
    let kill = |effect: &Effect| matches!(effect, Effect::Order(Order::Signal { stream: of, signal: 9 }, _) if *of == stream);
    assert!(has(&effects, kill));
    assert_eq!(stage.life.health(), Some("unhealthy"));
    // Its end, when it comes, is nobody's.
    stage.check_ends(stream, 0);
    assert_eq!(stage.life.health(), Some("unhealthy"));
}

#[test]
fn no_check_is_made_while_the_guest_takes_no_more_sessions() {
    let mut stage = Stage::running(Terms { health_check: Some(check()), ..terms() });
    for id in 0..MAX_SESSIONS as u64 {
        stage.run(id);
    }
    assert_eq!(checks(&stage.wait(0)), None);
    let stream = *stage.life.sessions.keys().next().expect("a session");
    stage.check_ends(stream, 0);
    assert!(checks(&stage.wait(10)).is_some());
}

#[test]
fn a_health_check_keeps_no_disposable_alive() {
    let idle_timeout = Some(Duration::from_secs(12));
    let mut stage = Stage::running(Terms { idle_timeout, health_check: Some(check()), ..terms() });
    let first = checks(&stage.wait(0)).expect("a check");
    stage.check_ends(first, 0);
    assert!(stage.life.sessions(stage.now).is_empty());
    checks(&stage.wait(10)).expect("a check");
    assert!(kills(&stage.wait(2)), "it was idle for 12 s");
}
