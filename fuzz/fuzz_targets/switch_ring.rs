//! Rings and frames in memory that is all the attacker's: a client's sending ring and the router's
//! receiving ring, through the whole data path.

#![no_main]

use std::rc::Rc;

use casemate_switch::forward::offload::Offloads;
use casemate_switch::forward::{Ended, Fabric, Receive, Transmit};
use casemate_switch::memory::{Memory, PlainMemory};
use casemate_switch::ring::{Direction, Layout, Options, Ring};
use casemate_switch::rules::{Binding, Mac, Role, Table};
use libfuzzer_sys::fuzz_target;

const BASE: u64 = 0x1000;
const LENGTH: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let Some((&[options, size_a, size_b, places @ ..], contents)) = data.split_first_chunk::<9>()
    else {
        return;
    };
    let bit = |bit: u8| options >> bit & 1 == 1;
    let memories = [(); 2].map(|()| Rc::new(PlainMemory::new(BASE, LENGTH)));
    let (first, second) = contents.split_at(contents.len() / 2);
    for (memory, bytes) in memories.iter().zip([first, second]) {
        if let Some(span) = memory.guest(BASE, LENGTH as u64) {
            span.write(bytes);
        }
    }
    let place = |index: usize| BASE + u64::from(places[index]) * 16;
    let layout = |size: u8, first: usize| Layout {
        size: 1 << (size % 9),
        descriptors: place(first),
        available: place(first + 1),
        used: place(first + 2),
        base: 0,
    };
    let options = Options { event_index: bit(0), indirect: bit(1), in_order: bit(2) };
    let sender = Offloads { checksum: true, tcp4: true, tcp6: true };
    let receiver = Offloads { checksum: bit(3), tcp4: bit(3) && bit(4), tcp6: bit(3) && bit(4) };
    let [client, router] = &memories;
    let sending = Ring::new(Rc::clone(client), layout(size_a, 0), Direction::FromGuest, options);
    let taking = Ring::new(Rc::clone(router), layout(size_b, 3), Direction::ToGuest, options);
    let (Ok(sending), Ok(taking)) = (sending, taking) else { return };

    let binding = |role, last| {
        let mac = Mac::from([0x52, 0x54, 0, 0, 0, last]);
        Binding { role, mac, addresses: Vec::new(), not_from: Vec::new() }
    };
    let bindings = [binding(Role::Router, 0), binding(Role::Client, 1)];
    let mut fabric = Fabric::default();
    fabric.table = Table::new(
        bindings.iter().enumerate().map(|(port, binding)| (port, binding.role, binding.mac)),
    );
    fabric.counters = vec![Default::default(); 2];
    fabric.receivers = vec![Some(Receive::new(taking, bit(5), bit(6), receiver)), None];
    let mut transmit = Transmit::new(sending, bit(5), sender);
    for round in 0..8 {
        let turn = fabric.turn(1, &bindings[1], &mut transmit);
        assert!(turn.frames <= 64 && turn.violations <= turn.frames);
        assert!(fabric.counters[0].received_frames <= 64 * 256 * (round + 1));
        match turn.ended {
            Ended::Broken(_) => return,
            Ended::Full(port) => assert_eq!(port, 0),
            Ended::Empty | Ended::More => {}
        }
        let _ = (transmit.ring.arm(), fabric.has_others(&mut transmit, 0));
        fabric.signals.clear();
    }
});
