//! Credit: how many data bytes may still travel on one stream in one direction.
//!
//! Each direction starts with [`WINDOW`] bytes. The sender spends, the receiver gives back what it
//! has really passed on, so what it must hold for a reader that stalls is bounded by the window.

use crate::limits::WINDOW;

/// A peer that spends what it has not, or gives what was never spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreditError {
    /// More data arrived than the receiver had allowed.
    #[error("the peer sent {excess} bytes more than it was allowed")]
    Overrun {
        /// Bytes beyond the window.
        excess: u32,
    },
    /// The peer gave back more than was ever under way.
    #[error("the peer returned more credit than there is")]
    Overflow,
}

/// The sending side of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    available: u32,
}

impl Default for Sender {
    fn default() -> Self {
        Self { available: WINDOW }
    }
}

impl Sender {
    /// Bytes that may be sent now.
    pub fn available(&self) -> usize {
        self.available as usize
    }

    /// Spends `len` bytes.
    ///
    /// # Panics
    /// When that is more than is available: the caller's own bug.
    pub fn spend(&mut self, len: usize) {
        assert!(len <= self.available as usize, "spent more credit than was available");
        self.available -= len as u32;
    }

    /// The peer has consumed `count` bytes.
    pub fn returned(&mut self, count: u32) -> Result<(), CreditError> {
        let sum = self.available.checked_add(count).filter(|&sum| sum <= WINDOW);
        self.available = sum.ok_or(CreditError::Overflow)?;
        Ok(())
    }
}

/// The receiving side of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receiver {
    held: u32,
    consumed: u32,
}

impl Receiver {
    /// `len` data bytes arrived and are held.
    pub fn received(&mut self, len: usize) -> Result<(), CreditError> {
        let len = u32::try_from(len).map_err(|_| CreditError::Overrun { excess: u32::MAX })?;
        let outstanding = u64::from(self.held) + u64::from(self.consumed) + u64::from(len);
        let excess = outstanding.saturating_sub(u64::from(WINDOW));
        if excess > 0 {
            return Err(CreditError::Overrun { excess: excess as u32 });
        }
        self.held += len;
        Ok(())
    }

    /// `len` of the held bytes were passed on.
    pub fn passed_on(&mut self, len: usize) {
        debug_assert!(len <= self.held as usize);
        let len = (len as u32).min(self.held);
        self.held -= len;
        self.consumed += len;
    }

    /// Credit to send back now: nothing until a quarter of the window has gathered, so that small
    /// reads do not each cost a frame.
    pub fn give_back(&mut self) -> Option<u32> {
        (self.consumed >= WINDOW / 4).then(|| std::mem::take(&mut self.consumed))
    }

    /// Bytes received and not passed on yet.
    pub fn held(&self) -> usize {
        self.held as usize
    }
}
