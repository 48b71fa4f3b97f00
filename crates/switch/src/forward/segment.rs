//! What a receiver does not take is done here: completing checksums, cutting TCP packets.
//!
//! It works on a private copy of the whole frame. None of this is reached between guests that have
//! agreed on the same offloads, as Linux guests do.

use super::offload::{Checksum, HEADER, Offload, Offloads, Segments};
use crate::rules::SHORTEST;

/// Calls `deliver` with each frame that has to be sent in place of `frame`, and its header.
pub(super) fn for_each(
    frame: &mut [u8],
    offload: Offload,
    receiver: Offloads,
    mut deliver: impl FnMut(&[u8; HEADER], &[u8]) -> bool,
) {
    let Some(checksum) = offload.checksum else {
        deliver(&offload.header(), frame);
        return;
    };
    let Some(segments) = offload.segments else {
        complete(frame, checksum);
        deliver(&Offload::default().header(), frame);
        return;
    };
    let keep = receiver.checksum.then_some(checksum);
    let header = Offload { checksum: keep, segments: None }.header();
    let headers = usize::from(segments.headers);
    let size = usize::from(segments.size);
    let (original, data) = frame.split_at(headers);
    let pieces = data.len().div_ceil(size);
    let mut segment = Vec::with_capacity(headers + size);
    for (index, piece) in data.chunks(size).enumerate() {
        segment.clear();
        segment.extend_from_slice(original);
        segment.extend_from_slice(piece);
        adjust(&mut segment, checksum, segments, index, index + 1 == pieces);
        if keep.is_none() {
            complete(&mut segment, checksum);
        }
        if !deliver(&header, &segment) {
            return;
        }
    }
}

/// How many frames [`for_each`] makes of one with `length` bytes.
pub(super) fn count(offload: Offload, length: usize) -> usize {
    match offload.segments {
        None => 1,
        Some(Segments { size, headers, .. }) => {
            length.saturating_sub(headers.into()).div_ceil(size.into()).max(1)
        }
    }
}

/// Makes the copied headers those of segment number `index`. The checksum's field is left with the
/// sum of the pseudo header, as a sender leaves it.
fn adjust(segment: &mut [u8], checksum: Checksum, segments: Segments, index: usize, last: bool) {
    const FIN_PSH: u8 = 0x09;
    const CWR: u8 = 0x80;
    let tcp = usize::from(checksum.start);
    let length = segment.len();
    let ip = SHORTEST;
    if segments.ipv6 {
        put(segment, ip + 4, (length - ip - 40) as u16);
    } else {
        put(segment, ip + 2, (length - ip) as u16);
        let id = get(segment, ip + 4).wrapping_add(index as u16);
        put(segment, ip + 4, id);
        put(segment, ip + 10, 0);
        let sum = !fold(sum(&segment[ip..tcp]));
        put(segment, ip + 10, sum);
    }
    let sequence = u32::from_be_bytes([
        segment[tcp + 4],
        segment[tcp + 5],
        segment[tcp + 6],
        segment[tcp + 7],
    ]);
    let sequence = sequence.wrapping_add(index as u32 * u32::from(segments.size));
    segment[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
    if !last {
        segment[tcp + 13] &= !FIN_PSH;
    }
    if index > 0 {
        segment[tcp + 13] &= !CWR;
    }
    let addresses = match segments.ipv6 {
        true => &segment[ip + 8..ip + 40],
        false => &segment[ip + 12..ip + 20],
    };
    let pseudo = sum(addresses) + 6 + (length - tcp) as u64;
    put(segment, tcp + 16, fold(pseudo));
}

/// Completes the checksum over what is after its start, beginning with what is in its field.
fn complete(frame: &mut [u8], Checksum { start, offset }: Checksum) {
    let start = usize::from(start);
    let field = start + usize::from(offset);
    let result = !fold(sum(&frame[start..]));
    // Zero means no checksum in UDP; its complement is the same number.
    put(frame, field, if result == 0 { 0xffff } else { result });
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The sum of 16-bit words, an odd last byte being the upper half of one (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |&byte| u64::from(byte) << 8);
    odd + words.map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Offloads = Offloads { checksum: false, tcp4: false, tcp6: false };

    /// A TCP packet with `data` bytes and the checksum of its pseudo header.
    fn packet(ipv6: bool, data: usize) -> (Vec<u8>, Offload) {
        let ip = if ipv6 { 40 } else { 20 };
        let tcp = SHORTEST + ip;
        let mut frame = vec![0; tcp + 20 + data];
        if ipv6 {
            frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
            frame[20] = 6;
            frame[22..54].copy_from_slice(&[0x20; 32]);
        } else {
            frame[12..15].copy_from_slice(&[8, 0, 0x45]);
            frame[23] = 6;
            frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            put(&mut frame, 18, 0xffff);
        }
        frame[tcp + 4..tcp + 8].copy_from_slice(&0xffff_fff0_u32.to_be_bytes());
        frame[tcp + 12] = 0x50;
        frame[tcp + 13] = 0x99;
        for (index, byte) in frame[tcp + 20..].iter_mut().enumerate() {
            *byte = (index * 7) as u8;
        }
        let checksum = Checksum { start: tcp as u16, offset: 16 };
        let segments = Segments { ipv6, size: 1000, headers: (tcp + 20) as u16 };
        (frame, Offload { checksum: Some(checksum), segments: Some(segments) })
    }

    /// Whether the checksum of TCP, pseudo header included, is right.
    fn is_right(frame: &[u8], ipv6: bool) -> bool {
        let (ip, addresses) = if ipv6 { (40, 8..40) } else { (20, 12..20) };
        let packet = &frame[SHORTEST..];
        let segment = &packet[ip..];
        fold(sum(&packet[addresses]) + 6 + segment.len() as u64 + sum(segment)) == 0xffff
    }

    #[test]
    fn segments_put_together_are_the_packet() {
        for ipv6 in [false, true] {
            let (mut frame, offload) = packet(ipv6, 3333);
            let headers = usize::from(offload.segments.unwrap().headers);
            let tcp = headers - 20;
            let expected = frame[headers..].to_vec();
            let mut data = Vec::new();
            let mut flags = Vec::new();
            for_each(&mut frame.clone(), offload, NONE, |header, segment| {
                assert_eq!(header[0], 0, "nothing is left to the receiver");
                assert!(is_right(segment, ipv6));
                if !ipv6 {
                    assert_eq!(fold(sum(&segment[SHORTEST..SHORTEST + 20])), 0xffff);
                    assert_eq!(usize::from(get(segment, 16)), segment.len() - SHORTEST);
                    assert_eq!(get(segment, 18), 0xffff_u16.wrapping_add(flags.len() as u16));
                }
                let sequence = &segment[tcp + 4..tcp + 8];
                let expected = 0xffff_fff0_u32.wrapping_add(data.len() as u32);
                assert_eq!(sequence, expected.to_be_bytes());
                flags.push(segment[tcp + 13]);
                data.extend_from_slice(&segment[headers..]);
                true
            });
            assert_eq!(data, expected);
            assert_eq!(flags, [0x90, 0x10, 0x10, 0x19]);
            assert_eq!(count(offload, frame.len()), 4);
            frame.truncate(headers);
            assert_eq!(count(offload, frame.len()), 1);
        }
    }

    #[test]
    fn a_receiver_that_completes_checksums_gets_them_incomplete() {
        let (mut frame, offload) = packet(false, 2500);
        let receiver = Offloads { checksum: true, ..NONE };
        for_each(&mut frame, offload, receiver, |header, segment| {
            assert_eq!(header[0], 1);
            assert_eq!(header[1], 0);
            let mut completed = segment.to_vec();
            complete(&mut completed, offload.checksum.unwrap());
            assert!(is_right(&completed, false));
            true
        });
    }

    #[test]
    fn an_odd_length_is_summed() {
        let (frame, offload) = packet(true, 333);
        let mut completed = frame;
        let tcp = usize::from(offload.checksum.unwrap().start);
        let length = (completed.len() - tcp) as u64;
        let pseudo = fold(sum(&completed[22..54]) + 6 + length);
        put(&mut completed, tcp + 16, pseudo);
        for_each(
            &mut completed.clone(),
            Offload { segments: None, ..offload },
            NONE,
            |_, frame| {
                assert!(is_right(frame, true));
                true
            },
        );
    }
}
