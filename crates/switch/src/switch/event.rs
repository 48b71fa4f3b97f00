//! What a switch tells those who run it.

use std::fmt;

use crate::forward::Queue;
use crate::ring::Broken;

/// Something that happened to a port, which is named first.
#[derive(Clone, Debug)]
pub enum Event {
    /// A front-end has connected.
    Connected(String),
    /// It has gone, or was sent away for this reason.
    Disconnected(String, Option<String>),
    /// A ring does what no driver may do, and is not used any more.
    Broken(String, Queue, Broken),
    /// It has sent what no honest guest sends, and is left alone for a while.
    Parked(String),
}

impl Event {
    /// The port's name.
    #[must_use]
    pub fn port(&self) -> &str {
        match self {
            Self::Connected(port) | Self::Parked(port) => port,
            Self::Disconnected(port, _) | Self::Broken(port, ..) => port,
        }
    }

    /// It says that a guest does what it must not, or that somebody was sent away.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::Connected(_) | Self::Disconnected(_, None))
    }

    /// What kind it is, in a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connected(_) => "connected",
            Self::Disconnected(..) => "disconnected",
            Self::Broken(..) => "broken",
            Self::Parked(_) => "parked",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(port) => write!(formatter, "port {port}: connected"),
            Self::Disconnected(port, None) => write!(formatter, "port {port}: disconnected"),
            Self::Disconnected(port, Some(reason)) => {
                write!(formatter, "port {port}: disconnected: {reason}")
            }
            Self::Broken(port, queue, broken) => {
                let queue = match queue {
                    Queue::Receive => "receiving",
                    Queue::Transmit => "transmitting",
                };
                write!(formatter, "port {port}: {queue} ring stopped: {broken}")
            }
            Self::Parked(port) => {
                write!(formatter, "port {port}: left alone for a while, its frames break rules")
            }
        }
    }
}
