//! What is counted for each port.

use std::time::Duration;

use crate::rules::Refusal;

/// Counters of one port. They begin anew with the port, not with a connection.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Frames its guest sent that were let through.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that were given to its guest.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Times that frames were shown to its guest, each with at most one signal.
    pub batches: u64,
    /// Signals that were sent to its guest.
    pub signals: u64,
    /// Times that frames had to wait for its guest's buffers.
    pub waits: u64,
    /// Times that it was not listened to for a while, because of what it sent.
    pub parked: u64,
    /// How long its guest took to answer, when it was last asked.
    pub probe: Option<Duration>,
    /// Frames that were dropped, by reason.
    pub drops: [u64; DROPS.len()],
}

/// Why a frame is dropped. The sender's faults are counted at its port, those of the receiver at
/// the receiver's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drop {
    /// Too short or too long.
    Length,
    /// Another's source address.
    Source,
    /// A VLAN tag.
    Vlan,
    /// ARP for another's address.
    Arp,
    /// Neighbour discovery for another's address.
    Neighbour,
    /// An IP source the port does not have.
    Address,
    /// From a client to another.
    NotRouter,
    /// To an address that no port has.
    Unknown,
    /// The virtio-net header lies.
    Offload,
    /// The port it is for is not connected.
    Absent,
    /// The receiver had no buffers for too long.
    Full,
    /// The receiver's buffers are too small, or too many for it.
    Buffers,
    /// From a network that the router must not forward from.
    Crossing,
}

/// All reasons, in the order of [`Counters::drops`], and their names.
pub const DROPS: [(Drop, &str); 13] = [
    (Drop::Length, "length"),
    (Drop::Source, "source"),
    (Drop::Vlan, "vlan"),
    (Drop::Arp, "arp"),
    (Drop::Neighbour, "neighbour"),
    (Drop::Address, "address"),
    (Drop::NotRouter, "not-router"),
    (Drop::Unknown, "unknown"),
    (Drop::Offload, "offload"),
    (Drop::Absent, "absent"),
    (Drop::Full, "full"),
    (Drop::Buffers, "buffers"),
    (Drop::Crossing, "crossing"),
];

impl Drop {
    /// Whether an honest guest never gives this reason.
    #[must_use]
    pub fn is_violation(self) -> bool {
        !matches!(self, Self::Unknown | Self::Absent | Self::Full | Self::Buffers | Self::Crossing)
    }
}

impl From<Refusal> for Drop {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Length => Self::Length,
            Refusal::Source => Self::Source,
            Refusal::Vlan => Self::Vlan,
            Refusal::Arp => Self::Arp,
            Refusal::Neighbour => Self::Neighbour,
            Refusal::Address => Self::Address,
            Refusal::NotRouter => Self::NotRouter,
            Refusal::Unknown => Self::Unknown,
            Refusal::Crossing => Self::Crossing,
        }
    }
}

impl Counters {
    /// Frames dropped for that reason.
    #[must_use]
    pub fn dropped(&self, drop: Drop) -> u64 {
        self.drops[drop as usize]
    }

    pub(super) fn drop(&mut self, drop: Drop) {
        self.drops[drop as usize] += 1;
    }

    #[inline(always)]
    pub(super) fn sent(&mut self, length: usize) {
        self.sent_frames += 1;
        self.sent_bytes += length as u64;
    }

    #[inline(always)]
    pub(super) fn received(&mut self, length: usize) {
        self.received_frames += 1;
        self.received_bytes += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_the_place_of_its_number() {
        for (index, (drop, _)) in DROPS.iter().enumerate() {
            assert_eq!(*drop as usize, index);
        }
    }
}
