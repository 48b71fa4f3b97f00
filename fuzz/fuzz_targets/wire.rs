//! Any bytes as what a guest sends, in pieces as a socket would hand them over.
//!
//! Nothing may panic, whatever comes out is no larger than what went in and than the limits, and
//! where the pieces begin and end makes no difference.
#![no_main]

use casemate_wire::limits::{MAX_PAYLOAD, MAX_TEXT};
use casemate_wire::message::Assembler;
use casemate_wire::preamble::Hunter;
use casemate_wire::text::{harmless_bytes, harmless_line};
use casemate_wire::{Decoder, ExitStatus, FromGuest, HEADER_LEN, Kind, decode, encode};
use libfuzzer_sys::fuzz_target;

/// A visible escape of one character and the mark of a cut, the most that a text may exceed its
/// limit by.
const EXCESS: usize = 16;

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    // From the first byte on frames, or with a preamble to be found first.
    let hunts = size & 1 == 1;
    let piece = 1 + usize::from(size >> 1);
    let whole = receive(bytes, bytes.len().max(1), hunts);
    assert_eq!(receive(bytes, piece, hunts), whole, "pieces of {piece} bytes make a difference");
});

/// What the host makes of a guest's bytes, as far as an error: one line for each frame.
fn receive(bytes: &[u8], piece: usize, hunts: bool) -> Vec<String> {
    let mut hunter = hunts.then(Hunter::for_host);
    let mut decoder = Decoder::new();
    let mut assembler = Assembler::default();
    let mut seen = Vec::new();
    let mut total = 0;
    for mut rest in bytes.chunks(piece) {
        if let Some(hunt) = &mut hunter {
            let Some((nonce, used)) = hunt.feed(rest) else { continue };
            seen.push(format!("nonce {nonce}"));
            rest = &rest[used..];
            hunter = None;
        }
        while !rest.is_empty() {
            let taken = decoder.push(rest);
            assert!(taken > 0, "a decoder without whole frames has space");
            rest = &rest[taken..];
            assert!(decoder.pending() <= 2 * (HEADER_LEN + MAX_PAYLOAD));
            loop {
                let frame = match decoder.next_frame() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => {
                        seen.push(error.to_string());
                        return seen;
                    }
                };
                total += HEADER_LEN + frame.payload.len();
                assert!(frame.payload.len() <= MAX_PAYLOAD && total <= bytes.len());
                let name = format!("{} {:?}", frame.stream, frame.kind);
                let meaning = match (frame.stream, frame.kind) {
                    (0, _) => match assembler.take::<FromGuest>(frame) {
                        Ok(message) => format!("{:?}", message.inspect(check_message)),
                        Err(error) => error.to_string(),
                    },
                    (_, Kind::Credit) => format!("{:?}", frame.credit()),
                    (_, Kind::Started) => format!("{:?}", frame.pid()),
                    (_, Kind::Resize) => format!("{:?}", frame.size()),
                    (_, Kind::Signal) => format!("{:?}", frame.signal()),
                    (_, Kind::Exit) => format!("{:?}", decode::<ExitStatus>(frame.payload).ok()),
                    _ => check_text(frame.payload),
                };
                seen.push(format!("{name}: {meaning}"));
            }
        }
    }
    seen
}

fn check_message(message: &FromGuest) {
    assert_eq!(decode::<FromGuest>(&encode(message)).expect("what was decoded"), *message);
    if let FromGuest::Log { text } | FromGuest::BootFailed { reason: text } = message {
        check_line(&harmless_line(text, MAX_TEXT));
    }
}

fn check_text(bytes: &[u8]) -> String {
    let shown = harmless_bytes(bytes, MAX_TEXT);
    check_line(&shown.replace(['\n', '\t'], " "));
    shown
}

fn check_line(shown: &str) {
    assert!(!shown.chars().any(char::is_control), "a control character is shown");
    // A line break takes one character more when it is made visible.
    assert!(shown.len() <= 2 * MAX_TEXT + EXCESS, "a text of {} bytes is shown", shown.len());
}
