//! Chains of descriptors.

use super::shared::{DESCRIPTOR, Descriptor, INDIRECT, NEXT, WRITE};
use super::{Broken, Direction, Ring};
use crate::memory::{Memory, Span};

/// Descriptors of one chain. Linux uses up to 19, DPDK as many as a packet has segments.
pub const MAX_CHAIN: usize = 256;

/// Appends the buffers of a chain until they have `enough` bytes. Its first descriptor has been
/// read already. Says how many descriptors that took.
pub(super) fn walk<'a, M: Memory>(
    ring: &'a Ring<M>,
    head: u16,
    first: Descriptor,
    enough: usize,
    to: &mut Vec<Span<'a>>,
) -> Result<usize, Broken> {
    let chain = Chain { ring, head, enough };
    if first.flags & INDIRECT != 0 {
        let table = Table::new(ring, first)?;
        return chain.follow(table.read(0)?, to, |index| table.read(index));
    }
    chain.follow(first, to, |index| {
        let size = ring.shared.size();
        match index < size {
            true => Ok(ring.shared.descriptor(index)),
            false => Err(Broken::Next { index, size }),
        }
    })
}

struct Chain<'a, M> {
    ring: &'a Ring<M>,
    head: u16,
    enough: usize,
}

impl<'a, M: Memory> Chain<'a, M> {
    fn follow(
        &self,
        first: Descriptor,
        to: &mut Vec<Span<'a>>,
        read: impl Fn(u16) -> Result<Descriptor, Broken>,
    ) -> Result<usize, Broken> {
        let (ring, head) = (self.ring, self.head);
        let mut descriptor = first;
        let mut total = 0_usize;
        for count in 1..=MAX_CHAIN {
            let Descriptor { address, length, flags, next } = descriptor;
            if flags & INDIRECT != 0 {
                return Err(Broken::Indirect { length });
            }
            if (flags & WRITE != 0) != (ring.direction == Direction::ToGuest) {
                return Err(Broken::Direction { head });
            }
            let span = ring.memory.guest(address, length.into());
            to.push(span.ok_or(Broken::Outside { address, length })?);
            total = total.saturating_add(length as usize);
            if flags & NEXT == 0 || total >= self.enough {
                return Ok(count);
            }
            descriptor = read(next)?;
        }
        Err(Broken::Chain)
    }
}

/// An indirect table.
struct Table<'a> {
    bytes: Span<'a>,
    size: u16,
}

impl<'a> Table<'a> {
    fn new<M: Memory>(ring: &'a Ring<M>, descriptor: Descriptor) -> Result<Self, Broken> {
        let Descriptor { address, length, flags, .. } = descriptor;
        let wrong = Broken::Indirect { length };
        let count = length as usize / DESCRIPTOR;
        if !ring.options.indirect
            || flags & NEXT != 0
            || !(length as usize).is_multiple_of(DESCRIPTOR)
            || !(1..=MAX_CHAIN).contains(&count)
        {
            return Err(wrong);
        }
        let bytes = ring.memory.guest(address, length.into());
        Ok(Self { bytes: bytes.ok_or(Broken::Outside { address, length })?, size: count as u16 })
    }

    fn read(&self, index: u16) -> Result<Descriptor, Broken> {
        if index >= self.size {
            return Err(Broken::Next { index, size: self.size });
        }
        let mut bytes = [0; DESCRIPTOR];
        self.bytes.after(usize::from(index) * DESCRIPTOR).read(&mut bytes);
        Ok(Descriptor::decode(bytes))
    }
}
