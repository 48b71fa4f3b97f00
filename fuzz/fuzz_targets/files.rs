//! A stream of files in pieces of any size: no panic, and what the decoder says keeps to what was announced
//! and to the limits, with names that are allowed. The same for a reply.

#![no_main]

use casemate_files::limits::{MAX_DEPTH, MAX_ENTRIES};
use casemate_files::{Decoder, Event, Limits, Reply, Sum, check_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else { return };
    if let Ok(Some((reply, length))) = Reply::decode(data) {
        assert!(length <= Reply::MAX && reply.encode().len() <= Reply::MAX);
    }
    let sealed = if first & 1 == 1 { seal(data) } else { data.to_vec() };
    read(&sealed, usize::from(first >> 1) + 1);
});

/// The stream with right sums where records of sums seem to be, which chance does not find.
fn seal(data: &[u8]) -> Vec<u8> {
    let mut sealed = data.to_vec();
    for at in 0..sealed.len().saturating_sub(8) {
        if matches!(sealed[at], b'S' | b'E') && sealed[at + 1..at + 9] == [0; 8] {
            let mut sum = Sum::default();
            sum.update(&sealed[..=at]);
            sealed[at + 1..at + 9].copy_from_slice(&sum.value().to_le_bytes());
        }
    }
    sealed
}

fn read(mut data: &[u8], piece: usize) {
    let mut decoder = Decoder::new(Limits { entries: MAX_ENTRIES, bytes: 1 << 40 });
    let (mut announced, mut seen) = ((0u32, 0u64), (0u32, 0u64));
    let (mut depth, mut left) = (0usize, None);
    loop {
        loop {
            match decoder.next_event() {
                Err(_) => return,
                Ok(None) => break,
                Ok(Some(Event::Begin { entries, bytes, .. })) => announced = (entries, bytes),
                Ok(Some(Event::Folder(name))) => {
                    assert!(left.is_none() && check_name(name.as_bytes()).is_ok());
                    depth += 1;
                    seen.0 += 1;
                }
                Ok(Some(Event::Leave)) => depth = depth.checked_sub(1).expect("within"),
                Ok(Some(Event::File { name, size, .. })) => {
                    assert!(left.is_none() && check_name(name.as_bytes()).is_ok());
                    left = Some(size);
                    seen.0 += 1;
                    seen.1 += size;
                }
                Ok(Some(Event::Data(bytes))) => {
                    assert!(!bytes.is_empty());
                    let now = left.as_mut().expect("a file");
                    *now = now.checked_sub(bytes.len() as u64).expect("no more than its size");
                }
                Ok(Some(Event::FileEnd)) => assert_eq!(left.take(), Some(0)),
                Ok(Some(Event::ItemEnd | Event::End)) => assert!(left.is_none() && depth == 0),
                Ok(Some(Event::Aborted(_))) => {}
            }
            assert!(seen.0 <= announced.0 && seen.1 <= announced.1 && depth <= MAX_DEPTH);
        }
        if data.is_empty() || decoder.is_over() {
            return;
        }
        let space = decoder.space();
        assert!(!space.is_empty());
        let count = space.len().min(piece).min(data.len());
        space[..count].copy_from_slice(&data[..count]);
        decoder.filled(count);
        data = &data[count..];
    }
}
