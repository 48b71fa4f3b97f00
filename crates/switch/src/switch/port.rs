//! One port: its name and rules, its listening socket, and the front-end that is connected.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::budget::Budget;
use crate::forward::Transmit;
use crate::memory::GuestMemory;
use crate::rules::Binding;
use crate::vhost::{Session, Stream};

/// Messages of a front-end: as many at once as an honest one sends to begin, and again to begin
/// anew, and then so many a second. Mapping memory is what costs most: 2 % of the time.
const MESSAGES: (u32, u32) = (1024, 1000);
/// What a connection costs of that.
pub(crate) const CONNECTION: f64 = 16.0;

/// Frames that no honest guest sends, at once and each second. Then the port is left alone for a
/// while: looking at such frames costs all others time.
const OFFENCES: (u32, u32) = (256, 20_000);

/// Lines about a port in the log, at once and each second.
const LINES: (u32, u32) = (32, 1);

/// Microseconds that a port without buffers may hold up others, at once and each second: a
/// twentieth of the time.
const PATIENCE: (u32, u32) = (2_000, 50_000);

/// What a port is, by configuration.
#[derive(Debug)]
pub struct Settings {
    /// Its name, in messages: that of its socket, or of a compartment.
    pub name: String,
    /// What it may claim to be.
    pub binding: Binding,
    /// Where front-ends connect. Must be listening.
    pub listener: OwnedFd,
    /// The client of the control socket with whom it goes.
    pub(crate) holder: Option<usize>,
}

/// One port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) settings: Settings,
    pub(crate) connection: Option<Connection>,
    pub(crate) state: State,
    pub(crate) messages: Budget,
    pub(crate) offences: Budget,
    pub(crate) patience: Budget,
    pub(crate) lines: Budget,
    /// Nobody could be let in (descriptors are used up): tried again then.
    pub(crate) retry: Option<Instant>,
    /// Others whose next frame waits for this port's buffers, in order.
    pub(crate) waiters: std::collections::VecDeque<usize>,
}

/// A front-end.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) session: Session,
    pub(crate) transmit: Option<Transmit<GuestMemory>>,
    /// What the kicks of the receiving and the transmitting ring are watched by: copies.
    pub(crate) kicks: [Option<OwnedFd>; 2],
    /// It has sent too many messages, and is not listened to until then.
    pub(crate) muted: Option<Instant>,
}

/// What becomes of the frames of a port next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// Nothing, before a kick.
    Idle,
    /// It is its turn now and then. Its ring was found empty at that time, first.
    Active(Option<Instant>),
    /// Its next frame waits for buffers of another port.
    Waiting {
        /// Which.
        on: usize,
        /// Since when.
        since: Instant,
        /// Until when at most; then it is looked at anew.
        until: Instant,
    },
    /// It has sent what no honest guest sends, and is left alone until then.
    Parked(Instant),
}

impl Settings {
    /// Of a port that stays.
    #[must_use]
    pub fn new(name: String, binding: Binding, listener: OwnedFd) -> Self {
        Self { name, binding, listener, holder: None }
    }
}

impl Port {
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        let budget = |(most, each_second)| Budget::new(most, each_second, now);
        Self {
            settings,
            connection: None,
            state: State::Idle,
            messages: budget(MESSAGES),
            offences: budget(OFFENCES),
            patience: budget(PATIENCE),
            lines: budget(LINES),
            retry: None,
            waiters: Default::default(),
        }
    }
}
