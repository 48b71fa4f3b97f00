//! Frames.

use casemate_switch::rules::Mac;

/// An Ethernet header of that type.
pub(crate) fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    [&to.bytes()[..], &from.bytes(), &kind.to_be_bytes()].concat()
}

/// A frame of `length` bytes that means nothing.
pub(crate) fn plain(to: Mac, from: Mac, length: usize) -> Vec<u8> {
    let mut frame = ethernet(to, from, 0x88b5);
    frame.extend((frame.len()..length).map(|byte| byte as u8));
    frame
}

/// All that hear it.
pub(crate) fn broadcast() -> Mac {
    Mac::from([0xff; 6])
}

/// "I have this address": ARP, with a sender of its own within.
pub(crate) fn arp(from: Mac, sender: Mac, address: [u8; 4]) -> Vec<u8> {
    let mut frame = ethernet(broadcast(), from, 0x0806);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&sender.bytes());
    frame.extend_from_slice(&address);
    frame.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    frame
}

/// A neighbour advertisement for an address, with a target of its own within; `before` are headers
/// between IPv6's and ICMP's.
pub(crate) fn advertisement(to: Mac, from: Mac, target: Mac, before: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(to, from, 0x86dd);
    let length = before.len() as u16 + 32;
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[if before.is_empty() { 58 } else { 0 }, 255]);
    frame.extend_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend_from_slice(before);
    frame.extend_from_slice(&[136, 0, 0, 0, 0x20, 0, 0, 0]);
    frame.extend_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend_from_slice(&[2, 1]);
    frame.extend_from_slice(&target.bytes());
    frame
}

/// UDP over IPv4 from an address.
pub(crate) fn ipv4(to: Mac, from: Mac, source: [u8; 4]) -> Vec<u8> {
    let mut frame = ethernet(to, from, 0x0800);
    frame.extend_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&[10, 0, 0, 1, 0, 1, 0, 1, 0, 8, 0, 0]);
    frame
}

/// A TCP packet over IPv4 with `data` bytes that is left to others to cut and sum, and its header.
pub(crate) fn tcp(to: Mac, from: Mac, data: usize) -> ([u8; 12], Vec<u8>) {
    let mut frame = ethernet(to, from, 0x0800);
    let length = (40 + data) as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    frame.extend_from_slice(&[0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0, 1, 0, 0, 0, 0]);
    let pseudo = sum(&frame[26..34]) + 6 + 20 + data as u64;
    let field = fold(pseudo).to_be_bytes();
    frame[50..52].copy_from_slice(&field);
    frame.extend((0..data).map(|byte| (byte * 31) as u8));
    let mut header = [0; 12];
    (header[0], header[1]) = (1, 1);
    header[2..4].copy_from_slice(&54_u16.to_le_bytes());
    header[4..6].copy_from_slice(&1448_u16.to_le_bytes());
    header[6..8].copy_from_slice(&34_u16.to_le_bytes());
    header[8..10].copy_from_slice(&16_u16.to_le_bytes());
    (header, frame)
}

/// Whether the checksum of a TCP packet over IPv4 is right.
pub(crate) fn is_summed(frame: &[u8]) -> bool {
    let segment = &frame[34..];
    fold(sum(&frame[26..34]) + 6 + segment.len() as u64 + sum(segment)) == 0xffff
}

fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
