//! Whose turn it is, who waits for whom, and when to sleep.
//!
//! A turn that finds its receiver without buffers ends, and the sender waits: it loses nothing by
//! it. Those who wait for the same receiver are served in order, one turn each, and whoever comes
//! new queues behind them, so each gets its share of a busy router.
//!
//! Waiting has two bounds. After [`LONGEST_WAIT`] a receiver counts as gone, and its frames are
//! dropped until it has buffers again. And a client must not hold up the others: while the router
//! waits for it, with frames for somebody else behind, the client's patience runs out, of which it
//! gets a twentieth of the time. Then its frames are dropped instead.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::event::Event;
use super::port::{Port, State};
use super::{LINGER, Switch};
use crate::forward::{Ended, Queue};
use crate::memory::fault;
use crate::ring::Broken;
use crate::rules::Role;

/// A receiver that has had no buffers for so long counts as gone.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The least that is worth waiting, in microseconds.
const LEAST_PATIENCE: f64 = 50.0;

impl Switch {
    /// One turn for each port that has frames, and for those that can go on.
    pub(crate) fn pass(&mut self, now: Instant) {
        for index in (0..self.congested.len()).rev() {
            self.serve_waiters(self.congested[index], now);
        }
        self.congested.retain(|&port| {
            let port = self.ports.get(port).and_then(Option::as_ref);
            port.is_some_and(|port| !port.waiters.is_empty())
        });
        for _ in 0..self.active.len() {
            if let Some(port) = self.active.pop_front() {
                self.turn(port, now);
            }
        }
    }

    /// Lets the first of those go on who wait for `port`, if it has got buffers.
    fn serve_waiters(&mut self, port: usize, now: Instant) {
        let Some(Some(receive)) = self.fabric.receivers.get_mut(port) else {
            self.release_waiters(port);
            return;
        };
        match receive.has_grown() {
            Ok(false) => {}
            Ok(true) => {
                receive.is_held = false;
                let first = self.ports[port].as_mut().and_then(|port| port.waiters.pop_front());
                if let Some(first) = first {
                    self.charge(first, now);
                    self.set(first, State::Active(None));
                    self.turn(first, now);
                }
                self.hold(port);
            }
            Err(broken) => {
                self.fabric.receivers[port] = None;
                self.break_ring(port, Queue::Receive, broken, now);
            }
        }
    }

    /// New senders have to queue as long as there are others.
    fn hold(&mut self, port: usize) {
        let waiters = self.ports[port].as_ref().is_some_and(|port| !port.waiters.is_empty());
        if let Some(Some(receive)) = self.fabric.receivers.get_mut(port) {
            receive.is_held = waiters;
        }
    }

    /// Nobody has to wait for `port` any more.
    pub(crate) fn release_waiters(&mut self, port: usize) {
        let Some(Some(waited_for)) = self.ports.get_mut(port) else { return };
        for waiter in std::mem::take(&mut waited_for.waiters) {
            self.activate(waiter);
        }
        self.hold(port);
    }

    /// `port` waits for nobody any more.
    pub(crate) fn stop_waiting(&mut self, port: usize) {
        if let Some(State::Waiting { on, .. }) = self.ports[port].as_ref().map(|port| port.state) {
            if let Some(Some(other)) = self.ports.get_mut(on) {
                other.waiters.retain(|&waiter| waiter != port);
            }
            self.hold(on);
            self.set(port, State::Idle);
        }
    }

    fn set(&mut self, port: usize, state: State) {
        if let Some(Some(port)) = self.ports.get_mut(port) {
            port.state = state;
        }
    }

    /// It will be its turn.
    pub(crate) fn activate(&mut self, port: usize) {
        self.set(port, State::Active(None));
        if !self.active.contains(&port) {
            self.active.push_back(port);
        }
    }

    /// A guest says that it has added something to a ring.
    pub(crate) fn kicked(&mut self, port: usize) {
        // Of a receiving ring: whoever waits for it is served in each pass.
        if let Some(Some(Port { state: State::Idle, .. })) = self.ports.get(port) {
            self.activate(port);
        }
    }

    fn turn(&mut self, number: usize, now: Instant) {
        let Some(port) = self.ports.get_mut(number).and_then(Option::as_mut) else { return };
        let State::Active(empty_since) = port.state else { return };
        let transmit = port.connection.as_mut().and_then(|connection| connection.transmit.as_mut());
        let Some(transmit) = transmit else {
            port.state = State::Idle;
            return;
        };
        let turn = self.fabric.turn(number, &port.settings.binding, transmit);
        if turn.frames > 0 {
            self.busy = now;
        }
        let offended = turn.violations > 0
            && !port.offences.spend(turn.violations.into(), now)
            && !matches!(turn.ended, Ended::Broken(_));
        if offended {
            let wait = port.offences.wait_for(128.0, now).max(Duration::from_millis(1));
            port.state = State::Parked(now + wait);
            self.fabric.counters[number].parked += 1;
            self.event(number, now, Event::Parked);
        } else {
            match turn.ended {
                Ended::More => {
                    port.state = State::Active(None);
                    self.active.push_back(number);
                }
                Ended::Empty => {
                    let since = match (turn.frames, empty_since) {
                        (0, Some(since)) => since,
                        _ => now,
                    };
                    self.empty(number, since, now);
                }
                Ended::Full(on) => self.wait(number, on, now),
                Ended::Broken(broken) => self.break_ring(number, Queue::Transmit, broken, now),
            }
        }
        self.after_turn(now);
    }

    /// There was no frame: sleeps after a while.
    fn empty(&mut self, number: usize, since: Instant, now: Instant) {
        let linger = LINGER.max(self.behaviour.spin);
        let armed = match now.saturating_duration_since(since) < linger {
            true => Ok(true),
            false => self.arm(number),
        };
        match armed {
            Ok(true) => {
                self.set(number, State::Active(Some(since)));
                self.active.push_back(number);
                std::hint::spin_loop();
            }
            Ok(false) => self.set(number, State::Idle),
            Err(broken) => self.break_ring(number, Queue::Transmit, broken, now),
        }
    }

    /// Asks for a kick. Says whether there is something already.
    fn arm(&mut self, number: usize) -> Result<bool, Broken> {
        let port = self.ports[number].as_mut();
        let connection = port.and_then(|port| port.connection.as_mut());
        match connection.and_then(|connection| connection.transmit.as_mut()) {
            Some(transmit) => transmit.ring.arm(),
            None => Ok(false),
        }
    }

    /// The next frame of `number` waits for buffers of `on`.
    fn wait(&mut self, number: usize, on: usize, now: Instant) {
        self.fabric.counters[on].waits += 1;
        let role = self.ports[number].as_ref().map(|port| port.settings.binding.role);
        let Some(Some(receiver)) = self.ports.get_mut(on) else { return };
        let patience = match role {
            Some(Role::Router) => receiver.patience.left_at(now),
            _ => LONGEST_WAIT.as_micros() as f64,
        };
        if patience < LEAST_PATIENCE && self.has_others(number, on) {
            self.give_up(number, on);
            return;
        }
        let patience = Duration::from_micros(patience.max(LEAST_PATIENCE) as u64);
        if let Some(Some(receiver)) = self.ports.get_mut(on) {
            receiver.waiters.push_back(number);
        }
        self.set(number, State::Waiting { on, since: now, until: now + patience });
        self.hold(on);
        if !self.congested.contains(&on) {
            self.congested.push(on);
        }
    }

    /// Whether frames for others are behind the one for `on`: only the router's can be.
    fn has_others(&mut self, number: usize, on: usize) -> bool {
        let port = self.ports[number].as_mut();
        let router = port.filter(|port| port.settings.binding.role == Role::Router);
        let connection = router.and_then(|port| port.connection.as_mut());
        let transmit = connection.and_then(|connection| connection.transmit.as_mut());
        transmit.is_some_and(|transmit| self.fabric.has_others(transmit, on))
    }

    /// Frames for `on` are dropped until it has room.
    fn give_up(&mut self, number: usize, on: usize) {
        if let Some(Some(receive)) = self.fabric.receivers.get_mut(on) {
            receive.drop_when_full = true;
        }
        self.activate(number);
    }

    /// What the router has waited is taken off the patience with whom it waited for, if others
    /// had to wait for it.
    fn charge(&mut self, number: usize, now: Instant) {
        let Some(Some(port)) = self.ports.get(number) else { return };
        let State::Waiting { on, since, .. } = port.state else { return };
        if self.has_others(number, on) {
            let waited = now.saturating_duration_since(since).as_micros() as f64;
            if let Some(Some(receiver)) = self.ports.get_mut(on) {
                receiver.patience.spend(waited, now);
            }
        }
    }

    /// What has waited for its time.
    pub(crate) fn time_out(&mut self, now: Instant) {
        for number in 0..self.ports.len() {
            let Some(port) = &mut self.ports[number] else { continue };
            let retry = port.retry.is_some_and(|at| at <= now);
            if let Some(connection) = &mut port.connection
                && connection.muted.is_some_and(|until| until <= now)
            {
                connection.muted = None;
                self.listen(number, true);
            }
            if retry {
                self.retry(number);
            }
            match self.ports[number].as_ref().map(|port| port.state) {
                Some(State::Parked(until)) if until <= now => self.activate(number),
                Some(State::Waiting { on, since, until }) if until <= now => {
                    self.waited(number, on, since, now);
                }
                _ => {}
            }
        }
    }

    /// It has waited as long as it was allowed to.
    fn waited(&mut self, number: usize, on: usize, since: Instant, now: Instant) {
        let others = self.has_others(number, on);
        if !others && now.saturating_duration_since(since) < LONGEST_WAIT {
            let until = now + Duration::from_millis(2);
            self.set(number, State::Waiting { on, since, until });
            return;
        }
        self.charge(number, now);
        self.stop_waiting(number);
        self.give_up(number, on);
    }

    /// How long to wait for events; nothing, for ever.
    pub(crate) fn timeout(&mut self, now: Instant) -> Option<u16> {
        if !self.active.is_empty() {
            return Some(0);
        }
        if !self.congested.is_empty() {
            let linger = LINGER.max(self.behaviour.spin);
            if now.saturating_duration_since(self.busy) < linger || self.arm_congested() {
                return Some(0);
            }
        }
        let deadlines = self.ports.iter().flatten().flat_map(|port| {
            let muted = port.connection.as_ref().and_then(|connection| connection.muted);
            let state = match port.state {
                State::Parked(until) | State::Waiting { until, .. } => Some(until),
                State::Idle | State::Active(_) => None,
            };
            muted.into_iter().chain(port.retry).chain(state)
        });
        let next = deadlines.min()?;
        let wait = next.saturating_duration_since(now).as_micros().div_ceil(1000);
        Some(u16::try_from(wait).unwrap_or(u16::MAX).min(1000))
    }

    /// Asks those that others wait for to kick. Says whether one of them has something already.
    fn arm_congested(&mut self) -> bool {
        self.congested.iter().any(|&port| match self.fabric.receivers.get_mut(port) {
            // A broken or vanished ring is seen in the next pass.
            Some(Some(receive)) => receive.ring.arm().is_err() || receive.has_grown() != Ok(false),
            _ => true,
        })
    }

    /// Signals, and what the turn has found broken or lost.
    pub(crate) fn after_turn(&mut self, now: Instant) {
        for index in 0..self.fabric.signals.len() {
            let (port, queue) = self.fabric.signals[index];
            let connection = self.ports[port].as_ref().and_then(|port| port.connection.as_ref());
            if let Some(call) = connection.and_then(|connection| connection.session.call(queue)) {
                // It was an eventfd when it came, and is one.
                let _ = self.caller.signal(call.as_fd());
                self.fabric.counters[port].signals += 1;
            }
        }
        self.fabric.signals.clear();
        while let Some((port, broken)) = self.fabric.broken.pop() {
            self.break_ring(port, Queue::Receive, broken, now);
        }
        if !self.fabric.record.is_empty() && !self.control.record(&mut self.fabric.record) {
            self.fabric.recorded = None;
        }
        if fault::losses() != self.losses {
            self.losses = fault::losses();
            for port in 0..self.ports.len() {
                if self.has_lost_memory(port) {
                    self.disconnect(port, Some("its memory has shrunk".into()));
                }
            }
        }
    }
}
