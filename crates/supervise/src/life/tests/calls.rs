//! Calls of the guest: decided a few at a time, answered once, and no activity of the compartment.

use super::*;

impl Stage {
    fn call(&mut self, call: u32) -> Vec<Effect> {
        let (target, service) = ("b".to_owned(), "s".to_owned());
        self.tell(Event::Report(Report::Call { call, target, service }))
    }

    fn decided(&mut self, call: u32, good: bool) -> Vec<Effect> {
        let result = if good { Ok(()) } else { Err((126, "no".to_owned())) };
        self.tell(Event::CallDecided { call, result })
    }
}

/// What was done about calls, in a few words.
fn said(effects: &[Effect]) -> Vec<String> {
    let word = |effect: &Effect| match effect {
        Effect::Decide { call, .. } => Some(format!("decide {call}")),
        Effect::ConnectCall { stream, call } => Some(format!("connect {call} as {stream}")),
        Effect::ForgetCall { call } => Some(format!("forget {call}")),
        Effect::Order(Order::Refuse { call, code, .. }, None) => {
            Some(format!("refuse {call} with {code}"))
        }
        _ => None,
    };
    effects.iter().filter_map(word).collect()
}

#[test]
fn a_call_is_decided_and_connected_or_refused() {
    let mut stage = Stage::running(terms());
    assert_eq!(said(&stage.call(7)), ["decide 7"]);
    assert_eq!(said(&stage.decided(7, true)), ["connect 7 as 1"]);
    assert_eq!(said(&stage.call(8)), ["decide 8"]);
    assert_eq!(said(&stage.decided(8, false)), ["forget 8", "refuse 8 with 126"]);
    // An answer to nobody's question is none.
    assert!(stage.decided(8, true).is_empty());
    // Its stream is like any other, and no session's.
    assert_eq!(opened(&stage.run(1)), Some(2));
    stage.tell(Event::Report(Report::Ended { stream: 1, status: None }));
    assert_eq!(stage.life.sessions(stage.now).len(), 1);
}

#[test]
fn only_so_many_are_decided_at_a_time_and_each_end_lets_the_next_in() {
    let mut stage = Stage::running(terms());
    let mut begun = 0;
    for call in 0..20 {
        begun += said(&stage.call(call)).len();
    }
    assert_eq!(begun, 8);
    assert_eq!(said(&stage.decided(0, false)), ["forget 0", "refuse 0 with 126", "decide 8"]);
    assert_eq!(said(&stage.decided(1, true)), ["connect 1 as 1", "decide 9"]);
    let gone = |call| Event::Report(Report::CallGone { call });
    assert_eq!(said(&stage.tell(gone(2))), ["forget 2", "decide 10"]);
    // One that waits, or that nobody knows, is forgotten without a word.
    assert!(stage.tell(gone(11)).is_empty() && stage.tell(gone(99)).is_empty());
    assert_eq!(said(&stage.decided(3, false)).last().map(String::as_str), Some("decide 12"));
}

#[test]
fn a_guest_with_as_many_calls_as_it_may_have_waits_for_one_to_end() {
    let mut stage = Stage::running(terms());
    for call in 0..192 {
        assert_eq!(said(&stage.call(call)).len(), 1, "{call}");
        stage.decided(call, true);
    }
    assert!(said(&stage.call(500)).is_empty());
    let ended = stage.tell(Event::Report(Report::Ended { stream: 5, status: None }));
    assert_eq!(said(&ended), ["decide 500"]);
}

#[test]
fn calls_do_not_keep_a_disposable_from_ending() {
    let timeout = Some(Duration::from_secs(30));
    let mut stage = Stage::running(Terms { idle_timeout: timeout, ..terms() });
    stage.call(1);
    stage.decided(1, true);
    stage.wait(20);
    stage.call(2);
    let effects = stage.wait(10);
    assert_eq!(stage.life.state(), "stopping", "{effects:?}");
    assert_eq!(said(&effects), ["forget 2"]);
    assert_eq!(said(&stage.call(3)), ["refuse 3 with 125"]);
}
