//! The agent itself: its loop, and what it does about each control message.
//!
//! ```text
//!            Boot: set up         Shutdown, signal, reboot(8)
//! Waiting ─────────────────▶ Up ─────────────────────────────▶ Stopping ──▶ machine reset
//!    └──── set-up failed ───────────────────────────────────────▲
//! ```
//!
//! A lost connection changes nothing of this: attached sessions are hung up on, the link greets
//! again, and `Hello` says that the guest is up already.

mod ending;
mod orders;

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use casemate_wire::message::Assembler;
use casemate_wire::{Decoder, FrameError, FromGuest, MessageError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};

use crate::boot;
use crate::calls::Calls;
use crate::console::Console;
use crate::events::{Epoll, Event, Token, Wait};
use crate::freeze::{Freeze, Mounted};
use crate::hold::Hold;
use crate::link::{Link, Received, Skipped};
use crate::log::Log;
use crate::session::Desk;
use crate::session::command::Settings;
use crate::session::table::{Sessions, StreamError};
use crate::shutdown::{self, Shutdown};
use crate::signals::{Request, Signals};
use crate::uevents::Uevents;
use crate::windows::Windows;
use crate::x11::X11;

/// Open files of the agent itself: four for each of 256 sessions, and some.
const OPEN_FILES: u64 = 4096;

/// Chunks of output between two looks at the other descriptors.
const TURNS: usize = 16;

/// Waiting bytes from which on a write is worth its system call.
const WORTH_WRITING: usize = 32 * 1024;

/// As what the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Process 1.
    Init,
    /// Beside another process 1.
    Service,
}

/// Something the connection does not survive.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// The agent.
struct Agent {
    role: Role,
    epoll: Epoll,
    signals: Signals,
    link: Link,
    decoder: Decoder,
    assembler: Assembler,
    sessions: Sessions,
    calls: Calls,
    windows: Windows,
    x11: X11,
    settings: Settings,
    console: Option<Console>,
    uevents: Option<Uevents>,
    volumes: Vec<Mounted>,
    /// Dropping it thaws.
    freeze: Option<Freeze>,
    /// Dropping it lets programs go on.
    hold: Option<Hold>,
    shutdown: Option<Shutdown>,
    /// The guest is set up.
    booted: bool,
    /// A service that shall end.
    leaving: bool,
    log: Log,
    started: Duration,
}

/// Runs as process 1. Returns only when not even a loop can be set up; the kernel stops then.
pub fn run_as_init() -> ExitCode {
    let started = since_boot();
    let mounted = boot::mounts::early();
    let mut log = Log::new();
    if let Err(error) = &mounted {
        log.critical(&error.sentence());
    }
    // SIGINT instead of an immediate reset.
    let _ = nix::sys::reboot::set_cad_enabled(false);
    match Agent::new(Role::Init, log, started) {
        Ok(mut agent) => {
            // The greeting travels while the modules are loaded.
            let early = agent.link.open(&agent.epoll).unwrap_or(false);
            boot::modules::load_all(&mut agent.log);
            if !early {
                agent.wait_for_port();
            }
            agent.run()
        }
        Err(error) => {
            Log::new().critical(&format!("could not start: {error}"));
            shutdown::reset();
            ExitCode::FAILURE
        }
    }
}

/// Runs beside another init, in a guest that is set up. Ends with SIGTERM.
pub fn run_as_service() -> ExitCode {
    match Agent::new(Role::Service, Log::new(), since_boot()) {
        Ok(mut agent) => {
            agent.booted = true;
            agent.settings.default_user = "root".to_owned();
            agent.sessions.use_cgroups();
            agent.run()
        }
        Err(error) => {
            eprintln!("casemate-agent: could not start: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Agent {
    fn new(role: Role, log: Log, started: Duration) -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            // A lower limit only means fewer sessions.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(hard), hard);
        }
        let epoll = Epoll::new()?;
        let signals = Signals::new()?;
        epoll.add_read(&signals, Token::SIGNALS)?;
        Ok(Self {
            role,
            epoll,
            signals,
            link: Link::new(),
            decoder: Decoder::new(),
            assembler: Assembler::default(),
            sessions: Sessions::new(null.into()),
            calls: Calls::default(),
            windows: Windows::default(),
            x11: X11::default(),
            settings: Settings::default(),
            console: None,
            uevents: None,
            volumes: Vec::new(),
            freeze: None,
            hold: None,
            shutdown: None,
            booted: false,
            leaving: false,
            log,
            started,
        })
    }

    /// The loop tries every half second; the first moments are worth a closer look.
    fn wait_for_port(&mut self) {
        for _ in 0..500 {
            match self.link.open(&self.epoll) {
                Ok(true) => return,
                Ok(false) => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => {
                    return self.log.critical(&format!("could not open the port: {error}"));
                }
            }
        }
        self.log.critical("the machine has no port for the link");
    }

    /// The loop. As process 1 it ends with the machine.
    fn run(&mut self) -> ExitCode {
        loop {
            match self.serve() {
                Ok(never) => match never {},
                Err(_) if self.leaving => return ExitCode::SUCCESS,
                // Nothing known leads here; a process 1 goes on as well as it can.
                Err(error) => {
                    self.log.critical(&format!("could not wait for events: {error}"));
                    if self.role == Role::Service {
                        return ExitCode::FAILURE;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn serve(&mut self) -> io::Result<Infallible> {
        let mut events: Vec<Event> = Vec::with_capacity(64);
        while !self.leaving {
            self.epoll.wait(self.wait(), &mut events)?;
            for event in events.drain(..) {
                match event.token {
                    Token::PORT => self.link.event(&self.epoll),
                    Token::SIGNALS => self.take_signals(),
                    Token::UEVENTS => self.take_uevents(),
                    Token::FREEZE => self.hear_freeze(),
                    Token::CALLS => self.calls.accept(&self.epoll),
                    Token::DISPLAY => self.show_windows(),
                    Token::X11 => self.show_x11(),
                    Token::WINDOWS => {
                        let up = self.link.is_up();
                        self.windows.accept(up.then_some(&mut self.link.out));
                    }
                    token => {
                        if let Some(call) = token.as_caller() {
                            let up = self.link.is_up();
                            self.calls.hear(call, up.then_some(&mut self.link.out));
                        }
                        if let Some((id, channel)) = token.as_session() {
                            let mut at = Desk { epoll: &self.epoll, outbox: &mut self.link.out };
                            self.sessions.event(id, channel, event.hung_up, &mut at);
                        }
                    }
                }
            }
            if self.link.readable {
                self.receive();
            }
            self.take_turns();
            self.tick();
            self.report();
            self.link.flush(&self.epoll);
        }
        Err(io::Error::other("asked to leave"))
    }

    /// How long nothing needs to be done.
    fn wait(&self) -> Wait {
        if self.link.readable || self.sessions.has_turns() && self.link.out.has_room() {
            return Wait::Not;
        }
        Wait::Forever
            .or_until(self.link.deadline())
            .or_until(self.sessions.deadline())
            .or_until(self.console.as_ref().and_then(Console::deadline))
            .or_until(self.shutdown.map(Shutdown::deadline))
            .or_until(self.hold.as_ref().map(Hold::deadline))
    }

    /// Reads from the link and does what the frames say.
    fn receive(&mut self) {
        match self.link.receive(&mut self.decoder) {
            Received::Nothing => return,
            Received::Bytes => {}
            Received::Connected => {
                self.hello();
                self.use_the_wait();
            }
            Received::Lost => return self.lose_connection("the host closed the link"),
        }
        loop {
            match self.take_frame() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => match self.skip_repeated_answer(&error) {
                    Skipped::Whole => {}
                    Skipped::NotYet => return,
                    Skipped::Nothing => {
                        self.link.restart();
                        return self.lose_connection(&error.to_string());
                    }
                },
            }
        }
    }

    fn skip_repeated_answer(&mut self, error: &ConnectionError) -> Skipped {
        match error {
            ConnectionError::Frame(FrameError::UnknownKind(_)) => {
                self.link.skip_repeated_answer(&mut self.decoder)
            }
            _ => Skipped::Nothing,
        }
    }

    /// Takes the next frame. False when there is none.
    fn take_frame(&mut self) -> Result<bool, ConnectionError> {
        let Some(frame) = self.decoder.next_frame()? else { return Ok(false) };
        if frame.stream != 0 {
            let mut at = Desk { epoll: &self.epoll, outbox: &mut self.link.out };
            self.sessions.frame(frame, &mut at)?;
            return Ok(true);
        }
        if let Some(message) = self.assembler.take(frame)? {
            self.obey(message)?;
        }
        Ok(true)
    }

    fn lose_connection(&mut self, reason: &str) {
        self.log.info(&format!("the connection to the host ended: {reason}"));
        self.sessions.abandon();
        self.calls.abandon();
        self.windows.abandon();
        self.freeze = None;
        self.decoder = Decoder::new();
        self.assembler = Assembler::default();
    }

    fn take_signals(&mut self) {
        while let Some(request) = self.signals.next() {
            match (request, self.role) {
                (Request::Reap, _) => self.reap(),
                (Request::Stop, Role::Init) => self.stop(),
                (Request::Stop, Role::Service) => {
                    self.sessions.abandon();
                    self.leaving = true;
                }
            }
        }
    }

    /// Passes on that a block of the root does not verify; the kernel says which a hundred times at
    /// most.
    fn take_uevents(&mut self) {
        if let Some(block) = self.uevents.as_ref().and_then(Uevents::damaged_block)
            && self.link.is_up()
        {
            self.link.out.message(&FromGuest::RootDamaged { block });
        }
    }

    /// Starts what carries windows, when somebody waits for it.
    fn show_windows(&mut self) {
        match self.windows.asked(&self.settings) {
            Ok(Some(news)) if self.link.is_up() => self.link.out.message(&news),
            Ok(_) => {}
            Err(problem) => self.log.warn(problem),
        }
    }

    /// Starts the X server, when an X11 program waits for it.
    fn show_x11(&mut self) {
        match self.x11.asked(&self.settings, &self.epoll) {
            Ok(Some(news)) if self.link.is_up() => self.link.out.message(&news),
            Ok(_) => {}
            Err(problem) => self.log.warn(problem),
        }
    }

    /// Lets sessions send, as far as the link takes it.
    fn take_turns(&mut self) {
        for _ in 0..TURNS {
            let mut at = Desk { epoll: &self.epoll, outbox: &mut self.link.out };
            if !self.sessions.turn(&mut at) {
                break;
            }
            if self.link.out.waiting().len() >= WORTH_WRITING {
                self.link.flush(&self.epoll);
            }
        }
    }

    /// Does what is due at this time.
    fn tick(&mut self) {
        if self.wait() == Wait::Forever {
            return;
        }
        let now = Instant::now();
        self.link.tick(now, &self.epoll);
        let mut at = Desk { epoll: &self.epoll, outbox: &mut self.link.out };
        self.sessions.tick(now, &mut at);
        if let Some(console) = &mut self.console {
            console.tick(now, &self.settings, &mut self.log);
        }
        // The host is gone, or has forgotten them.
        self.hold.take_if(|hold| hold.deadline() <= now);
        if let Some(shutdown) = self.shutdown {
            self.shutdown = shutdown.tick(now);
            if self.shutdown.is_none() {
                self.end();
            }
        }
    }

    /// Sends what the log has for the host.
    fn report(&mut self) {
        if self.link.is_up() {
            for text in self.log.take() {
                self.link.out.message(&FromGuest::Log { text });
            }
        }
    }
}

/// Time since the kernel began.
fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
