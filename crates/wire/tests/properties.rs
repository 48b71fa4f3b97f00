//! What holds for all bytes and all ways to cut them into pieces.

use casemate_wire::limits::{MAX_MESSAGE, MAX_PAYLOAD, WINDOW};
use casemate_wire::message::{Assembler, push_message};
use casemate_wire::{
    CreditError, Decoder, ExitStatus, FromGuest, FromHost, HEADER_LEN, Kind, MessageError,
    Receiver, Sender, decode, preamble, push_frame, text,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn kind() -> impl Strategy<Value = Kind> {
    (1..=11_u8).prop_map(|number| Kind::from_u8(number).expect("kinds are 1 to 11"))
}

/// Payloads are mostly small, sometimes as large as allowed.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![
        8 => 0..200_usize,
        1 => Just(MAX_PAYLOAD),
        1 => MAX_PAYLOAD - 20..=MAX_PAYLOAD,
    ];
    (size, any::<u8>()).prop_map(|(len, seed)| {
        (0..len).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    })
}

/// Feeds `bytes` to a decoder in pieces of these sizes, over and over; gives what it found.
fn decode_in_pieces(
    bytes: &[u8],
    pieces: &[usize],
) -> Result<Vec<(u32, Kind, Vec<u8>)>, casemate_wire::FrameError> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    let mut rest = bytes;
    let mut sizes = pieces.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
        let (mut piece, behind) = rest.split_at(size);
        rest = behind;
        while !piece.is_empty() {
            let taken = decoder.push(piece);
            assert!(taken > 0, "the decoder takes no more although all frames were taken");
            piece = &piece[taken..];
            while let Some(frame) = decoder.next_frame()? {
                assert!(frame.payload.len() <= MAX_PAYLOAD);
                frames.push((frame.stream, frame.kind, frame.payload.to_vec()));
            }
        }
    }
    Ok(frames)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces(
        frames in vec((any::<u32>(), kind(), payload()), 0..12),
        pieces in vec(1..100_000_usize, 1..6),
    ) {
        let mut bytes = Vec::new();
        for (stream, kind, payload) in &frames {
            push_frame(&mut bytes, *stream, *kind, payload);
        }
        prop_assert_eq!(decode_in_pieces(&bytes, &pieces), Ok(frames));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(
        bytes in vec(any::<u8>(), 0..4096),
        pieces in vec(1..64_usize, 1..6),
    ) {
        let _ = decode_in_pieces(&bytes, &pieces);
        let _ = decode::<FromGuest>(&bytes);
        let _ = decode::<FromHost>(&bytes);
        let _ = decode::<ExitStatus>(&bytes);
    }

    /// Bytes that look right at first get further into the decoder.
    #[test]
    fn nearly_right_bytes_make_no_decoder_panic(
        mut messages in vec(vec(any::<u8>(), 0..300), 1..6),
        spoilt in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        for message in &mut messages {
            if let Some(first) = message.first_mut() {
                *first %= 6;
            }
            push_frame(&mut bytes, 0, Kind::Message, message);
        }
        let index = spoilt.index(bytes.len());
        bytes[index] = with;
        let mut decoder = Decoder::new();
        let mut assembler = Assembler::default();
        decoder.push(&bytes);
        while let Ok(Some(frame)) = decoder.next_frame() {
            let _ = frame.credit();
            let _ = frame.size();
            let _ = frame.signal();
            if assembler.take::<FromGuest>(frame).is_err() {
                break;
            }
        }
    }

    #[test]
    fn long_messages_travel_in_several_frames(len in 0..300_000_usize) {
        let message = FromGuest::Log { text: "x".repeat(len) };
        let mut bytes = Vec::new();
        push_message(&mut bytes, &message).expect("short enough");
        let frames = decode_in_pieces(&bytes, &[4096]).expect("frames");
        prop_assert_eq!(frames.len(), casemate_wire::encode(&message).len().div_ceil(MAX_PAYLOAD));
        let mut assembler = Assembler::default();
        let mut got = None;
        for (stream, kind, payload) in &frames {
            prop_assert!(got.is_none());
            let frame = casemate_wire::Frame { stream: *stream, kind: *kind, payload };
            got = assembler.take::<FromGuest>(frame).expect("a message");
        }
        prop_assert_eq!(got, Some(message));
    }

    #[test]
    fn both_ends_agree_about_credit(steps in vec((any::<bool>(), 0..200_000_usize), 0..200)) {
        let mut sender = Sender::default();
        let mut receiver = Receiver::default();
        let mut returned = 0;
        for (sends, count) in steps {
            if sends {
                let count = count.min(sender.available());
                sender.spend(count);
                prop_assert_eq!(receiver.received(count), Ok(()));
            } else {
                receiver.passed_on(count.min(receiver.held()));
                if let Some(credit) = receiver.give_back() {
                    prop_assert!(credit >= WINDOW / 4);
                    returned += credit;
                    prop_assert_eq!(sender.returned(credit), Ok(()));
                }
            }
            prop_assert!(receiver.held() + sender.available() <= WINDOW as usize);
        }
        // Whoever passes everything on lets the other send again.
        receiver.passed_on(receiver.held());
        if let Some(credit) = receiver.give_back() {
            prop_assert_eq!(sender.returned(credit), Ok(()));
        }
        prop_assert!(sender.available() > WINDOW as usize / 2, "{} were returned", returned);
    }

    #[test]
    fn a_preamble_is_found_behind_any_garbage(
        garbage in vec(prop_oneof![any::<u8>(), Just(b'c'), Just(b'a'), Just(b'e')], 0..200),
        half in 0..preamble::LEN,
        nonce in any::<u64>(),
        behind in vec(any::<u8>(), 0..20),
        piece in 1..40_usize,
    ) {
        let wanted = preamble::encode(preamble::FROM_GUEST, nonce);
        let bytes = [&garbage[..], &wanted[..half], &wanted, &behind].concat();
        let mut hunter = preamble::Hunter::for_host();
        let mut used = 0;
        let mut found = None;
        for piece in bytes.chunks(piece) {
            if let Some((nonce, count)) = hunter.feed(piece) {
                used += count;
                found = Some(nonce);
                break;
            }
            used += piece.len();
        }
        // Half a preamble may run into the whole one, so that its nonce is found first.
        let begin = garbage.len() + half;
        if half < 8 {
            prop_assert_eq!(found, Some(nonce));
            prop_assert_eq!(&bytes[used..], &behind[..]);
            prop_assert_eq!(used, begin + preamble::LEN);
        } else {
            prop_assert!(found.is_some());
        }
    }

    #[test]
    fn an_agent_waits_for_its_own_nonce(stale in vec(any::<u64>(), 0..5), nonce in any::<u64>()) {
        let mut hunter = preamble::Hunter::for_guest(nonce);
        for other in stale {
            let answer = preamble::encode(preamble::FROM_HOST, other);
            prop_assert_eq!(hunter.feed(&answer).is_some(), other == nonce);
        }
        prop_assert_eq!(hunter.feed(&preamble::knock()).is_some(), nonce == 0);
        let answer = preamble::encode(preamble::FROM_HOST, nonce);
        prop_assert_eq!(hunter.feed(&answer), Some((nonce, preamble::LEN)));
    }

    #[test]
    fn harmless_text_is_harmless_and_bounded(
        bytes in vec(any::<u8>(), 0..300),
        wild in any::<String>(),
        limit in 0..200_usize,
    ) {
        for shown in [
            text::harmless_bytes(&bytes, limit),
            text::harmless(&wild, limit),
            text::harmless_line(&wild, limit),
        ] {
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
            let invisible = shown.contains(['\u{200b}', '\u{202e}', '\u{2066}', '\u{feff}']);
            prop_assert!(!invisible);
        }
        // One escape and the mark of the cut may stand over the limit.
        prop_assert!(text::harmless(&wild, limit).len() <= limit + 16);
        prop_assert!(!text::harmless_line(&wild, limit).contains(['\n', '\t']));
    }
}

#[test]
fn a_preamble_is_never_taken_for_a_frame() {
    for magic in [preamble::FROM_GUEST, preamble::FROM_HOST] {
        let mut decoder = Decoder::new();
        decoder.push(&preamble::encode(magic, 1));
        assert!(decoder.next_frame().is_err());
    }
}

#[test]
fn lengths_over_the_limit_are_refused_before_anything_is_kept() {
    let header = casemate_wire::encode_header(1, Kind::Stdout, MAX_PAYLOAD);
    for excess in [1_u32, 2, 0x00ff_ffff - MAX_PAYLOAD as u32] {
        let mut header = header;
        let len = MAX_PAYLOAD as u32 + excess;
        header[5..].copy_from_slice(&len.to_le_bytes()[..3]);
        let mut decoder = Decoder::new();
        decoder.push(&header);
        assert!(decoder.next_frame().is_err());
    }
    assert_eq!(header.len(), HEADER_LEN);
}

#[test]
fn a_message_over_the_limit_is_neither_sent_nor_put_together() {
    let long = FromGuest::Log { text: "x".repeat(MAX_MESSAGE) };
    assert!(matches!(push_message(&mut Vec::new(), &long), Err(MessageError::TooLong)));
    let mut assembler = Assembler::default();
    let payload = vec![0; MAX_PAYLOAD];
    let part = casemate_wire::Frame { stream: 0, kind: Kind::MessagePart, payload: &payload };
    let refused = (0..=MAX_MESSAGE / MAX_PAYLOAD)
        .map(|_| assembler.take::<FromGuest>(part))
        .find(Result::is_err);
    assert!(matches!(refused, Some(Err(MessageError::TooLong))));
    let data = casemate_wire::Frame { stream: 0, kind: Kind::Stdout, payload: &[] };
    assert!(matches!(
        Assembler::default().take::<FromGuest>(data),
        Err(MessageError::WrongFrame(Kind::Stdout))
    ));
}

#[test]
fn credit_that_does_not_exist_is_an_error() {
    assert_eq!(Sender::default().returned(1), Err(CreditError::Overflow));
    let mut receiver = Receiver::default();
    assert_eq!(receiver.received(WINDOW as usize), Ok(()));
    assert_eq!(receiver.received(1), Err(CreditError::Overrun { excess: 1 }));
}

#[test]
fn escape_sequences_become_visible() {
    assert_eq!(text::harmless("a\x1b[31mb\n\u{202e}c", 100), "a\\u{1b}[31mb\n\\u{202e}c");
    assert_eq!(text::harmless_line("a\nb\tc", 100), "a\\nb\\tc");
    assert_eq!(text::harmless("abcdef", 3), "abc…");
}
