//! Windows of the guest: bytes as they are between a stream and a socket, under the credit of sessions,
//! and guests that want more of them than there are.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use casemate_link::orders::{Order, Report};
use casemate_wire::limits::{MAX_WINDOWS, WINDOW};
use casemate_wire::{ExitStatus, FromGuest, FromHost, Kind, decode, encode};

mod stage;

use stage::*;

impl Stage {
    /// A program that shows windows; returns waypipe's end of the socket.
    fn shown(&mut self, stream: u32) -> UnixStream {
        self.say(&FromGuest::Windows { window: 7 });
        assert_eq!(self.report(), Report::Windows { window: 7 });
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        self.order(&Order::ShowWindows { stream, window: 7 }, Some(theirs.into()));
        assert_eq!(self.told(), FromHost::ShowWindows { stream, window: 7 });
        ours.set_read_timeout(Some(PATIENCE)).expect("set");
        ours
    }

    fn told(&mut self) -> FromHost {
        let (stream, kind, payload) = self.guest_frame();
        assert_eq!((stream, kind), (0, Kind::Message));
        decode(&payload).expect("a message")
    }
}

#[test]
fn bytes_go_both_ways_as_they_are_and_the_guests_end_ends_it() {
    let mut stage = Stage::greeted();
    let mut waypipe = stage.shown(1);
    stage.frame(1, Kind::Stdout, b"surface");
    let mut bytes = [0; 7];
    waypipe.read_exact(&mut bytes).expect("came");
    assert_eq!(&bytes, b"surface");
    waypipe.write_all(b"configure").expect("taken");
    assert_eq!(stage.guest_frame(), (1, Kind::Stdin, b"configure".to_vec()));
    stage.frame(1, Kind::Stdout, b"last");
    stage.frame(1, Kind::Stdout, b"");
    stage.frame(1, Kind::Exit, &encode(&ExitStatus::Code(0)));
    let mut rest = Vec::new();
    waypipe.read_to_end(&mut rest).expect("ended");
    assert_eq!(rest, b"last");
    let ended = Report::Ended { stream: 1, status: Some(ExitStatus::Code(0)) };
    assert_eq!(stage.report(), ended);
}

#[test]
fn waypipes_end_hangs_up_on_the_guest() {
    let mut stage = Stage::greeted();
    drop(stage.shown(1));
    assert_eq!(stage.guest_frame(), (1, Kind::HangUp, vec![]));
    assert_eq!(stage.report(), Report::Ended { stream: 1, status: None });
}

#[test]
fn what_the_guest_does_not_take_is_not_read() {
    let mut stage = Stage::greeted();
    let mut waypipe = stage.shown(1);
    let total = 2 * WINDOW as usize;
    let writer =
        std::thread::spawn(move || waypipe.write_all(&vec![b'x'; total]).map(|()| waypipe));
    let mut taken = 0;
    while taken < WINDOW as usize {
        let (_, kind, payload) = stage.guest_frame();
        assert_eq!(kind, Kind::Stdin);
        taken += payload.len();
    }
    assert_eq!(taken, WINDOW as usize, "no more than one window without credit");
    stage.frame(1, Kind::Credit, &WINDOW.to_le_bytes());
    while taken < total {
        taken += stage.guest_frame().2.len();
    }
    assert_eq!(taken, total);
    writer.join().expect("no panic").expect("written");
}

#[test]
fn a_guest_that_says_more_than_it_may_is_given_up() {
    let mut stage = Stage::greeted();
    let _waypipe = stage.shown(1);
    stage.frame(1, Kind::Stderr, b"aside");
    assert!(stage.broken().contains("does not come from a guest"));
}

#[test]
fn too_many_programs_are_told_at_once_and_numbers_wait_once() {
    let mut stage = Stage::greeted();
    for window in 0..MAX_WINDOWS as u32 {
        stage.say(&FromGuest::Windows { window });
        assert_eq!(stage.report(), Report::Windows { window });
    }
    stage.say(&FromGuest::Windows { window: 500 });
    assert_eq!(stage.told(), FromHost::RefuseWindows { window: 500 });
    stage.order(&Order::RefuseWindows { window: 3 }, None);
    assert_eq!(stage.told(), FromHost::RefuseWindows { window: 3 });
    // What is shown all the same leads nowhere.
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    stage.order(&Order::ShowWindows { stream: 1, window: 3 }, Some(theirs.into()));
    assert!(is_closed(&mut ours));
    assert_eq!(stage.report(), Report::Ended { stream: 1, status: None });
    stage.say(&FromGuest::Windows { window: 4 });
    assert!(stage.broken().contains("number of windows"));
}
