//! A link process in a thread, between a made-up guest, clients and a supervisor.

#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use casemate_link::orders::{self, Order, Report};
use casemate_link::{Descriptors, Relay};
use casemate_wire::message::push_message;
use casemate_wire::preamble::{FROM_GUEST, FROM_HOST};
use casemate_wire::{
    Decoder, FromGuest, FromHost, Kind, OpenSession, PROTOCOL_VERSION, encode_header, preamble,
    push_frame,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A relay in a thread, with the other ends of its descriptors.
pub struct Stage {
    pub guest: UnixStream,
    pub guest_decoder: Decoder,
    pub console: UnixStream,
    pub supervisor: OwnedFd,
    pub log: File,
    pub next_stream: u32,
}

impl Stage {
    pub fn new() -> Self {
        let (port, guest) = UnixStream::pair().expect("a pair");
        let (console_end, console) = UnixStream::pair().expect("a pair");
        let flags = SockFlag::SOCK_CLOEXEC;
        let (orders, supervisor) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a pair");
        let orders_file = UnixStream::from(orders);
        orders_file.set_nonblocking(true).expect("non-blocking");
        let log = tempfile::tempfile().expect("a file");
        let descriptors = Descriptors {
            port: port.into(),
            console: console_end.into(),
            orders: orders_file.into(),
            log: log.try_clone().expect("cloned"),
        };
        std::thread::spawn(move || {
            Relay::new(descriptors).expect("a relay").run().expect("ran to its end");
        });
        for stream in [&guest, &console] {
            stream.set_read_timeout(Some(PATIENCE)).expect("set");
            stream.set_write_timeout(Some(PATIENCE)).expect("set");
        }
        let timeout = nix::sys::time::TimeVal::new(PATIENCE.as_secs() as i64, 0);
        nix::sys::socket::setsockopt(
            &supervisor,
            nix::sys::socket::sockopt::ReceiveTimeout,
            &timeout,
        )
        .expect("set");
        let guest_decoder = Decoder::new();
        Self { guest, guest_decoder, console, supervisor, log, next_stream: 1 }
    }

    /// A guest that has said Hello.
    pub fn greeted() -> Self {
        let mut stage = Self::new();
        stage.connect(7);
        stage.say(&hello(PROTOCOL_VERSION));
        assert!(matches!(stage.report(), Report::Hello { .. }));
        stage
    }

    /// Does the preamble, as the agent does.
    pub fn connect(&mut self, nonce: u64) {
        self.send(&preamble::encode(FROM_GUEST, nonce));
        let mut answer = [0; preamble::LEN];
        self.guest.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, preamble::encode(FROM_HOST, nonce));
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.guest.write_all(bytes).expect("the port takes it");
    }

    pub fn say(&mut self, message: &FromGuest) {
        let mut bytes = Vec::new();
        push_message(&mut bytes, message).expect("fits");
        self.send(&bytes);
    }

    pub fn frame(&mut self, stream: u32, kind: Kind, payload: &[u8]) {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, stream, kind, payload);
        self.send(&bytes);
    }

    /// The next frame the guest receives.
    pub fn guest_frame(&mut self) -> (u32, Kind, Vec<u8>) {
        loop {
            if let Some(frame) = self.guest_decoder.next_frame().expect("frames") {
                return (frame.stream, frame.kind, frame.payload.to_vec());
            }
            let count = self.guest.read(self.guest_decoder.space()).expect("readable");
            assert!(count > 0, "the port was closed");
            self.guest_decoder.filled(count);
        }
    }

    pub fn order(&self, order: &Order, descriptor: Option<OwnedFd>) {
        let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
        orders::send(self.supervisor.as_fd(), order, &descriptors).expect("taken");
    }

    pub fn report(&self) -> Report {
        orders::receive_report(self.supervisor.as_fd()).expect("a report")
    }

    /// The reason the guest was given up for, whatever is reported before.
    pub fn broken(&self) -> String {
        loop {
            if let Report::Broken { reason } = self.report() {
                return reason;
            }
        }
    }

    /// Opens a session; returns its stream and the client's socket.
    pub fn open(&mut self) -> (u32, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let stream = self.next_stream;
        self.next_stream += 1;
        self.order(&Order::Open { stream, session: session() }, Some(theirs.into()));
        let (number, kind, payload) = self.guest_frame();
        assert_eq!((number, kind), (0, Kind::Message));
        let message: FromHost = casemate_wire::decode(&payload).expect("a message");
        assert!(matches!(message, FromHost::Open { stream: opened, .. } if opened == stream));
        ours.set_read_timeout(Some(PATIENCE)).expect("set");
        (stream, ours)
    }
}

pub fn session() -> Box<OpenSession> {
    Box::new(OpenSession {
        argv: vec![b"true".to_vec()],
        environment: vec![],
        cwd: None,
        user: None,
        terminal: None,
        detached: false,
        service: None,
    })
}

pub fn hello(protocol: u16) -> FromGuest {
    FromGuest::Hello {
        protocol,
        version: "1".into(),
        features: vec![],
        kernel: "6.12".into(),
        booted: false,
    }
}

/// The next frame on a client's socket.
pub fn client_frame(client: &mut UnixStream) -> (Kind, Vec<u8>) {
    let mut header = [0; 8];
    client.read_exact(&mut header).expect("a header");
    let length = u32::from_le_bytes([header[5], header[6], header[7], 0]) as usize;
    let mut payload = vec![0; length];
    client.read_exact(&mut payload).expect("a payload");
    (Kind::from_u8(header[4]).expect("a kind"), payload)
}

pub fn give(client: &mut UnixStream, kind: Kind, payload: &[u8]) {
    client.write_all(&encode_header(0, kind, payload.len())).expect("taken");
    client.write_all(payload).expect("taken");
}

pub fn is_closed(client: &mut UnixStream) -> bool {
    matches!(client.read(&mut [0]), Ok(0))
        || matches!(client.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}
