//! The part of a life that has the guest's calls decided: how many at a time, and how many may go on
//! at a time.
//!
//! A guest can call without end. What it gets for it is a queue of its own: a few brokers decide its
//! calls one after the other, the link bounds those that wait, and no call of its is activity that
//! keeps a disposable from ending. Other compartments have brokers of their own.

use std::collections::{BTreeSet, VecDeque};

use casemate_link::orders::Order;

use super::{Effect, Life, State};

/// Brokers of one compartment at a time. A question to the user keeps one until it is answered.
const DECIDING: usize = 8;

/// Calls of one compartment that go on at a time; of the sessions that an agent has.
const CONNECTED: usize = 192;

/// Exit code of a caller when nobody refused.
const TROUBLE: u8 = 125;

/// The guest's calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Waiting for a broker: number, target, service.
    queue: VecDeque<(u32, String, String)>,
    /// With a broker.
    deciding: BTreeSet<u32>,
    /// Streams of those that went through.
    connected: BTreeSet<u32>,
}

impl Life {
    /// A program of the guest calls. The link bounds how many wait.
    pub(super) fn call(&mut self, call: u32, target: String, service: String) {
        if self.state != State::Running {
            let reason = format!("the compartment is {}", self.state());
            return self.order(Order::Refuse { call, code: TROUBLE, reason });
        }
        self.calls.queue.push_back((call, target, service));
        self.decide_calls();
    }

    /// The caller does not wait any more.
    pub(super) fn call_gone(&mut self, call: u32) {
        self.calls.queue.retain(|(waiting, ..)| *waiting != call);
        if self.calls.deciding.remove(&call) {
            self.effects.push(Effect::ForgetCall { call });
            self.decide_calls();
        }
    }

    /// A broker has decided.
    pub(super) fn call_decided(&mut self, call: u32, result: Result<(), (u8, String)>) {
        if !self.calls.deciding.remove(&call) {
            return;
        }
        match result {
            Ok(()) => {
                let stream = self.next_stream;
                self.next_stream += 1;
                self.calls.connected.insert(stream);
                self.effects.push(Effect::ConnectCall { stream, call });
            }
            Err((code, reason)) => {
                self.effects.push(Effect::ForgetCall { call });
                self.order(Order::Refuse { call, code, reason });
            }
        }
        self.decide_calls();
    }

    /// A stream has ended. False when it was no call.
    pub(super) fn call_ended(&mut self, stream: u32) -> bool {
        let was_call = self.calls.connected.remove(&stream);
        if was_call {
            self.decide_calls();
        }
        was_call
    }

    /// The guest's end is near, or its agent is another.
    pub(super) fn forget_calls(&mut self) {
        for call in std::mem::take(&mut self.calls).deciding {
            self.effects.push(Effect::ForgetCall { call });
        }
    }

    fn decide_calls(&mut self) {
        let calls = &mut self.calls;
        while calls.deciding.len() < DECIDING
            && calls.deciding.len() + calls.connected.len() < CONNECTED
            && let Some((call, target, service)) = calls.queue.pop_front()
        {
            calls.deciding.insert(call);
            self.effects.push(Effect::Decide { call, target, service });
        }
    }
}
