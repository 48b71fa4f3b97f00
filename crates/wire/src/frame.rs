//! Frames: an eight-byte header and a payload. Encoding, and decoding from arbitrary pieces.
//!
//! ```text
//!  0        4      5            8
//! ┌────────┬──────┬────────────┬─────────┐
//! │ stream │ kind │ length     │ payload │     little endian; length is 24 bits, ≤ MAX_PAYLOAD
//! └────────┴──────┴────────────┴─────────┘
//! ```
//!
//! The same frames travel on a session's socket between the client and the link process; there the
//! stream number is 0 and credit frames do not occur (the socket itself pushes back).

use crate::limits::MAX_PAYLOAD;

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Stream 0 only, either way: a piece of a control message, more pieces follow.
    MessagePart = 1,
    /// Stream 0 only, either way: the last (or only) piece of a control message.
    Message = 2,
    /// Host to guest: bytes for the command's standard input. An empty one is end of file.
    Stdin = 3,
    /// Guest to host: bytes of the command's standard output (with a terminal: everything).
    /// An empty one says that the stream was closed.
    Stdout = 4,
    /// Guest to host: bytes of the command's standard error. An empty one says that it was closed.
    Stderr = 5,
    /// Either way: the receiver has consumed this many data bytes (`u32`).
    Credit = 6,
    /// Host to guest: the terminal has a new size (`rows: u16, columns: u16`).
    Resize = 7,
    /// Host to guest: deliver this signal number (`u8`) to the command's process group.
    Signal = 8,
    /// Host to guest: the client is gone; hang up and forget the session.
    HangUp = 9,
    /// Guest to host: the command was started (`pid: u32` in the guest).
    Started = 10,
    /// Guest to host: the command ended; a [`crate::ExitStatus`]. The last frame of a stream. On the
    /// stream of a call also host to guest: the service ended.
    Exit = 11,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub fn from_u8(number: u8) -> Option<Self> {
        const ALL: [Kind; 11] = [
            Kind::MessagePart,
            Kind::Message,
            Kind::Stdin,
            Kind::Stdout,
            Kind::Stderr,
            Kind::Credit,
            Kind::Resize,
            Kind::Signal,
            Kind::HangUp,
            Kind::Started,
            Kind::Exit,
        ];
        ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Whether frames of this kind are paid for with credit.
    pub fn is_data(self) -> bool {
        matches!(self, Kind::Stdin | Kind::Stdout | Kind::Stderr)
    }
}

/// A frame whose payload borrows from the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// 0 is the control stream; others are sessions, numbered by the host.
    pub stream: u32,
    /// What it carries.
    pub kind: Kind,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The payload of a [`Kind::Credit`] frame.
    pub fn credit(&self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.exactly()?))
    }

    /// The payload of a [`Kind::Started`] frame: the command's process id in the guest.
    pub fn pid(&self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.exactly()?))
    }

    /// The payload of a [`Kind::Signal`] frame: a signal number, 1 to 64.
    pub fn signal(&self) -> Result<u8, FrameError> {
        let [signal] = self.exactly()?;
        match signal {
            1..=64 => Ok(signal),
            _ => Err(FrameError::Malformed { kind: self.kind }),
        }
    }

    /// The payload of a [`Kind::Resize`] frame.
    pub fn size(&self) -> Result<crate::TerminalSize, FrameError> {
        let [r0, r1, c0, c1] = self.exactly()?;
        Ok(crate::TerminalSize {
            rows: u16::from_le_bytes([r0, r1]),
            columns: u16::from_le_bytes([c0, c1]),
        })
    }

    fn exactly<const N: usize>(&self) -> Result<[u8; N], FrameError> {
        self.payload.try_into().map_err(|_| FrameError::Malformed { kind: self.kind })
    }
}

/// Why bytes are no frame. Whoever sent them broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind's number is not one of [`Kind`].
    #[error("could not decode a frame: kind {0} does not exist")]
    UnknownKind(u8),
    /// The stated length is over [`MAX_PAYLOAD`].
    #[error("could not decode a frame: it claims {0} bytes, the limit is {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The payload does not have the form that its kind asks for.
    #[error("could not decode a frame: the payload of {kind:?} is malformed")]
    Malformed {
        /// Kind of the frame.
        kind: Kind,
    },
}

/// The header of a frame. `len` must be at most [`MAX_PAYLOAD`]; the callers' chunks are.
pub fn encode_header(stream: u32, kind: Kind, len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(len <= MAX_PAYLOAD);
    let [s0, s1, s2, s3] = stream.to_le_bytes();
    let [l0, l1, l2, _] = (len as u32).to_le_bytes();
    [s0, s1, s2, s3, kind as u8, l0, l1, l2]
}

/// Appends one frame to `out`. The payload must be at most [`MAX_PAYLOAD`] bytes.
pub fn push_frame(out: &mut Vec<u8>, stream: u32, kind: Kind, payload: &[u8]) {
    out.extend_from_slice(&encode_header(stream, kind, payload.len()));
    out.extend_from_slice(payload);
}

fn decode_header(header: [u8; HEADER_LEN]) -> Result<(u32, Kind, usize), FrameError> {
    let [s0, s1, s2, s3, kind, l0, l1, l2] = header;
    let len = u32::from_le_bytes([l0, l1, l2, 0]) as usize;
    let kind = Kind::from_u8(kind).ok_or(FrameError::UnknownKind(kind))?;
    if len > MAX_PAYLOAD {
        return Err(FrameError::TooLong(len));
    }
    Ok((u32::from_le_bytes([s0, s1, s2, s3]), kind, len))
}

/// Cuts a stream of bytes into frames.
///
/// Read into [`Decoder::space`], say how much with [`Decoder::filled`], then take frames until
/// there is none. The buffer never grows: it holds what one frame can need and one read more.
#[derive(Debug)]
pub struct Decoder {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder with an empty buffer.
    pub fn new() -> Self {
        let size = 2 * (HEADER_LEN + MAX_PAYLOAD);
        Self { buffer: vec![0; size].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Where to read the next bytes to. Never empty once all whole frames have been taken.
    pub fn space(&mut self) -> &mut [u8] {
        // Move the rest to the front only when a whole frame might not fit behind it.
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.buffer.len() - self.start < HEADER_LEN + MAX_PAYLOAD {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// Says that `count` bytes were read into [`Decoder::space`].
    ///
    /// # Panics
    /// When `count` is larger than that space: the caller's own bug.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.buffer.len() - self.end, "more filled than there was space");
        self.end += count;
    }

    /// Copies as much of `bytes` as fits into the buffer; returns how much that was.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let space = self.space();
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        self.filled(count);
        count
    }

    /// The next whole frame without taking it: its stream, kind and payload length.
    pub fn peek(&self) -> Result<Option<(u32, Kind, usize)>, FrameError> {
        let Some(header) = self.buffer[self.start..self.end].first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let (stream, kind, len) = decode_header(*header)?;
        let whole = self.end - self.start >= HEADER_LEN + len;
        Ok(whole.then_some((stream, kind, len)))
    }

    /// Takes the next whole frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no frame. The stream has lost its place then and must be given up.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let Some((stream, kind, len)) = self.peek()? else { return Ok(None) };
        let payload = self.start + HEADER_LEN;
        self.start = payload + len;
        Ok(Some(Frame { stream, kind, payload: &self.buffer[payload..payload + len] }))
    }

    /// Whether what comes next begins with these bytes, as far as it is there.
    pub fn starts_with(&self, bytes: &[u8]) -> bool {
        self.buffer[self.start..self.end].starts_with(bytes)
    }

    /// Bytes held that are not yet taken as frames.
    pub fn pending(&self) -> usize {
        self.end - self.start
    }

    /// Takes everything that is held and not yet a frame (to look for a preamble in it).
    pub fn take_pending(&mut self) -> Vec<u8> {
        let rest = self.buffer[self.start..self.end].to_vec();
        self.start = 0;
        self.end = 0;
        rest
    }
}
