//! The switch: ports, whose turn it is, and what wakes it.
//!
//! One thread and no lock. Ports with frames take turns (`schedule`); between turns descriptors
//! are looked at (`watch`), front-ends answered (`connect`) and questions of a supervisor
//! ([`control`](crate::control)). When no ring has a frame and none has come while looking twice,
//! all rings are armed and the process sleeps.
//!
//! ```text
//!            kick            frames             nothing for a while
//!   Idle ──────────▶ Active ────────▶ Active ───────────────────────▶ Idle
//!                     │  ▲ ▲
//!    receiver is full │  │ └── time is over ── Parked ◀── too many offences ── Active
//!                     ▼  │ there is room, or waited long enough
//!                    Waiting
//! ```

mod budget;
mod connect;
mod event;
mod port;
mod schedule;
mod watch;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

pub use event::Event;
use port::Port;
pub use port::Settings;
pub(crate) use watch::Source;
use watch::Watch;

use crate::control::Control;
use crate::forward::Fabric;
use crate::memory::{GuestMemory, fault};
use crate::ring::call::Caller;
use crate::rules::{MAX_PORTS, Role, Table};

/// How a switch behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// How long to look for frames before sleeping.
    pub spin: Duration,
    /// Whether memory is taken that can shrink.
    pub allow_unsealed: bool,
    /// Whether a port's frames may be recorded.
    pub allow_capture: bool,
    /// Whether it ends when the last client of its control socket has gone.
    pub end_with_clients: bool,
}

/// Why a switch cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The kernel refuses something.
    #[error("could not {0}")]
    System(&'static str, #[source] Errno),
    /// Signals cannot be sent to guests.
    #[error("could not prepare for signalling guests (io_setup)")]
    Caller(#[source] std::io::Error),
    /// A port cannot be added.
    #[error("could not add port `{name}`: {reason}")]
    Port {
        /// Its name.
        name: String,
        /// Why.
        reason: &'static str,
    },
}

/// How long rings are looked at again and again before sleeping, in any case: about as long as
/// going to sleep and being woken takes.
const LINGER: Duration = Duration::from_micros(10);

/// How often descriptors are looked at while there are frames.
const LOOK: Duration = Duration::from_micros(50);

/// A switch.
#[derive(Debug)]
pub struct Switch {
    behaviour: Behaviour,
    pub(crate) fabric: Fabric<GuestMemory>,
    pub(crate) ports: Vec<Option<Port>>,
    pub(crate) watch: Watch,
    caller: Caller,
    pub(crate) control: Control,
    /// Only to be closed at the end.
    _signals: SignalFd,
    /// Ports whose turn it will be.
    active: VecDeque<usize>,
    /// Ports that others wait for.
    congested: Vec<usize>,
    /// When something happened last.
    busy: Instant,
    /// When descriptors were looked at last.
    looked: Instant,
    /// Losses of memory that are dealt with.
    losses: usize,
    events: Vec<Event>,
}

/// Lets this process have as many descriptors as it may: a port has ten or so, and the usual limit
/// of 1024 is for programs that use select(2). Where it is refused, fewer ports can be connected.
fn allow_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

impl Switch {
    /// A switch without ports. Blocks SIGTERM and SIGINT, which end it.
    ///
    /// # Errors
    /// The kernel refuses something.
    pub fn new(behaviour: Behaviour) -> Result<Self, SwitchError> {
        let system = |what| move |error| SwitchError::System(what, error);
        let watch = Watch::new().map_err(system("watch descriptors"))?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block().map_err(system("block signals"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags).map_err(system("watch signals"))?;
        watch.add(signals.as_fd(), Source::Signal).map_err(system("watch signals"))?;
        allow_descriptors();
        let now = Instant::now();
        Ok(Self {
            behaviour,
            fabric: Fabric::default(),
            ports: Vec::new(),
            watch,
            caller: Caller::new().map_err(SwitchError::Caller)?,
            control: Control::new(behaviour.allow_capture),
            _signals: signals,
            active: VecDeque::new(),
            congested: Vec::new(),
            busy: now,
            looked: now,
            losses: fault::losses(),
            events: Vec::new(),
        })
    }

    /// Adds a port. Says its number.
    ///
    /// # Errors
    /// There are too many, or its name, its address or its role is taken.
    pub fn add_port(&mut self, settings: Settings) -> Result<usize, SwitchError> {
        let refuse = |reason| SwitchError::Port { name: settings.name.clone(), reason };
        for port in self.ports.iter().flatten() {
            let other = &port.settings;
            if other.name == settings.name {
                return Err(refuse("its name is taken"));
            }
            if other.binding.mac == settings.binding.mac {
                return Err(refuse("its MAC address is taken"));
            }
            if (other.binding.role, settings.binding.role) == (Role::Router, Role::Router) {
                return Err(refuse("there is a router"));
            }
        }
        let number = match self.ports.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.ports.len() < MAX_PORTS => {
                self.ports.push(None);
                self.fabric.receivers.push(None);
                self.fabric.counters.push(Default::default());
                self.ports.len() - 1
            }
            None => return Err(refuse("there are 256 ports")),
        };
        self.watch
            .add(settings.listener.as_fd(), Source::Listener(number))
            .map_err(|_| refuse("its socket cannot be watched"))?;
        self.fabric.counters[number] = Default::default();
        self.ports[number] = Some(Port::new(settings, Instant::now()));
        self.set_table();
        Ok(number)
    }

    /// Removes the ports that a client of the control socket has added for as long as it is there.
    pub(crate) fn remove_held(&mut self, client: usize) {
        for number in 0..self.ports.len() {
            let port = self.ports[number].as_ref();
            if port.is_some_and(|port| port.settings.holder == Some(client)) {
                self.remove_port(number);
            }
        }
    }

    /// The last client has gone and nobody waits to be one.
    fn is_deserted(&mut self) -> bool {
        if !self.behaviour.end_with_clients || !self.control.is_deserted() {
            return false;
        }
        self.control_accept();
        self.control.is_deserted()
    }

    /// Removes a port and its connection.
    pub(crate) fn remove_port(&mut self, number: usize) {
        self.disconnect(number, None);
        if let Some(port) = self.ports[number].take() {
            self.watch.remove(port.settings.listener.as_fd());
        }
        if self.fabric.recorded == Some(number) {
            self.fabric.recorded = None;
            self.control.stop_capture();
        }
        self.set_table();
    }

    fn set_table(&mut self) {
        let ports = self.ports.iter().enumerate().filter_map(|(number, port)| {
            let binding = &port.as_ref()?.settings.binding;
            Some((number, binding.role, binding.mac))
        });
        self.fabric.table = Table::new(ports);
    }

    /// Works until it is told to end, and tells what happens.
    ///
    /// # Errors
    /// The kernel refuses to wait for events.
    pub fn run(&mut self, mut tell: impl FnMut(&Event)) -> Result<(), SwitchError> {
        loop {
            let mut now = Instant::now();
            if self.active.is_empty() || now.saturating_duration_since(self.looked) >= LOOK {
                let timeout = self.timeout(now);
                let happened = self.watch.wait(timeout);
                let happened = happened
                    .map_err(|error| SwitchError::System("wait for something to do", error))?;
                now = Instant::now();
                self.looked = now;
                for (source, end) in happened {
                    if source == Source::Signal {
                        return Ok(());
                    }
                    self.handle(source, end, now);
                }
                self.time_out(now);
                if self.is_deserted() {
                    return Ok(());
                }
            }
            self.pass(now);
            for event in self.events.drain(..) {
                self.control.tell(&event);
                tell(&event);
            }
        }
    }

    fn handle(&mut self, source: Source, end: bool, now: Instant) {
        match source {
            Source::Signal => {}
            Source::Listener(port) => self.accept(port, now),
            Source::Socket(port) => self.converse(port, end, now),
            Source::Kick(port, _) => self.kicked(port),
            Source::Control => self.control_accept(),
            Source::Client(client) => self.control_answer(client),
        }
    }

    /// Something about a port, unless there is too much of it.
    fn event(&mut self, port: usize, now: Instant, event: impl FnOnce(String) -> Event) {
        if let Some(port) = self.ports.get_mut(port).and_then(Option::as_mut)
            && port.lines.left_at(now) >= 1.0
        {
            port.lines.spend(1.0, now);
            self.events.push(event(port.settings.name.clone()));
        }
    }
}
