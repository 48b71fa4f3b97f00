//! Recorded frames in a file that tcpdump and wireshark read (pcap with nanoseconds).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::forward::Recorded;
use crate::rules::LONGEST;

/// A file that frames are written to.
#[derive(Debug)]
pub(super) struct Capture {
    file: File,
}

impl Capture {
    /// Writes the file's header.
    pub(super) fn new(file: OwnedFd) -> io::Result<Self> {
        let mut file = File::from(file);
        // Nanoseconds; version 2.4; two words for time zones; the longest record; Ethernet.
        let header = [0xa1b2_3c4d, 2 | 4 << 16, 0, 0, LONGEST as u32, 1];
        file.write_all(&header.map(u32::to_le_bytes).concat())?;
        Ok(Self { file })
    }

    pub(super) fn write(&mut self, frame: &Recorded) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = [
            now.as_secs() as u32,
            now.subsec_nanos(),
            frame.bytes.len() as u32,
            frame.length as u32,
        ];
        let mut record = header.map(u32::to_le_bytes).concat();
        record.extend_from_slice(&frame.bytes);
        self.file.write_all(&record)
    }
}
