//! How long a guest takes to answer: it is asked who has its own address, by an ARP probe
//! (RFC 5227, sender 0.0.0.0), and answers to an address that no port has.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::deliver::{Delivery, Frame};
use super::offload::Offload;
use super::{Fabric, Queue};
use crate::memory::Memory;
use crate::rules::{Mac, SHORTEST, Window};

/// Who asks: a locally administered address that is given to no port.
const ASKER: [u8; 6] = [0x02, b'p', b'r', b'o', b'b', b'e'];

/// A question that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    port: usize,
    at: Instant,
}

impl<M: Memory> Fabric<M> {
    /// Asks the guest of `port`. Says whether it had room for the question.
    pub fn probe(&mut self, port: usize, mac: Mac, address: Ipv4Addr, now: Instant) -> bool {
        let mut frame = [mac.bytes(), ASKER].concat();
        frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend_from_slice(&ASKER);
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&address.octets());
        frame.resize(60, 0);
        let Some(Some(receive)) = self.receivers.get_mut(port) else { return false };
        let frame = Frame { window: &frame, parts: &[], length: frame.len() };
        let done = receive.deliver(&frame, Offload::default());
        if !matches!(done, Delivery::Done { .. }) {
            return false;
        }
        receive.ring.publish();
        if receive.ring.wants_signal() {
            self.signals.push((port, Queue::Receive));
        }
        self.counters[port].probe = None;
        self.probe = Some(Probe { port, at: now });
        true
    }

    /// Whether a frame that was refused is the answer.
    #[cold]
    pub(super) fn is_answer(&mut self, port: usize, window: &Window) -> bool {
        let Some(Probe { port: asked, at }) = self.probe else { return false };
        let arp = window.bytes().get(SHORTEST - 2..SHORTEST) == Some(&[8, 6]);
        if asked != port || !arp || window.bytes().first_chunk() != Some(&ASKER) {
            return false;
        }
        self.probe = None;
        self.counters[port].probe = Some(at.elapsed());
        true
    }
}
