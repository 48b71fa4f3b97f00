//! Calls of the guest: honest callers whose services say more than they take, and guests that call
//! without measure.

use std::io::Write;
use std::os::unix::net::UnixStream;

use casemate_link::orders::{Order, Report};
use casemate_wire::limits::{MAX_CALLS, MAX_PAYLOAD, WINDOW};
use casemate_wire::{ExitStatus, FromGuest, FromHost, Kind, decode, encode, encode_header};

mod stage;

use stage::*;

impl Stage {
    fn call(&mut self, call: u32) {
        let (target, service) = ("work".to_owned(), "casemate.Date".to_owned());
        self.say(&FromGuest::Call { call, target, service });
    }

    /// A call that was let through; returns its stream and the service's end of the socket.
    fn connected(&mut self) -> (u32, UnixStream) {
        self.call(7);
        assert!(matches!(self.report(), Report::Call { call: 7, .. }));
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        self.order(&Order::Connect { stream: 1, call: 7 }, Some(theirs.into()));
        assert_eq!(self.told(), FromHost::Connect { stream: 1, call: 7 });
        ours.set_read_timeout(Some(PATIENCE)).expect("set");
        (1, ours)
    }

    fn told(&mut self) -> FromHost {
        let (stream, kind, payload) = self.guest_frame();
        assert_eq!((stream, kind), (0, Kind::Message));
        decode(&payload).expect("a message")
    }

    /// The status that the caller is told, after so many bytes of the service.
    fn answer(&mut self, stream: u32) -> (usize, ExitStatus) {
        let mut bytes = 0;
        loop {
            let (from, kind, payload) = self.guest_frame();
            match kind {
                Kind::Stdin => {
                    bytes += payload.len();
                    let credit = (payload.len() as u32).to_le_bytes();
                    if !payload.is_empty() {
                        self.frame(stream, Kind::Credit, &credit);
                    }
                }
                Kind::Exit => return (bytes, decode(&payload).expect("a status")),
                Kind::Credit => {}
                other => panic!("{other:?} for stream {from}"),
            }
        }
    }
}

#[test]
fn a_call_is_a_session_the_other_way_round() {
    let mut stage = Stage::greeted();
    let (stream, mut service) = stage.connected();
    stage.frame(stream, Kind::Stdout, b"question");
    stage.frame(stream, Kind::Stdout, b"");
    assert_eq!(client_frame(&mut service), (Kind::Stdin, b"question".to_vec()));
    assert_eq!(client_frame(&mut service), (Kind::Stdin, vec![]));
    give(&mut service, Kind::Started, &4u32.to_le_bytes());
    give(&mut service, Kind::Stderr, b"not for the caller");
    give(&mut service, Kind::Stdout, b"answer");
    give(&mut service, Kind::Stdout, b"");
    give(&mut service, Kind::Exit, &encode(&ExitStatus::Code(3)));
    drop(service);
    assert_eq!(stage.guest_frame(), (stream, Kind::Stdin, b"answer".to_vec()));
    assert_eq!(stage.guest_frame(), (stream, Kind::Stdin, vec![]));
    assert_eq!(stage.answer(stream), (0, ExitStatus::Code(3)));
    assert_eq!(stage.report(), Report::Ended { stream, status: None });
    stage.frame(stream, Kind::Exit, &encode(&ExitStatus::Code(0)));
    // The guest may call again.
    stage.call(8);
    assert!(matches!(stage.report(), Report::Call { call: 8, .. }));
}

#[test]
fn what_a_service_said_before_its_end_reaches_a_slow_caller() {
    let mut stage = Stage::greeted();
    let (stream, mut service) = stage.connected();
    let total = 3 * WINDOW as usize;
    let writer = std::thread::spawn(move || {
        let chunk = vec![b'x'; MAX_PAYLOAD];
        for _ in 0..total / MAX_PAYLOAD {
            give(&mut service, Kind::Stdout, &chunk);
        }
        give(&mut service, Kind::Stdout, b"");
        give(&mut service, Kind::Exit, &encode(&ExitStatus::Signal(9)));
    });
    // Long enough for the service to be gone before anything is taken.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(stage.answer(stream), (total, ExitStatus::Signal(9)));
    writer.join().expect("written");
}

#[test]
fn a_caller_that_still_speaks_gets_the_answer_of_a_service_that_has_ended() {
    let mut stage = Stage::greeted();
    let (stream, mut service) = stage.connected();
    let mut all = encode_header(0, Kind::Stdout, 6).to_vec();
    all.extend_from_slice(b"answer");
    let status = encode(&ExitStatus::Code(0));
    all.extend_from_slice(&encode_header(0, Kind::Exit, status.len()));
    all.extend_from_slice(&status);
    service.write_all(&all).expect("taken");
    drop(service);
    for _ in 0..4 {
        stage.frame(stream, Kind::Stdout, b"still speaking");
    }
    assert_eq!(stage.answer(stream), (6, ExitStatus::Code(0)));
}

#[test]
fn a_service_that_says_nothing_of_its_end_has_failed() {
    let mut stage = Stage::greeted();
    let (stream, service) = stage.connected();
    drop(service);
    let (_, status) = stage.answer(stream);
    assert_eq!(status.code(), 125, "{status:?}");
}

#[test]
fn a_caller_that_goes_hangs_up_on_the_service() {
    let mut stage = Stage::greeted();
    let (stream, mut service) = stage.connected();
    stage.frame(stream, Kind::Exit, &encode(&ExitStatus::Signal(15)));
    assert!(is_closed(&mut service));
    assert_eq!(stage.report(), Report::Ended { stream, status: None });
}

#[test]
fn a_refusal_reaches_the_caller_and_one_that_has_gone_is_forgotten() {
    let mut stage = Stage::greeted();
    stage.call(7);
    assert!(matches!(stage.report(), Report::Call { call: 7, .. }));
    let refuse = |call| Order::Refuse { call, code: 126, reason: "no rule".into() };
    stage.order(&refuse(7), None);
    let refused = FromHost::Refuse { call: 7, code: 126, reason: "no rule".into() };
    assert_eq!(stage.told(), refused);
    stage.call(8);
    assert!(matches!(stage.report(), Report::Call { call: 8, .. }));
    stage.say(&FromGuest::CallGone { call: 8 });
    assert_eq!(stage.report(), Report::CallGone { call: 8 });
    // What is answered all the same leads nowhere: the service's end is closed.
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    stage.order(&Order::Connect { stream: 1, call: 8 }, Some(theirs.into()));
    assert!(is_closed(&mut ours));
    assert_eq!(stage.report(), Report::Ended { stream: 1, status: None });
}

#[test]
fn a_call_that_is_no_word_is_refused_without_asking_the_supervisor() {
    let mut stage = Stage::greeted();
    let (target, service) = ("work".to_owned(), "a\nb".to_owned());
    stage.say(&FromGuest::Call { call: 1, target, service });
    assert!(matches!(stage.told(), FromHost::Refuse { call: 1, code: 126, .. }));
    stage.call(2);
    assert!(matches!(stage.report(), Report::Call { call: 2, .. }));
}

#[test]
fn a_guest_with_more_calls_than_there_may_be_is_given_up() {
    let mut stage = Stage::greeted();
    for call in 0..=MAX_CALLS as u32 {
        stage.call(call);
    }
    assert!(stage.broken().contains("calls"));
}

#[test]
fn a_caller_says_nothing_that_only_a_command_says() {
    for kind in [Kind::Started, Kind::Stderr] {
        let mut stage = Stage::greeted();
        let (stream, mut service) = stage.connected();
        stage.frame(stream, kind, &4u32.to_le_bytes());
        assert!(stage.broken().contains("does not come from a guest"));
        assert!(is_closed(&mut service));
    }
}

#[test]
fn a_service_that_sends_no_frames_is_given_up_and_its_caller_told() {
    let mut stage = Stage::greeted();
    let (stream, mut service) = stage.connected();
    service.write_all(&[0xff; 64]).expect("taken");
    let (_, status) = stage.answer(stream);
    assert_eq!(status.code(), 125);
    assert!(is_closed(&mut service));
}
