//! Messages: a header of twelve bytes, a payload, descriptors beside it (QEMU's
//! docs/interop/vhost-user.rst). All numbers are little-endian. Pure.

use std::fmt;
use std::ops::BitOr;

use crate::memory::Region;

/// Bytes of the header.
pub const HEADER: usize = 12;

/// The longest payload: a table of eight regions has 264 bytes, and nothing is longer.
pub const MAX_PAYLOAD: usize = 512;

/// Descriptors of one message: a table of eight regions has as many.
pub const MAX_DESCRIPTORS: usize = 8;

/// Version 1, in a header's flags.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Bits that the two sides agree on: a device's features, or the protocol's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Features(pub u64);

impl Features {
    /// `VIRTIO_NET_F_CSUM`: we take frames whose checksum is not complete.
    pub const CHECKSUM: Self = Self(1 << 0);
    /// `VIRTIO_NET_F_GUEST_CSUM`: the guest takes them.
    pub const GUEST_CHECKSUM: Self = Self(1 << 1);
    /// `VIRTIO_NET_F_GUEST_TSO4`: the guest takes TCP packets that are not cut.
    pub const GUEST_TCP4: Self = Self(1 << 7);
    /// `VIRTIO_NET_F_GUEST_TSO6`
    pub const GUEST_TCP6: Self = Self(1 << 8);
    /// `VIRTIO_NET_F_HOST_TSO4`: we take them.
    pub const TCP4: Self = Self(1 << 11);
    /// `VIRTIO_NET_F_HOST_TSO6`
    pub const TCP6: Self = Self(1 << 12);
    /// `VIRTIO_NET_F_MRG_RXBUF`
    pub const MERGEABLE: Self = Self(1 << 15);
    /// `VIRTIO_F_ANY_LAYOUT`
    pub const ANY_LAYOUT: Self = Self(1 << 27);
    /// `VIRTIO_F_INDIRECT_DESC`
    pub const INDIRECT: Self = Self(1 << 28);
    /// `VIRTIO_F_EVENT_IDX`
    pub const EVENT_INDEX: Self = Self(1 << 29);
    /// `VHOST_USER_F_PROTOCOL_FEATURES`
    pub const PROTOCOL: Self = Self(1 << 30);
    /// `VIRTIO_F_VERSION_1`
    pub const VERSION_1: Self = Self(1 << 32);
    /// `VIRTIO_F_IN_ORDER`
    pub const IN_ORDER: Self = Self(1 << 35);

    /// `VHOST_USER_PROTOCOL_F_REPLY_ACK`
    pub const REPLY_ACK: Self = Self(1 << 3);
    /// `VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS`
    pub const MEMORY_SLOTS: Self = Self(1 << 15);

    /// What we offer.
    #[must_use]
    pub fn offered() -> Self {
        Self::CHECKSUM
            | Self::GUEST_CHECKSUM
            | Self::GUEST_TCP4
            | Self::GUEST_TCP6
            | Self::TCP4
            | Self::TCP6
            | Self::MERGEABLE
            | Self::ANY_LAYOUT
            | Self::INDIRECT
            | Self::EVENT_INDEX
            | Self::PROTOCOL
            | Self::VERSION_1
            | Self::IN_ORDER
    }

    /// What we offer of the protocol.
    #[must_use]
    pub fn offered_protocol() -> Self {
        Self::REPLY_ACK | Self::MEMORY_SLOTS
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::LowerHex for Features {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, formatter)
    }
}

/// A message, decoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// What it asks for.
    pub request: Request,
    /// Whether it wants to know how that went.
    pub wants_result: bool,
}

/// What a front-end asks for. Queues are by their number, 0 or 1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// The device's features.
    GetFeatures,
    /// Those the guest agreed to.
    SetFeatures(Features),
    /// A new session.
    SetOwner,
    /// Stop everything.
    ResetOwner,
    /// All of the guest's memory; a descriptor for each region.
    SetMemory(Vec<Region>),
    /// Entries of a queue.
    SetSize(u8, u16),
    /// Where a queue is.
    SetAddress {
        /// Which.
        queue: u8,
        /// Descriptor table.
        descriptors: u64,
        /// Used ring.
        used: u64,
        /// Available ring.
        available: u64,
    },
    /// Where a queue begins.
    SetBase(u8, u16),
    /// Stop a queue and say where it is.
    GetBase(u8),
    /// A queue is ready, and kicked by a descriptor.
    SetKick(u8),
    /// What a guest is signalled by: a descriptor, or nothing.
    SetCall(u8, bool),
    /// What a broken queue is signalled by: a descriptor, or nothing.
    SetError(u8, bool),
    /// The protocol's features.
    GetProtocolFeatures,
    /// Those the front-end agreed to.
    SetProtocolFeatures(Features),
    /// How many queues there can be.
    GetQueueCount,
    /// A queue is to be used, or not.
    SetEnable(u8, bool),
    /// How many regions there can be.
    GetMemorySlots,
    /// One more region, and its descriptor.
    AddMemory(Region),
    /// One less.
    RemoveMemory(Region),
}

/// Why a message is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MessageError {
    /// The payload is longer than any.
    #[error("payload of {0} bytes")]
    Long(u32),
    /// The version is not 1, or it is a reply.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// A request we did not offer.
    #[error("request {0}")]
    Unknown(u32),
    /// The payload's length is not that of the request.
    #[error("request {request} with a payload of {length} bytes")]
    Length {
        /// Its number.
        request: u32,
        /// Bytes of its payload.
        length: usize,
    },
    /// A queue there is not.
    #[error("queue {0}")]
    Queue(u64),
    /// A value there is not.
    #[error("value {0}")]
    Value(u64),
    /// More or fewer descriptors than the request has.
    #[error("{have} descriptors where {want} belong")]
    Descriptors {
        /// That came.
        have: usize,
        /// That should.
        want: usize,
    },
}

/// What a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    request: u32,
    flags: u32,
    /// Bytes of the payload.
    pub length: usize,
}

impl Header {
    /// Decodes and checks it.
    ///
    /// # Errors
    /// No header begins a message of ours like that.
    pub fn decode(bytes: [u8; HEADER]) -> Result<Self, MessageError> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let (request, flags, size) = (word(0), word(4), word(8));
        if flags & !NEED_REPLY & !VERSION_MASK != 0 || flags & VERSION_MASK != VERSION {
            return Err(MessageError::Flags(flags));
        }
        match usize::try_from(size) {
            Ok(length) if length <= MAX_PAYLOAD => Ok(Self { request, flags, length }),
            _ => Err(MessageError::Long(size)),
        }
    }
}

impl Message {
    /// Decodes the payload that belongs to `header`.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn decode(header: Header, payload: &[u8]) -> Result<Self, MessageError> {
        let request = Payload { request: header.request, bytes: payload }.decode()?;
        Ok(Self { request, wants_result: header.flags & NEED_REPLY != 0 })
    }

    /// How many descriptors belong to it.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        match &self.request {
            Request::SetMemory(regions) => regions.len(),
            Request::SetKick(_) | Request::AddMemory(_) => 1,
            Request::SetCall(_, true) | Request::SetError(_, true) => 1,
            _ => 0,
        }
    }
}

/// Bytes of a region's description.
const REGION: usize = 32;
/// In `SET_VRING_KICK` and its like: no descriptor.
const NO_DESCRIPTOR: u64 = 1 << 8;

struct Payload<'a> {
    request: u32,
    bytes: &'a [u8],
}

impl Payload<'_> {
    fn decode(&self) -> Result<Request, MessageError> {
        Ok(match self.request {
            // Nothing is expected, and whatever comes is ignored.
            1 => Request::GetFeatures,
            2 => Request::SetFeatures(Features(self.number()?)),
            3 => Request::SetOwner,
            4 => Request::ResetOwner,
            5 => Request::SetMemory(self.regions()?),
            8 => self
                .state()
                .and_then(|(queue, value)| Ok(Request::SetSize(queue, short(value)?)))?,
            9 => self.address()?,
            10 => self
                .state()
                .and_then(|(queue, value)| Ok(Request::SetBase(queue, short(value)?)))?,
            11 => Request::GetBase(self.state()?.0),
            12 => match self.event()? {
                (queue, true) => Request::SetKick(queue),
                // Without kicks a queue would have to be looked at all the time.
                (_, false) => return Err(MessageError::Value(NO_DESCRIPTOR)),
            },
            13 => self.event().map(|(queue, some)| Request::SetCall(queue, some))?,
            14 => self.event().map(|(queue, some)| Request::SetError(queue, some))?,
            15 => Request::GetProtocolFeatures,
            16 => Request::SetProtocolFeatures(Features(self.number()?)),
            17 => Request::GetQueueCount,
            18 => match self.state()? {
                (queue, 0) => Request::SetEnable(queue, false),
                (queue, 1) => Request::SetEnable(queue, true),
                (_, other) => return Err(MessageError::Value(other.into())),
            },
            36 => Request::GetMemorySlots,
            37 => Request::AddMemory(self.region_alone()?),
            38 => Request::RemoveMemory(self.region_alone()?),
            other => return Err(MessageError::Unknown(other)),
        })
    }

    fn exactly<const N: usize>(&self) -> Result<[u8; N], MessageError> {
        let wrong = MessageError::Length { request: self.request, length: self.bytes.len() };
        self.bytes.try_into().map_err(|_| wrong)
    }

    fn number(&self) -> Result<u64, MessageError> {
        self.exactly().map(u64::from_le_bytes)
    }

    /// A queue and a number.
    fn state(&self) -> Result<(u8, u32), MessageError> {
        let both = self.number()?;
        Ok((queue(both & u64::from(u32::MAX))?, (both >> 32) as u32))
    }

    /// A queue, and whether a descriptor belongs to it.
    fn event(&self) -> Result<(u8, bool), MessageError> {
        let number = self.number()?;
        Ok((queue(number & !NO_DESCRIPTOR)?, number & NO_DESCRIPTOR == 0))
    }

    fn address(&self) -> Result<Request, MessageError> {
        let bytes: [u8; 40] = self.exactly()?;
        let word = |at| u64_at(&bytes, at);
        // The upper half of the first word are flags, for logging, which is not offered.
        let queue = queue(word(0) & u64::from(u32::MAX))?;
        Ok(Request::SetAddress { queue, descriptors: word(8), used: word(16), available: word(24) })
    }

    fn regions(&self) -> Result<Vec<Region>, MessageError> {
        let wrong = MessageError::Length { request: self.request, length: self.bytes.len() };
        let (start, regions) = self.bytes.split_at_checked(8).ok_or(wrong.clone())?;
        let count = u64_at(start, 0) & u64::from(u32::MAX);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if !(1..=MAX_DESCRIPTORS).contains(&count) {
            return Err(MessageError::Value(count as u64));
        }
        // QEMU sends as many as there are; others always send room for eight.
        let regions = regions.get(..count * REGION).ok_or(wrong)?;
        Ok(regions.chunks_exact(REGION).map(region).collect())
    }

    fn region_alone(&self) -> Result<Region, MessageError> {
        let bytes: [u8; 8 + REGION] = self.exactly()?;
        Ok(region(&bytes[8..]))
    }
}

fn region(bytes: &[u8]) -> Region {
    Region {
        guest: u64_at(bytes, 0),
        length: u64_at(bytes, 8),
        front_end: u64_at(bytes, 16),
        offset: u64_at(bytes, 24),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

fn queue(number: u64) -> Result<u8, MessageError> {
    match number {
        0 | 1 => Ok(number as u8),
        other => Err(MessageError::Queue(other)),
    }
}

fn short(value: u32) -> Result<u16, MessageError> {
    u16::try_from(value).map_err(|_| MessageError::Value(value.into()))
}

/// An answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// A number: features, a count, or zero for a good result.
    Number(u32, u64),
    /// Where a queue is.
    Base(u8, u16),
}

impl Request {
    /// Its number in the protocol, for a reply of its kind.
    #[must_use]
    pub fn number(&self) -> u32 {
        match self {
            Self::GetFeatures => 1,
            Self::SetFeatures(_) => 2,
            Self::SetOwner => 3,
            Self::ResetOwner => 4,
            Self::SetMemory(_) => 5,
            Self::SetSize(..) => 8,
            Self::SetAddress { .. } => 9,
            Self::SetBase(..) => 10,
            Self::GetBase(_) => 11,
            Self::SetKick(_) => 12,
            Self::SetCall(..) => 13,
            Self::SetError(..) => 14,
            Self::GetProtocolFeatures => 15,
            Self::SetProtocolFeatures(_) => 16,
            Self::GetQueueCount => 17,
            Self::SetEnable(..) => 18,
            Self::GetMemorySlots => 36,
            Self::AddMemory(_) => 37,
            Self::RemoveMemory(_) => 38,
        }
    }
}

impl Reply {
    /// As it is sent.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER + 8] {
        let (request, number) = match self {
            Self::Number(request, number) => (request, number),
            Self::Base(queue, base) => (11, u64::from(queue) | u64::from(base) << 32),
        };
        let mut bytes = [0; HEADER + 8];
        for (at, word) in [(0, request), (4, VERSION | REPLY), (8, 8)] {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[HEADER..].copy_from_slice(&number.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(request: u32, payload: &[u8]) -> Result<Request, MessageError> {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&request.to_le_bytes());
        header[4] = 1;
        header[8..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        let header = Header::decode(header)?;
        Ok(Message::decode(header, payload)?.request)
    }

    #[test]
    fn a_table_of_regions_has_one_to_eight() {
        let table = |count: u64, regions: usize| {
            let mut bytes = count.to_le_bytes().to_vec();
            bytes.resize(8 + regions * REGION, 1);
            decode(5, &bytes)
        };
        assert!(matches!(table(8, 8), Ok(Request::SetMemory(regions)) if regions.len() == 8));
        assert!(matches!(table(2, 8), Ok(Request::SetMemory(regions)) if regions.len() == 2));
        assert_eq!(table(0, 0), Err(MessageError::Value(0)));
        assert_eq!(table(9, 9), Err(MessageError::Value(9)));
        assert_eq!(table(5000, 8), Err(MessageError::Value(5000)));
        assert_eq!(table(3, 2), Err(MessageError::Length { request: 5, length: 72 }));
        assert_eq!(decode(5, &[1; 7]), Err(MessageError::Length { request: 5, length: 7 }));
    }

    #[test]
    fn queues_and_values_are_bounded() {
        let two = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).to_le_bytes();
        assert_eq!(decode(8, &two(1, 256)), Ok(Request::SetSize(1, 256)));
        assert_eq!(decode(8, &two(2, 256)), Err(MessageError::Queue(2)));
        assert_eq!(decode(8, &two(0, 65536)), Err(MessageError::Value(65536)));
        assert_eq!(decode(18, &two(0, 2)), Err(MessageError::Value(2)));
        assert_eq!(decode(13, &two(0x101, 0)), Ok(Request::SetCall(1, false)));
        assert_eq!(decode(12, &two(0x100, 0)), Err(MessageError::Value(NO_DESCRIPTOR)));
        assert_eq!(decode(99, &[]), Err(MessageError::Unknown(99)));
    }

    #[test]
    fn a_header_that_is_none_is_refused_before_its_payload_is_read() {
        let header = |flags: u8, length: u32| {
            let mut header = [0; HEADER];
            header[0] = 1;
            header[4] = flags;
            header[8..].copy_from_slice(&length.to_le_bytes());
            Header::decode(header)
        };
        assert!(header(9, 0).is_ok());
        assert_eq!(header(2, 0), Err(MessageError::Flags(2)));
        assert_eq!(header(5, 0), Err(MessageError::Flags(5)));
        assert_eq!(header(1, u32::MAX), Err(MessageError::Long(u32::MAX)));
        assert_eq!(header(1, 513), Err(MessageError::Long(513)));
    }
}
