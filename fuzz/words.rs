//! The input of a target, as the choices that it makes.

/// Taken from its beginning; zeros behind its end.
pub struct Words<'a>(pub &'a [u8]);

impl<'a> Words<'a> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Some bytes as they are, as many as the next says.
    pub fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }
}
