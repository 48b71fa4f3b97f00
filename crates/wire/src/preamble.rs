//! How a connection begins: two preambles with a nonce, found by hunting through stale bytes.
//!
//! A virtio-serial port that is closed and opened again (an agent restarted, a guest restored) can
//! still hold bytes of the connection before, in both directions. So the agent, which is the one
//! that comes and goes, sends a preamble with a fresh nonce; the host looks for it, ignoring what
//! stands before, and answers with its own preamble and the same nonce; the agent ignores
//! everything before that answer. Both know then that the next byte is the first of a frame.
//!
//! An agent that gets no answer sends its preamble again, so a slow host may find one where the
//! first frame should begin; it answers that one too. A host that takes over a port whose agent may
//! be in the middle of an earlier connection (a restored guest sees no port close) sends a
//! [`knock`]. Neither can be taken for a frame: the fifth byte of both magics is no kind's number.
//!
//! A guest that plants preambles in its own data disturbs only itself: the host's answer to a
//! wrong one carries a nonce that no agent waits for.

/// Length of a preamble: eight bytes of magic and the nonce.
pub const LEN: usize = 16;

/// First bytes of what the agent sends.
pub const FROM_GUEST: [u8; 8] = *b"casemate";

/// First bytes of what the host answers.
pub const FROM_HOST: [u8; 8] = *b"etamesac";

/// The preamble with this magic and nonce.
pub fn encode(magic: [u8; 8], nonce: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(&magic);
    bytes[8..].copy_from_slice(&nonce.to_le_bytes());
    bytes
}

/// What a host sends to ask for the agent's preamble: an answer that no agent waits for (none uses
/// the nonce 0). Where a frame should begin it makes the agent start a new connection; while the
/// agent waits for an answer it is passed over.
pub fn knock() -> [u8; LEN] {
    encode(FROM_HOST, 0)
}

/// Looks for a preamble in a stream of bytes, holding no more than its length.
#[derive(Debug)]
pub struct Hunter {
    magic: [u8; 8],
    /// Accept only this nonce (the agent's side); any when `None` (the host's side).
    nonce: Option<u64>,
    window: [u8; LEN],
    held: usize,
}

impl Hunter {
    /// Looks for the agent's preamble, whatever its nonce.
    pub fn for_host() -> Self {
        Self { magic: FROM_GUEST, nonce: None, window: [0; LEN], held: 0 }
    }

    /// Looks for the host's answer to `nonce`.
    pub fn for_guest(nonce: u64) -> Self {
        Self { magic: FROM_HOST, nonce: Some(nonce), window: [0; LEN], held: 0 }
    }

    /// Goes through `bytes` up to the end of the preamble. Returns its nonce and how many of the
    /// bytes were used, or `None` when all were and the preamble was not among them.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<(u64, usize)> {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.held == LEN {
                self.window.copy_within(1.., 0);
                self.held -= 1;
            }
            self.window[self.held] = byte;
            self.held += 1;
            if self.held == LEN && self.window[..8] == self.magic {
                let (_, nonce) = self.window.split_at(8);
                let nonce = u64::from_le_bytes(nonce.try_into().expect("eight bytes are left"));
                if self.nonce.is_none_or(|wanted| wanted == nonce) {
                    self.held = 0;
                    return Some((nonce, index + 1));
                }
            }
        }
        None
    }
}
