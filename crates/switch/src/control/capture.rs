//! Recorded frames as tcpdump and wireshark read them (pcap with nanoseconds), sent to whoever asked
//! for them: a disk or a pipe could make the switch wait, a packet that finds no room is left out.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use crate::descriptor;
use crate::forward::Recorded;
use crate::rules::LONGEST;

/// A packet socket that frames are sent to.
#[derive(Debug)]
pub(super) struct Capture {
    socket: OwnedFd,
}

impl Capture {
    /// Sends the file's header.
    pub(super) fn new(socket: OwnedFd) -> Result<Self, Errno> {
        // Nanoseconds; version 2.4; two words for time zones; the longest record; Ethernet.
        let header = [0xa1b2_3c4d, 2 | 4 << 16, 0, 0, LONGEST as u32, 1];
        let capture = Self { socket };
        capture.send(&header.map(u32::to_le_bytes).concat())?;
        Ok(capture)
    }

    pub(super) fn write(&mut self, frame: &Recorded) -> Result<(), Errno> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = [
            now.as_secs() as u32,
            now.subsec_nanos(),
            frame.bytes.len() as u32,
            frame.length as u32,
        ];
        let mut record = header.map(u32::to_le_bytes).concat();
        record.extend_from_slice(&frame.bytes);
        match self.send(&record) {
            Err(Errno::EAGAIN | Errno::EMSGSIZE | Errno::ENOBUFS) => Ok(()),
            other => other,
        }
    }

    fn send(&self, packet: &[u8]) -> Result<(), Errno> {
        descriptor::send(self.socket.as_fd(), packet, &[]).map(drop)
    }
}
