//! What a receiver says at the end: whether everything arrived, and how much.
//!
//! ```text
//! "caserep" 1  ok u8  items u32  entries u32  bytes u64  sum u64  length u16  text
//! ```

use crate::decode::Numbers;
use crate::limits::MAX_REASON;
use crate::stream::{StreamError, cut};

/// How a reply begins: the last byte is the version.
const MAGIC: [u8; 8] = *b"caserep\x01";

/// Length without the text, in bytes.
const FIXED: usize = MAGIC.len() + 1 + 4 + 4 + 8 + 8 + 2;

/// How much arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of what was named, so many are in their place as a whole.
    pub items: u32,
    /// Files and folders in them.
    pub entries: u32,
    /// Bytes in these files.
    pub bytes: u64,
}

/// A receiver's last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How much is in its place.
    pub totals: Totals,
    /// Checksum of the whole stream.
    pub sum: u64,
    /// Why not everything is; none when it is. In the receiver's words: harmless only once it was made so.
    pub problem: Option<String>,
}

impl Reply {
    /// Longest reply, in bytes.
    pub const MAX: usize = FIXED + MAX_REASON;

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let text = cut(self.problem.as_deref().unwrap_or(""));
        let mut bytes = MAGIC.to_vec();
        bytes.push(u8::from(self.problem.is_none()));
        bytes.extend_from_slice(&self.totals.items.to_le_bytes());
        bytes.extend_from_slice(&self.totals.entries.to_le_bytes());
        bytes.extend_from_slice(&self.totals.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// From bytes, with how many it takes; none when there are not enough yet.
    ///
    /// # Errors
    /// This is no reply.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, StreamError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(StreamError::Magic);
        }
        let Some(fixed) = bytes.get(MAGIC.len()..FIXED) else { return Ok(None) };
        let mut numbers = Numbers(fixed);
        let ok = match numbers.u8() {
            0 => false,
            1 => true,
            _ => return Err(StreamError::Flags),
        };
        let (items, entries) = (numbers.u32(), numbers.u32());
        let (bytes_in_files, sum) = (numbers.u64(), numbers.u64());
        let length = usize::from(numbers.u16());
        if length > MAX_REASON {
            return Err(StreamError::Length);
        }
        let Some(text) = bytes.get(FIXED..FIXED + length) else { return Ok(None) };
        let text = String::from_utf8_lossy(text).into_owned();
        let totals = Totals { items, entries, bytes: bytes_in_files };
        let reply = Self { totals, sum, problem: (!ok).then_some(text) };
        Ok(Some((reply, FIXED + length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_comes_back_as_it_went() {
        let totals = Totals { items: 1, entries: 2, bytes: 3 };
        for problem in [None, Some("no room".to_owned())] {
            let reply = Reply { totals, sum: 4, problem };
            let mut bytes = reply.encode();
            for short in 0..bytes.len() {
                assert_eq!(Reply::decode(&bytes[..short]), Ok(None), "{short}");
            }
            bytes.push(9);
            assert_eq!(Reply::decode(&bytes), Ok(Some((reply, bytes.len() - 1))));
        }
        assert_eq!(Reply::decode(b"no reply"), Err(StreamError::Magic));
    }

    #[test]
    fn a_text_without_end_is_cut_and_never_taken() {
        let reply = Reply { totals: Totals::default(), sum: 0, problem: Some("ü".repeat(9999)) };
        assert!(reply.encode().len() <= Reply::MAX);
        let mut bytes = reply.encode();
        bytes[FIXED - 2..FIXED].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(Reply::decode(&bytes), Err(StreamError::Length));
    }
}
