//! Any bytes as an answer of the DNS to one question: the first byte says which kind of address was
//! asked for, and whether what follows begins as an answer to it does.
//!
//! Nothing may panic, and no address is made of bytes that are not there.
#![no_main]

use casemate_netns::dns::{Family, answer, question};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let family = if choice & 1 == 1 { Family::V6 } else { Family::V4 };
    let asked = question(1, "some.example", family).expect("it is a name");
    let mut reply = bytes.to_vec();
    if choice & 2 == 2 {
        reply = asked.clone();
        // A reply with as many records as the next byte says.
        reply[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, bytes.first().copied().unwrap_or(0)]);
        reply.extend(bytes.get(1..).unwrap_or_default());
    }
    if let Ok(found) = answer(&asked, &reply, family) {
        assert!(found.addresses.len() * 4 <= reply.len());
        assert!(found.addresses.iter().all(|address| address.is_ipv6() == (family == Family::V6)));
    }
});
