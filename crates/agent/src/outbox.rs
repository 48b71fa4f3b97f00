//! What waits to be written to the link: frames, back to back, in one buffer.
//!
//! Data is read from a session's pipe straight behind a reserved header, so that it is copied
//! once, and header and payload leave in one write. Control frames always fit; data asks
//! [`Outbox::room`] first, which is what bounds the buffer.

use casemate_wire::{FromGuest, HEADER_LEN, Kind, encode_header, message};

/// Bytes above which no session adds data.
const FULL: usize = 256 * 1024;

/// Largest payload the agent sends in one frame: with its header it fills one buffer of Linux's
/// `virtio_console`, which takes 32 KiB in one write.
pub(crate) const CHUNK: usize = 32 * 1024 - HEADER_LEN;

/// Frames on their way to the host.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outbox {
    /// Whether a session may add data now.
    pub(crate) fn has_room(&self) -> bool {
        self.end - self.start < FULL
    }

    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The first `count` waiting bytes were written.
    pub(crate) fn written(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Forgets everything: the connection it was meant for is gone.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Where to read the payload of a data frame to, `len` bytes. Nothing is sent unless
    /// [`Outbox::commit`] follows.
    pub(crate) fn payload(&mut self, len: usize) -> &mut [u8] {
        self.reserve(HEADER_LEN + len);
        let payload = self.end + HEADER_LEN;
        &mut self.buffer[payload..payload + len]
    }

    /// Makes a frame of the first `len` bytes of the last [`Outbox::payload`].
    pub(crate) fn commit(&mut self, stream: u32, kind: Kind, len: usize) {
        self.reserve(HEADER_LEN + len);
        let header = encode_header(stream, kind, len);
        self.buffer[self.end..self.end + HEADER_LEN].copy_from_slice(&header);
        self.end += HEADER_LEN + len;
    }

    /// Adds a frame.
    pub(crate) fn frame(&mut self, stream: u32, kind: Kind, payload: &[u8]) {
        self.payload(payload.len()).copy_from_slice(payload);
        self.commit(stream, kind, payload.len());
    }

    /// Adds bytes that are no frame: a preamble.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Adds a control message. One that the host would refuse as too long is left out; the agent
    /// sends none that could be.
    pub(crate) fn message(&mut self, message: &FromGuest) {
        let mut frames = Vec::new();
        if message::push_message(&mut frames, message).is_ok() {
            self.raw(&frames);
        }
    }

    /// Makes sure that `len` bytes fit behind the end.
    fn reserve(&mut self, len: usize) {
        if self.buffer.len() - self.end >= len {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() - self.end < len {
            let wanted = (self.end + len).next_multiple_of(64 * 1024);
            self.buffer.resize(wanted, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_wire::{Decoder, Frame};

    fn drain(outbox: &mut Outbox, piece: usize, decoder: &mut Decoder) -> Vec<(u32, Vec<u8>)> {
        let mut frames = Vec::new();
        while !outbox.waiting().is_empty() {
            let count = outbox.waiting().len().min(piece);
            let taken = decoder.push(&outbox.waiting()[..count]);
            outbox.written(taken);
            while let Ok(Some(Frame { stream, payload, .. })) = decoder.next_frame() {
                frames.push((stream, payload.to_vec()));
            }
        }
        frames
    }

    #[test]
    fn frames_leave_in_order_whatever_the_size_of_the_writes() {
        for piece in [1, 7, 4096, 1 << 20] {
            let mut outbox = Outbox::default();
            let mut decoder = Decoder::new();
            let mut sent = Vec::new();
            let mut got = Vec::new();
            for round in 0..40_u32 {
                let payload = vec![round as u8; (round as usize * 997) % CHUNK];
                outbox.payload(CHUNK)[..payload.len()].copy_from_slice(&payload);
                outbox.commit(round, Kind::Stdout, payload.len());
                outbox.frame(round, Kind::Credit, &round.to_le_bytes());
                sent.push((round, payload));
                sent.push((round, round.to_le_bytes().to_vec()));
                if round % 5 == 0 {
                    got.extend(drain(&mut outbox, piece, &mut decoder));
                }
            }
            got.extend(drain(&mut outbox, piece, &mut decoder));
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn data_stops_at_the_bound_and_control_does_not() {
        let mut outbox = Outbox::default();
        while outbox.has_room() {
            outbox.commit(1, Kind::Stdout, CHUNK);
        }
        let before = outbox.waiting().len();
        assert!(before < FULL + CHUNK + HEADER_LEN);
        outbox.message(&FromGuest::Pong { id: 1 });
        assert!(outbox.waiting().len() > before);
    }
}
