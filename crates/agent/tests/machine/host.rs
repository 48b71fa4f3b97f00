//! The host's side of the protocol: plain, one connection, everything kept in memory.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use casemate_wire::message::{Assembler, push_message};
use casemate_wire::{
    Decoder, ExitStatus, FromGuest, FromHost, Kind, OpenSession, Receiver, Sender, TerminalSize,
    decode, preamble, push_frame,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// One session as the host sees it.
#[derive(Default)]
pub struct Stream {
    pub started: Option<u32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub stdout_closed: bool,
    pub stderr_closed: bool,
    pub exit: Option<ExitStatus>,
    /// Bytes received, also when they are not kept.
    pub received: u64,
    /// Gives no credit back: a client that does not read.
    pub stalled: bool,
    /// Counts bytes only.
    pub forget: bool,
    to_send: VecDeque<u8>,
    end_input: bool,
    credit: Sender,
    held: Receiver,
}

/// A connection to the agent.
pub struct Host {
    socket: Option<UnixStream>,
    decoder: Decoder,
    hunter: Option<preamble::Hunter>,
    assembler: Assembler,
    out: Vec<u8>,
    sent: usize,
    messages: VecDeque<FromGuest>,
    pub streams: BTreeMap<u32, Stream>,
    next: u32,
}

impl Host {
    /// Nobody is at the other end.
    pub fn unconnected() -> Self {
        Self {
            socket: None,
            decoder: Decoder::new(),
            hunter: Some(preamble::Hunter::for_host()),
            assembler: Assembler::default(),
            out: Vec::new(),
            sent: 0,
            messages: VecDeque::new(),
            streams: BTreeMap::new(),
            next: 1,
        }
    }

    /// A new connection over this socket.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some(socket), ..Self::unconnected() })
    }

    /// Waits for the agent's first message; returns whether the guest is set up already.
    pub fn wait_for_hello(&mut self) -> bool {
        match self.message(Duration::from_secs(60)) {
            Some(FromGuest::Hello { booted, protocol, .. }) => {
                assert_eq!(protocol, casemate_wire::PROTOCOL_VERSION);
                booted
            }
            other => panic!("not a hello: {other:?}"),
        }
    }

    /// Queues a control message.
    pub fn send(&mut self, message: &FromHost) {
        push_message(&mut self.out, message).expect("short enough");
    }

    /// Looks for the agent's preamble again, on the same socket.
    pub fn forget_connection(&mut self) {
        self.decoder = Decoder::new();
        self.assembler = Assembler::default();
        self.hunter = Some(preamble::Hunter::for_host());
        self.messages.clear();
        self.streams.clear();
    }

    /// Asks an agent that may be in the middle of another connection to begin a new one.
    pub fn knock(&mut self) {
        self.send_raw(&preamble::knock());
    }

    /// Queues any bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Opens a session on the next stream.
    pub fn open(&mut self, session: OpenSession) -> u32 {
        let stream = self.next;
        self.next += 1;
        self.streams.insert(stream, Stream::default());
        self.send(&FromHost::Open { stream, session: Box::new(session) });
        stream
    }

    /// Queues standard input.
    pub fn input(&mut self, stream: u32, bytes: &[u8]) {
        self.stream(stream).to_send.extend(bytes);
    }

    /// Ends standard input behind what is queued.
    pub fn end_input(&mut self, stream: u32) {
        self.stream(stream).end_input = true;
    }

    pub fn resize(&mut self, stream: u32, size: TerminalSize) {
        push_frame(&mut self.out, stream, Kind::Resize, &size.encode());
    }

    pub fn signal(&mut self, stream: u32, signal: u8) {
        push_frame(&mut self.out, stream, Kind::Signal, &[signal]);
    }

    pub fn hang_up(&mut self, stream: u32) {
        push_frame(&mut self.out, stream, Kind::HangUp, &[]);
    }

    pub fn stream(&mut self, stream: u32) -> &mut Stream {
        self.streams.get_mut(&stream).expect("opened before")
    }

    /// The next control message of the guest; none after that time.
    pub fn message(&mut self, patience: Duration) -> Option<FromGuest> {
        self.run_until(patience, |host| !host.messages.is_empty());
        self.messages.pop_front()
    }

    /// Runs the connection until `done`; returns whether that came in time.
    pub fn run_until(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + patience;
        while !done(self) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.step(left.min(Duration::from_millis(100)));
        }
        true
    }

    /// Runs until the session has ended, and takes it.
    pub fn wait_for_exit(&mut self, stream: u32) -> Stream {
        let ended = self.run_until(Duration::from_secs(120), |host| {
            host.streams.get(&stream).is_some_and(|stream| stream.exit.is_some())
        });
        assert!(ended, "stream {stream} did not end");
        self.streams.remove(&stream).expect("is there")
    }

    /// Opens a session, gives it input, and takes it when it has ended.
    pub fn run(&mut self, session: OpenSession, input: &[u8]) -> Stream {
        let stream = self.open(session);
        self.input(stream, input);
        self.end_input(stream);
        self.wait_for_exit(stream)
    }

    fn step(&mut self, wait: Duration) {
        self.queue_input();
        let Some(socket) = &mut self.socket else { return std::thread::sleep(wait) };
        let mut flags = PollFlags::POLLIN;
        if self.sent < self.out.len() {
            flags |= PollFlags::POLLOUT;
        }
        let mut fds = [PollFd::new(socket.as_fd(), flags)];
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        poll(&mut fds, timeout).expect("poll");
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        if events.contains(PollFlags::POLLOUT) {
            match socket.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.socket = None,
            }
            if self.sent == self.out.len() {
                self.out.clear();
                self.sent = 0;
            }
        }
        if events.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
            self.receive();
        }
    }

    fn receive(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        if let Some(hunter) = &mut self.hunter {
            let mut bytes = [0; 4096];
            match socket.read(&mut bytes) {
                Ok(0) => self.socket = None,
                Ok(count) => {
                    if let Some((nonce, used)) = hunter.feed(&bytes[..count]) {
                        self.hunter = None;
                        self.decoder.push(&bytes[used..count]);
                        self.out.extend_from_slice(&preamble::encode(preamble::FROM_HOST, nonce));
                    }
                }
                Err(_) => {}
            }
        } else {
            match socket.read(self.decoder.space()) {
                Ok(0) => self.socket = None,
                Ok(count) => self.decoder.filled(count),
                Err(_) => {}
            }
        }
        while let Some(frame) = self.decoder.next_frame().expect("the agent sends frames") {
            if frame.stream == 0 {
                let message = self.assembler.take(frame).expect("the agent sends messages");
                self.messages.extend(message);
                continue;
            }
            let id = frame.stream;
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            assert!(stream.exit.is_none(), "a {:?} frame after the exit", frame.kind);
            match frame.kind {
                Kind::Started => stream.started = Some(frame.pid().expect("a pid")),
                Kind::Stdout | Kind::Stderr => {
                    assert!(stream.started.is_some() || frame.payload.is_empty());
                    let out = frame.kind == Kind::Stdout;
                    match (frame.payload, out) {
                        ([], true) => stream.stdout_closed = true,
                        ([], false) => stream.stderr_closed = true,
                        _ if stream.forget => {}
                        (bytes, true) => stream.stdout.extend_from_slice(bytes),
                        (bytes, false) => stream.stderr.extend_from_slice(bytes),
                    }
                    stream.received += frame.payload.len() as u64;
                    stream.held.received(frame.payload.len()).expect("within the window");
                    if !stream.stalled {
                        stream.held.passed_on(frame.payload.len());
                        if let Some(credit) = stream.held.give_back() {
                            push_frame(&mut self.out, id, Kind::Credit, &credit.to_le_bytes());
                        }
                    }
                }
                Kind::Credit => {
                    stream.credit.returned(frame.credit().expect("credit")).expect("was spent");
                }
                Kind::Exit => stream.exit = Some(decode(frame.payload).expect("an exit status")),
                other => panic!("a frame of kind {other:?} from the guest"),
            }
        }
    }

    /// Moves what sessions have to send into frames, as far as there is credit, a chunk of each.
    fn queue_input(&mut self) {
        for (id, stream) in &mut self.streams {
            if self.out.len() - self.sent > 256 * 1024 {
                return;
            }
            let (front, _) = stream.to_send.as_slices();
            let count = front.len().min(stream.credit.available()).min(32 * 1024);
            if count > 0 {
                push_frame(&mut self.out, *id, Kind::Stdin, &front[..count]);
                stream.to_send.drain(..count);
                stream.credit.spend(count);
            }
            if stream.to_send.is_empty() && stream.end_input {
                push_frame(&mut self.out, *id, Kind::Stdin, &[]);
                stream.end_input = false;
            }
        }
    }
}

/// A session of these arguments, without a terminal.
pub fn session(argv: &[&str]) -> OpenSession {
    OpenSession {
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        environment: Vec::new(),
        cwd: None,
        user: None,
        terminal: None,
        detached: false,
        service: None,
    }
}
