//! The link process between a made-up guest, clients and a supervisor. The guest is honest in the
//! first half and hostile in the second.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use casemate_link::orders::{self, Order, OrderError, Report};
use casemate_wire::limits::{MAX_PAYLOAD, WINDOW};
use casemate_wire::message::{Assembler, push_message};
use casemate_wire::preamble::{FROM_GUEST, Hunter};
use casemate_wire::{
    ExitStatus, FromGuest, FromHost, Kind, PROTOCOL_VERSION, decode, encode, encode_header,
    preamble, push_frame,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

mod stage;

use stage::*;

#[test]
fn a_session_carries_both_ways_and_ends_with_its_status() {
    let mut stage = Stage::greeted();
    let (stream, mut client) = stage.open();
    stage.frame(stream, Kind::Started, &42u32.to_le_bytes());
    assert_eq!(stage.report(), Report::Started { stream, pid: 42 });
    assert_eq!(client_frame(&mut client), (Kind::Started, 42u32.to_le_bytes().to_vec()));
    give(&mut client, Kind::Stdin, b"in");
    give(&mut client, Kind::Stdin, b"");
    assert_eq!(stage.guest_frame(), (stream, Kind::Stdin, b"in".to_vec()));
    assert_eq!(stage.guest_frame(), (stream, Kind::Stdin, vec![]));
    stage.frame(stream, Kind::Stdout, b"out");
    stage.frame(stream, Kind::Stderr, b"err");
    stage.frame(stream, Kind::Exit, &encode(&ExitStatus::Code(3)));
    assert_eq!(client_frame(&mut client), (Kind::Stdout, b"out".to_vec()));
    assert_eq!(client_frame(&mut client), (Kind::Stderr, b"err".to_vec()));
    let (kind, payload) = client_frame(&mut client);
    assert_eq!(kind, Kind::Exit);
    assert_eq!(
        casemate_wire::decode::<ExitStatus>(&payload).expect("a status"),
        ExitStatus::Code(3)
    );
    assert!(is_closed(&mut client));
    assert_eq!(stage.report(), Report::Ended { stream, status: Some(ExitStatus::Code(3)) });
}

#[test]
fn a_client_that_does_not_read_holds_up_only_its_own_session() {
    let mut stage = Stage::greeted();
    let (stalled, _client) = stage.open();
    let chunk = vec![b'x'; MAX_PAYLOAD];
    for _ in 0..(WINDOW as usize / MAX_PAYLOAD) {
        stage.frame(stalled, Kind::Stdout, &chunk);
    }
    let (other, mut client) = stage.open_past_credit();
    stage.frame(other, Kind::Stdout, b"quick");
    assert_eq!(client_frame(&mut client), (Kind::Stdout, b"quick".to_vec()));
}

impl Stage {
    /// Opens a session while credit of another one may be on the way to the guest.
    fn open_past_credit(&mut self) -> (u32, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let stream = self.next_stream;
        self.next_stream += 1;
        self.order(&Order::Open { stream, session: session() }, Some(theirs.into()));
        while self.guest_frame().1 != Kind::Message {}
        ours.set_read_timeout(Some(PATIENCE)).expect("set");
        (stream, ours)
    }
}

#[test]
fn credit_comes_back_as_the_client_reads() {
    let mut stage = Stage::greeted();
    let (stream, mut client) = stage.open();
    let reader = std::thread::spawn(move || {
        let mut total = 0;
        while total < 4 * WINDOW as usize {
            total += client_frame(&mut client).1.len();
        }
        client
    });
    let mut credit = casemate_wire::Sender::default();
    let chunk = vec![b'y'; MAX_PAYLOAD];
    let mut sent = 0;
    while sent < 4 * WINDOW as usize {
        while credit.available() < chunk.len() {
            let (from, kind, payload) = stage.guest_frame();
            assert_eq!((from, kind), (stream, Kind::Credit));
            let count = u32::from_le_bytes(payload.try_into().expect("four bytes"));
            credit.returned(count).expect("not more than was spent");
        }
        stage.frame(stream, Kind::Stdout, &chunk);
        credit.spend(chunk.len());
        sent += chunk.len();
    }
    reader.join().expect("everything arrived");
}

#[test]
fn input_beyond_the_window_waits_for_credit() {
    let mut stage = Stage::greeted();
    let (stream, mut client) = stage.open();
    let writer = std::thread::spawn(move || {
        for _ in 0..(2 * WINDOW as usize / MAX_PAYLOAD) {
            give(&mut client, Kind::Stdin, &vec![b'z'; MAX_PAYLOAD]);
        }
        client
    });
    let mut received = 0;
    while received < WINDOW as usize {
        received += stage.guest_frame().2.len();
    }
    assert_eq!(received, WINDOW as usize);
    stage.guest.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    assert!(stage.guest.read(&mut [0]).is_err(), "more came than there was credit for");
    stage.guest.set_read_timeout(Some(PATIENCE)).expect("set");
    stage.frame(stream, Kind::Credit, &WINDOW.to_le_bytes());
    while received < 2 * WINDOW as usize {
        received += stage.guest_frame().2.len();
    }
    writer.join().expect("everything was taken");
}

#[test]
fn a_client_that_goes_hangs_its_session_up() {
    let mut stage = Stage::greeted();
    let (stream, client) = stage.open();
    drop(client);
    assert_eq!(stage.guest_frame(), (stream, Kind::HangUp, vec![]));
    assert_eq!(stage.report(), Report::Ended { stream, status: None });
    // What was on the way is dropped, and the last frame forgets the stream.
    stage.frame(stream, Kind::Stdout, b"late");
    stage.frame(stream, Kind::Exit, &encode(&ExitStatus::Signal(1)));
    stage.say(&FromGuest::Pong { id: 1 });
    assert_eq!(stage.report(), Report::Pong { id: 1 });
}

#[test]
fn a_freeze_is_asked_for_and_its_answer_made_harmless() {
    let mut stage = Stage::greeted();
    stage.order(&Order::Freeze { id: 7, milliseconds: 30_000, memory: false }, None);
    let (_, _, payload) = stage.guest_frame();
    let asked: FromHost = decode(&payload).expect("a message");
    assert_eq!(asked, FromHost::Freeze { id: 7, milliseconds: 30_000, memory: false });
    let failure = Some(format!("no\x1b[2J{}", "x".repeat(100_000)));
    stage.say(&FromGuest::Frozen { id: 7, failure });
    let Report::Frozen { id: 7, failure: Some(text) } = stage.report() else { panic!("other") };
    assert!(text.starts_with("no") && !text.contains('\x1b') && text.len() < 5000);
    stage.order(&Order::Thaw, None);
    assert_eq!(decode::<FromHost>(&stage.guest_frame().2).expect("a message"), FromHost::Thaw);
}

#[test]
fn a_signal_overtakes_input_that_nobody_reads() {
    let mut stage = Stage::greeted();
    let (stream, mut client) = stage.open();
    for _ in 0..(WINDOW as usize / MAX_PAYLOAD) {
        give(&mut client, Kind::Stdin, &vec![0; MAX_PAYLOAD]);
    }
    give(&mut client, Kind::Stdin, b"stuck");
    stage.order(&Order::Signal { stream, signal: 2 }, None);
    loop {
        match stage.guest_frame() {
            (_, Kind::Stdin, payload) => assert_ne!(payload, b"stuck"),
            other => {
                assert_eq!(other, (stream, Kind::Signal, vec![2]));
                break;
            }
        }
    }
}

#[test]
fn an_agent_that_comes_back_finds_its_connection_among_stale_bytes() {
    let mut stage = Stage::greeted();
    let (stream, mut client) = stage.open();
    stage.order(&Order::PortReopened, None);
    assert_eq!(stage.report(), Report::Ended { stream, status: None });
    assert!(is_closed(&mut client));
    stage.send(b"stale bytes of the connection before");
    stage.send(&preamble::encode(FROM_GUEST, 99));
    let mut hunter = Hunter::for_guest(99);
    let mut byte = [0];
    while hunter.feed(&byte).is_none() {
        stage.guest.read_exact(&mut byte).expect("the answer");
    }
    stage.say(&hello(PROTOCOL_VERSION));
    assert!(matches!(stage.report(), Report::Hello { .. }));
}

#[test]
fn console_output_reaches_viewers_raw_and_the_log_made_harmless() {
    let mut stage = Stage::new();
    let (mut raw, theirs) = UnixStream::pair().expect("a pair");
    stage.order(&Order::View { interactive: true }, Some(theirs.into()));
    let (mut plain, theirs) = UnixStream::pair().expect("a pair");
    stage.order(&Order::View { interactive: false }, Some(theirs.into()));
    raw.write_all(b"typed").expect("taken");
    let mut typed = [0; 5];
    stage.console.read_exact(&mut typed).expect("typed");
    assert_eq!(&typed, b"typed");
    plain.write_all(b"not typed").expect("taken");
    stage.console.write_all(b"\x1b]0;evil\x07line\r\n").expect("taken");
    let mut bytes = [0; 14];
    raw.read_exact(&mut bytes).expect("output");
    assert_eq!(&bytes, b"\x1b]0;evil\x07line\r");
    let mut text = String::new();
    while !text.ends_with('\n') {
        let mut byte = [0];
        plain.read_exact(&mut byte).expect("output");
        text.push(char::from(byte[0]));
    }
    assert_eq!(text, "\\u{1b}]0;evil\\u{7}line\n");
    let begin = Instant::now();
    loop {
        use std::os::unix::fs::FileExt;
        let mut log = vec![0; 256];
        let count = stage.log.read_at(&mut log, 0).expect("the log");
        if log[..count] == *text.as_bytes() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "the log has {:?}", &log[..count]);
    }
}

#[test]
fn guest_text_is_made_harmless_in_every_report() {
    let mut stage = Stage::new();
    stage.connect(1);
    stage.say(&FromGuest::Hello {
        protocol: PROTOCOL_VERSION,
        version: "\x1b[2J".into(),
        features: vec!["\u{202e}x".into(); 100],
        kernel: "k".repeat(10_000),
        booted: false,
    });
    let Report::Hello { version, features, kernel, .. } = stage.report() else { panic!("Hello") };
    assert_eq!(version, "\\u{1b}[2J");
    assert_eq!(features.len(), 32);
    assert_eq!(features[0], "\\u{202e}x");
    assert!(kernel.len() < 200);
    stage.say(&FromGuest::BootFailed { reason: "a\nb\x07".into() });
    assert_eq!(stage.report(), Report::BootFailed { reason: "a\\nb\\u{7}".into() });
}

/// What a hostile guest may send after its Hello, and a word of the reason it is given up for.
fn attacks() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let framed = |stream, kind, payload: &[u8]| {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, stream, kind, payload);
        bytes
    };
    let mut header = encode_header(1, Kind::Stdout, 0);
    header[5..8].copy_from_slice(&[0xff; 3]);
    let mut unknown = encode_header(1, Kind::Stdout, 0);
    unknown[4] = 200;
    let parts: Vec<u8> =
        (0..17).flat_map(|_| framed(0, Kind::MessagePart, &vec![0; MAX_PAYLOAD])).collect();
    vec![
        ("a length over the limit", header.to_vec(), "claims"),
        ("an unknown kind", unknown.to_vec(), "kind 200"),
        ("data of a stream nobody opened", framed(77, Kind::Stdout, b"x"), "stream 77"),
        ("session frames on the control stream", framed(0, Kind::Stdout, b"x"), "control stream"),
        ("a message without end", parts, "longer than"),
        ("a message of garbage", framed(0, Kind::Message, &[0xff; 40]), "control message"),
        ("an empty message", framed(0, Kind::Message, &[]), "control message"),
    ]
}

#[test]
fn every_breach_of_the_protocol_ends_the_connection_with_its_reason() {
    for (what, bytes, word) in attacks() {
        let mut stage = Stage::greeted();
        // The port may be closed before everything is written.
        let _ = stage.guest.write_all(&bytes);
        let reason = stage.broken();
        assert!(reason.contains(word), "{what}: {reason}");
    }
}

#[test]
fn breaches_within_a_session_end_the_connection_too() {
    let oversized = encode(&ExitStatus::Code(1)).repeat(3);
    let attacks: Vec<(&str, Kind, Vec<u8>, &str)> = vec![
        ("input in the wrong direction", Kind::Stdin, vec![1], "does not come from a guest"),
        ("credit that was never spent", Kind::Credit, 1u32.to_le_bytes().to_vec(), "more credit"),
        ("credit of three bytes", Kind::Credit, vec![0; 3], "malformed"),
        ("a status with bytes behind it", Kind::Exit, oversized, "behind its end"),
        ("a start without process id", Kind::Started, vec![], "malformed"),
    ];
    for (what, kind, payload, word) in attacks {
        let mut stage = Stage::greeted();
        let (stream, mut client) = stage.open();
        stage.frame(stream, kind, &payload);
        let reason = stage.broken();
        assert!(reason.contains(word), "{what}: {reason}");
        assert!(is_closed(&mut client), "{what}");
    }
}

#[test]
fn output_beyond_the_window_is_a_breach() {
    let mut stage = Stage::greeted();
    let (stream, _client) = stage.open();
    let chunk = vec![b'x'; MAX_PAYLOAD];
    let mut bytes = Vec::new();
    for _ in 0..(2 * WINDOW as usize / MAX_PAYLOAD) {
        push_frame(&mut bytes, stream, Kind::Stdout, &chunk);
    }
    let mut guest = stage.guest.try_clone().expect("cloned");
    std::thread::spawn(move || guest.write_all(&bytes));
    assert!(stage.broken().contains("more than it was allowed"));
}

#[test]
fn an_exit_said_twice_is_a_breach() {
    let mut stage = Stage::greeted();
    let (stream, _client) = stage.open();
    stage.frame(stream, Kind::Exit, &encode(&ExitStatus::Code(0)));
    assert!(matches!(stage.report(), Report::Ended { .. }));
    stage.frame(stream, Kind::Exit, &encode(&ExitStatus::Code(0)));
    assert!(stage.broken().contains("does not exist"));
}

#[test]
fn what_costs_no_credit_is_said_once() {
    for kind in [Kind::Started, Kind::Stdout, Kind::Stderr] {
        let mut stage = Stage::greeted();
        let (stream, _client) = stage.open();
        let payload = if kind == Kind::Started { vec![1, 0, 0, 0] } else { vec![] };
        for _ in 0..2 {
            stage.frame(stream, kind, &payload);
        }
        assert!(stage.broken().contains("was said before"), "{kind:?}");
    }
    let mut stage = Stage::greeted();
    let (stream, _client) = stage.open();
    stage.say(&hello(PROTOCOL_VERSION));
    assert!(stage.broken().contains("Hello twice"), "{stream}");
}

#[test]
fn frames_of_one_byte_cannot_outgrow_the_window() {
    let mut stage = Stage::greeted();
    let (stream, client) = stage.open();
    let mut frames = Vec::new();
    for _ in 0..WINDOW as usize {
        push_frame(&mut frames, stream, Kind::Stdout, b"x");
    }
    let mut guest = stage.guest.try_clone().expect("cloned");
    let writer = std::thread::spawn(move || {
        let _ = guest.write_all(&frames);
    });
    // The client reads a little and stops; credit for what stays queued must not come back.
    let mut some = vec![0; 64 * 1024];
    (&client).read_exact(&mut some).expect("output");
    writer.join().expect("taken");
    stage.guest.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
    let mut credit = 0;
    let mut bytes = [0; 12];
    while stage.guest.read_exact(&mut bytes).is_ok() {
        credit += u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    }
    let limit = WINDOW / 2;
    assert!(credit <= limit, "{credit} of {WINDOW} bytes came back though most are queued");
}

#[test]
fn an_agent_that_comes_back_at_the_end_of_a_frame_needs_no_other_sign() {
    let mut stage = Stage::greeted();
    let (stream, mut client) = stage.open();
    stage.connect(1234);
    stage.say(&hello(PROTOCOL_VERSION));
    assert_eq!(stage.report(), Report::Ended { stream, status: None });
    assert!(matches!(stage.report(), Report::Hello { .. }));
    assert!(is_closed(&mut client));
}

#[test]
fn a_flood_of_messages_is_a_breach() {
    let stage = Stage::greeted();
    let mut bytes = Vec::new();
    for _ in 0..50_000 {
        push_message(&mut bytes, &FromGuest::Log { text: "x".into() }).expect("fits");
    }
    let mut guest = stage.guest.try_clone().expect("cloned");
    std::thread::spawn(move || guest.write_all(&bytes));
    assert!(stage.broken().contains("floods"));
}

#[test]
fn an_agent_of_another_version_is_named() {
    let mut stage = Stage::new();
    stage.connect(1);
    stage.say(&hello(PROTOCOL_VERSION + 1));
    let reason = stage.broken();
    assert!(reason.contains(&format!("version {}", PROTOCOL_VERSION + 1)), "{reason}");
}

#[test]
fn nothing_before_the_hello_is_believed() {
    let mut stage = Stage::new();
    stage.connect(1);
    stage.say(&FromGuest::Ready);
    assert!(stage.broken().contains("not Hello"));
    let mut stage = Stage::new();
    stage.connect(1);
    stage.frame(1, Kind::Stdout, b"x");
    assert!(stage.broken().contains("before its Hello"));
}

#[test]
fn a_guest_that_never_begins_a_connection_is_only_noise() {
    let mut stage = Stage::new();
    for _ in 0..64 {
        stage.send(&vec![0x5a; MAX_PAYLOAD]);
    }
    stage.connect(3);
    stage.say(&hello(PROTOCOL_VERSION));
    assert!(matches!(stage.report(), Report::Hello { .. }));
}

#[test]
fn orders_that_do_not_fit_a_datagram_travel_all_the_same() {
    let mut stage = Stage::greeted();
    let mut big = session();
    big.argv = vec![vec![b'a'; 300_000]];
    let (_ours, theirs) = UnixStream::pair().expect("a pair");
    stage.order(&Order::Open { stream: 1, session: big.clone() }, Some(theirs.into()));
    let mut assembler = Assembler::default();
    loop {
        let (stream, kind, payload) = stage.guest_frame();
        let frame = casemate_wire::Frame { stream, kind, payload: &payload };
        if let Some(message) = assembler.take::<FromHost>(frame).expect("a message") {
            assert_eq!(message, FromHost::Open { stream: 1, session: big });
            break;
        }
    }
}

#[test]
fn the_end_of_the_supervisor_is_seen_on_the_orders_socket() {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .expect("a pair");
    drop(theirs);
    assert!(matches!(orders::receive_order(ours.as_fd()), Err(OrderError::Closed)));
}
