//! The header that virtio-net puts before each frame (virtio 1.2, section 5.1.6): what a sender
//! says is compared with the frame, and what a receiver is told is made anew from the comparison.

use crate::rules::{IPV4, IPV6, SHORTEST};

/// What a guest agreed to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offloads {
    /// Checksums may be left to the other side.
    pub checksum: bool,
    /// Segmentation of TCP over IPv4 may.
    pub tcp4: bool,
    /// Segmentation of TCP over IPv6 may.
    pub tcp6: bool,
}

/// What was left to us, checked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offload {
    /// The checksum to be completed.
    pub checksum: Option<Checksum>,
    /// How to cut.
    pub segments: Option<Segments>,
}

/// A checksum over everything from `start`, to be added to what is in its field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checksum {
    /// First byte of the frame that is summed.
    pub start: u16,
    /// Where its field is, from there.
    pub offset: u16,
}

/// A TCP packet that is longer than a network's frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segments {
    /// IPv6, not IPv4.
    pub ipv6: bool,
    /// Bytes of TCP data in each segment.
    pub size: u16,
    /// Bytes of all headers.
    pub headers: u16,
}

/// The header lies, or asks for what was not agreed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lie;

/// The least data of a segment. Below the least of any real network (a path of 576 bytes gives 512
/// with options); more, smaller segments would only be work for us.
pub const MIN_SEGMENT: u16 = 256;

/// Bytes of the header with which `VIRTIO_NET_F_MRG_RXBUF` or `VIRTIO_F_VERSION_1` was agreed on.
pub const HEADER: usize = 12;
/// Without them.
pub const SHORT_HEADER: usize = 10;

/// Fields `flags` and `gso_type`.
const NEEDS_CHECKSUM: u8 = 1;
const TCP4: u8 = 1;
const TCP6: u8 = 4;

/// What `header` says about a frame of `length` bytes that begins with `window`.
///
/// # Errors
/// [`Lie`]
#[inline(always)]
pub fn examine(
    header: &[u8; HEADER],
    window: &[u8],
    length: usize,
    sender: Offloads,
) -> Result<Offload, Lie> {
    if header[1] == 0 && header[0] & NEEDS_CHECKSUM == 0 {
        return Ok(Offload::default());
    }
    examine_more(header, window, length, sender)
}

fn examine_more(
    header: &[u8; HEADER],
    window: &[u8],
    length: usize,
    sender: Offloads,
) -> Result<Offload, Lie> {
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (size, start, offset) = (word(4), word(6), word(8));
    if header[0] & NEEDS_CHECKSUM == 0 || !sender.checksum {
        return Err(Lie);
    }
    let checksum = Checksum { start, offset };
    let end = usize::from(start) + usize::from(offset) + 2;
    // The field may be anywhere in the frame, as tunnels have it deep inside.
    if usize::from(start) < SHORTEST || end > length {
        return Err(Lie);
    }
    let ipv6 = match header[1] {
        0 => return Ok(Offload { checksum: Some(checksum), segments: None }),
        TCP4 if sender.tcp4 => false,
        TCP6 if sender.tcp6 => true,
        _ => return Err(Lie),
    };
    let (at, tcp) = tcp(window, ipv6).ok_or(Lie)?;
    let headers = at + tcp;
    if checksum != (Checksum { start: at as u16, offset: 16 }) || headers > length {
        return Err(Lie);
    }
    if size < MIN_SEGMENT {
        return Err(Lie);
    }
    // What fits into one segment needs no cutting.
    let segments = (length - headers > usize::from(size)).then_some(Segments {
        ipv6,
        size,
        headers: headers as u16,
    });
    Ok(Offload { checksum: Some(checksum), segments })
}

/// Where a frame's TCP header is, and its length; nothing, unless it is an unfragmented TCP packet
/// whose headers are all in the window.
fn tcp(window: &[u8], ipv6: bool) -> Option<(usize, usize)> {
    let kind = u16::from_be_bytes([*window.get(12)?, *window.get(13)?]);
    let packet = window.get(SHORTEST..)?;
    let ip = if ipv6 {
        // Linux does not cut packets with extension headers either.
        (kind == IPV6 && packet.first()? >> 4 == 6 && *packet.get(6)? == 6).then_some(40)?
    } else {
        let length = usize::from(packet.first()? & 15) * 4;
        let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
        let good = kind == IPV4 && packet[0] >> 4 == 4 && length >= 20 && fragment == 0;
        (good && *packet.get(9)? == 6).then_some(length)?
    };
    let tcp = usize::from(packet.get(ip + 12)? >> 4) * 4;
    (tcp >= 20 && packet.len() >= ip + tcp).then_some((SHORTEST + ip, tcp))
}

impl Offload {
    /// Whether a receiver takes it as it is.
    #[inline(always)]
    #[must_use]
    pub fn suits(&self, receiver: Offloads) -> bool {
        let segments = match self.segments {
            None => true,
            Some(Segments { ipv6: true, .. }) => receiver.tcp6,
            Some(_) => receiver.tcp4,
        };
        segments && (self.checksum.is_none() || receiver.checksum)
    }

    /// The header for a receiver, before it is known how many buffers the frame takes.
    #[inline(always)]
    #[must_use]
    pub fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[10] = 1;
        if let Some(Checksum { start, offset }) = self.checksum {
            header[0] = NEEDS_CHECKSUM;
            header[6..8].copy_from_slice(&start.to_le_bytes());
            header[8..10].copy_from_slice(&offset.to_le_bytes());
        }
        if let Some(Segments { ipv6, size, headers }) = self.segments {
            header[1] = if ipv6 { TCP6 } else { TCP4 };
            header[2..4].copy_from_slice(&headers.to_le_bytes());
            header[4..6].copy_from_slice(&size.to_le_bytes());
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offloads = Offloads { checksum: true, tcp4: true, tcp6: true };

    /// A TCP packet over IPv4 whose headers are 54 bytes.
    fn window() -> [u8; 60] {
        let mut window = [0; 60];
        window[12] = 8;
        window[14] = 0x45;
        window[23] = 6;
        window[46] = 0x50;
        window
    }

    fn header(flags: u8, kind: u8, size: u16, start: u16, offset: u16) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        (header[0], header[1]) = (flags, kind);
        header[4..6].copy_from_slice(&size.to_le_bytes());
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
        header
    }

    #[test]
    fn an_honest_header_comes_out_as_it_went_in() {
        let offload = examine(&header(1, 1, 1448, 34, 16), &window(), 9000, ALL).unwrap();
        assert!(offload.suits(ALL));
        assert!(!offload.suits(Offloads { tcp4: false, ..ALL }));
        assert!(!offload.suits(Offloads { checksum: false, ..ALL }));
        let mut expected = header(1, 1, 1448, 34, 16);
        expected[2] = 54;
        expected[10] = 1;
        assert_eq!(offload.header(), expected);
    }

    #[test]
    fn unknown_flags_do_not_come_out() {
        let offload = examine(&header(0xfe, 0, 1, 2, 3), &window(), 60, ALL).unwrap();
        assert_eq!(offload, Offload::default());
    }

    #[test]
    fn lies_are_found() {
        let mut udp = window();
        udp[23] = 17;
        let mut fragment = window();
        fragment[20] = 0x20;
        let mut short = window();
        short[46] = 0x40;
        let good = window();
        for (name, header, window, length, sender) in [
            ("segments without a checksum", header(0, 1, 1448, 34, 16), good, 9000, ALL),
            ("a checksum beyond the end", header(1, 0, 0, 59, 0), good, 60, ALL),
            ("a checksum that wraps", header(1, 0, 0, 65535, 65535), good, 60, ALL),
            ("a checksum of the addresses", header(1, 0, 0, 0, 6), good, 60, ALL),
            ("segments of nothing", header(1, 1, 0, 34, 16), good, 9000, ALL),
            ("segments of one byte", header(1, 1, 1, 34, 16), good, 9000, ALL),
            ("segments of UDP", header(1, 1, 1448, 34, 16), udp, 9000, ALL),
            ("segments of a fragment", header(1, 1, 1448, 34, 16), fragment, 9000, ALL),
            ("a TCP header of 16 bytes", header(1, 1, 1448, 34, 16), short, 9000, ALL),
            ("another IP version", header(1, 4, 1448, 34, 16), good, 9000, ALL),
            ("an unknown kind", header(1, 5, 1448, 34, 16), good, 9000, ALL),
            ("another kind with ECN", header(1, 0x81, 1448, 34, 16), good, 9000, ALL),
            ("another start", header(1, 1, 1448, 36, 16), good, 9000, ALL),
            ("another field", header(1, 1, 1448, 34, 6), good, 9000, ALL),
            ("nothing was agreed on", header(1, 0, 0, 34, 16), good, 60, Offloads::default()),
        ] {
            assert_eq!(examine(&header, &window, length, sender), Err(Lie), "{name}");
        }
    }

    #[test]
    fn what_fits_into_one_segment_is_not_cut() {
        let offload = examine(&header(1, 1, 1448, 34, 16), &window(), 54 + 1448, ALL).unwrap();
        assert_eq!(offload.segments, None);
        assert!(offload.checksum.is_some());
    }
}
