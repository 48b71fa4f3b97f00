//! Front-ends: they connect, say what they want, and go.

use std::error::Error;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{SockFlag, accept4};

use super::Switch;
use super::event::Event;
use super::port::{CONNECTION, Connection, State};
use super::watch::Source;
use crate::descriptor;
use crate::forward::Queue;
use crate::ring::Broken;
use crate::vhost::{Change, Session, Stream};

/// Messages that are answered before it is somebody else's turn.
const MESSAGES: usize = 16;

/// How long a front-end is not listened to that has sent too many messages.
const MUTE: Duration = Duration::from_millis(16);

/// How long nobody is let in when nobody could be.
const RETRY: Duration = Duration::from_millis(200);

impl Switch {
    /// Somebody wants to connect. One front-end at a time: others wait in the socket's queue.
    pub(super) fn accept(&mut self, number: usize, now: Instant) {
        let Some(Some(port)) = self.ports.get_mut(number) else { return };
        let listener = port.settings.listener.as_fd();
        if port.connection.is_some() {
            let _ = self.watch.listen(listener, Source::Listener(number), false);
            return;
        }
        let socket = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(socket) => descriptor::inherited(socket),
            Err(_) => {
                // It would be told again and again.
                let _ = self.watch.listen(listener, Source::Listener(number), false);
                port.retry = Some(now + RETRY);
                return;
            }
        };
        if self.watch.add(&socket, Source::Socket(number)).is_err() {
            return;
        }
        let _ = self.watch.listen(listener, Source::Listener(number), false);
        port.connection = Some(Connection {
            stream: Stream::new(socket),
            session: Session::new(self.behaviour.allow_unsealed),
            transmit: None,
            kicks: [None, None],
            muted: None,
        });
        if !port.messages.spend(CONNECTION, now) {
            self.mute(number, now);
        }
        self.event(number, now, Event::Connected);
    }

    /// A front-end has said something, or has gone.
    pub(super) fn converse(&mut self, number: usize, end: bool, now: Instant) {
        for _ in 0..MESSAGES {
            let Some(Some(port)) = self.ports.get_mut(number) else { return };
            let Some(connection) = &mut port.connection else { return };
            if connection.muted.is_some() {
                if end {
                    self.disconnect(number, None);
                }
                return;
            }
            match connection.stream.receive() {
                Ok(None) if end => return self.disconnect(number, None),
                Ok(None) => return,
                Ok(Some((message, descriptors))) => {
                    let left = port.messages.spend(1.0, now);
                    if let Err(reason) = self.obey(number, message, descriptors, now) {
                        return self.disconnect(number, Some(reason));
                    }
                    if !left {
                        return self.mute(number, now);
                    }
                }
                Err(crate::vhost::StreamError::Closed) => return self.disconnect(number, None),
                Err(error) => return self.disconnect(number, Some(chain(&error))),
            }
        }
    }

    fn obey(
        &mut self,
        number: usize,
        message: crate::vhost::Message,
        descriptors: Vec<std::os::fd::OwnedFd>,
        now: Instant,
    ) -> Result<(), String> {
        let bases = [Queue::Receive, Queue::Transmit].map(|queue| self.base(number, queue));
        let caller = &self.caller;
        let connection = self.ports[number].as_mut().and_then(|port| port.connection.as_mut());
        let Some(connection) = connection else { return Ok(()) };
        let (change, reply) = connection
            .session
            .apply(
                message,
                descriptors,
                |queue| bases[queue as usize],
                |descriptor| caller.is_event(descriptor),
            )
            .map_err(|error| chain(&error))?;
        match change {
            Change::None => {}
            Change::Queue(queue) => self.replace(number, queue, now),
            Change::Both => {
                self.replace(number, Queue::Receive, now);
                self.replace(number, Queue::Transmit, now);
            }
        }
        if let Some(reply) = reply
            && let Some(connection) = self.connection(number)
        {
            connection.stream.reply(reply).map_err(|error| chain(&error))?;
        }
        Ok(())
    }

    fn connection(&mut self, number: usize) -> Option<&mut Connection> {
        self.ports.get_mut(number)?.as_mut()?.connection.as_mut()
    }

    /// Where a ring is that runs.
    fn base(&mut self, number: usize, queue: Queue) -> Option<u16> {
        match queue {
            Queue::Receive => Some(self.fabric.receivers[number].as_ref()?.ring.base()),
            Queue::Transmit => Some(self.connection(number)?.transmit.as_ref()?.ring.base()),
        }
    }

    /// Takes a ring from its port and sets it up again, as the session says.
    fn replace(&mut self, number: usize, queue: Queue, now: Instant) {
        let base = self.base(number, queue);
        self.stop(number, queue);
        let Some(connection) = self.connection(number) else { return };
        let kick = connection.session.kick(queue).and_then(|kick| kick.try_clone().ok());
        let Some(kick) = kick else { return };
        let broken = match queue {
            Queue::Receive => match connection.session.receive(base) {
                Some(Ok(receive)) => {
                    self.fabric.receivers[number] = Some(receive);
                    None
                }
                Some(Err(broken)) => Some(broken),
                None => None,
            },
            Queue::Transmit => match connection.session.transmit(base) {
                Some(Ok(transmit)) => {
                    connection.transmit = Some(transmit);
                    None
                }
                Some(Err(broken)) => Some(broken),
                None => None,
            },
        };
        if let Some(broken) = broken {
            return self.break_ring(number, queue, broken, now);
        }
        if self.watch.add_kick(&kick, Source::Kick(number, queue)).is_ok()
            && let Some(connection) = self.connection(number)
        {
            connection.kicks[queue as usize] = Some(kick);
        }
        if queue == Queue::Transmit {
            self.resume(number);
        }
    }

    /// Frames may be there already; whoever is parked stays so.
    fn resume(&mut self, number: usize) {
        let state = self.ports[number].as_ref().map(|port| port.state);
        if !matches!(state, Some(State::Parked(_))) {
            self.activate(number);
        }
    }

    /// Takes a ring from its port.
    fn stop(&mut self, number: usize, queue: Queue) {
        let Some(connection) = self.connection(number) else { return };
        let kick = connection.kicks[queue as usize].take();
        if queue == Queue::Transmit {
            connection.transmit = None;
            self.stop_waiting(number);
        } else {
            self.fabric.receivers[number] = None;
            self.release_waiters(number);
        }
        if let Some(kick) = kick {
            self.watch.remove(&kick);
        }
    }

    /// A ring does what none may do.
    pub(super) fn break_ring(&mut self, number: usize, queue: Queue, broken: Broken, now: Instant) {
        self.stop(number, queue);
        let caller = &self.caller;
        if let Some(Some(port)) = self.ports.get_mut(number)
            && let Some(connection) = &mut port.connection
            && let Some(error) = connection.session.mark_broken(queue)
        {
            let _ = caller.signal(error.as_fd());
        }
        self.event(number, now, |name| Event::Broken(name, queue, broken));
    }

    /// Sends a front-end away, or forgets one that has gone.
    pub(super) fn disconnect(&mut self, number: usize, reason: Option<String>) {
        if self.connection(number).is_none() {
            return;
        }
        self.stop(number, Queue::Receive);
        self.stop(number, Queue::Transmit);
        let Some(Some(port)) = self.ports.get_mut(number) else { return };
        if let Some(connection) = port.connection.take() {
            self.watch.remove(connection.stream.as_fd());
        }
        if !matches!(port.state, State::Parked(_)) {
            port.state = State::Idle;
        }
        let listener = port.settings.listener.as_fd();
        let _ = self.watch.listen(listener, Source::Listener(number), true);
        self.event(number, Instant::now(), |name| Event::Disconnected(name, reason));
    }

    /// Does not listen to a front-end for a while.
    fn mute(&mut self, number: usize, now: Instant) {
        if let Some(connection) = self.connection(number) {
            connection.muted = Some(now + MUTE);
            self.listen(number, false);
        }
    }

    pub(super) fn listen(&mut self, number: usize, listen: bool) {
        let Some(Some(port)) = self.ports.get(number) else { return };
        if let Some(connection) = &port.connection {
            let _ = self.watch.listen(connection.stream.as_fd(), Source::Socket(number), listen);
        }
    }

    /// Lets front-ends in again.
    pub(super) fn retry(&mut self, number: usize) {
        if let Some(Some(port)) = self.ports.get_mut(number) {
            port.retry = None;
            let listener = port.settings.listener.as_fd();
            let _ = self.watch.listen(listener, Source::Listener(number), true);
        }
    }

    pub(super) fn has_lost_memory(&mut self, number: usize) -> bool {
        self.connection(number).is_some_and(|connection| connection.session.memory().is_lost())
    }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
