//! What a frame costs the switch's own code: `cargo bench -p casemate-switch`.
//!
//! Rings and guests are in the memory of one process and one thread, so no cache line travels
//! between processors. It tells whether a change costs instructions, not how fast a network is:
//! for that there is `cargo xtask bench switch`. A program of its own, as medians of a loop need no
//! framework.

#[path = "../tests/front/driver.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod driver;

use std::rc::Rc;
use std::time::Instant;

use casemate_switch::forward::offload::Offloads;
use casemate_switch::forward::{Fabric, Receive, Transmit};
use casemate_switch::memory::PlainMemory;
use casemate_switch::ring::{Direction, Options, Ring};
use casemate_switch::rules::{Binding, Mac, Role, Table};
use driver::{Driver, WRITE};

const RING: u16 = 256;
const BUFFER: u64 = 2048;
const OPTIONS: Options = Options { event_index: false, indirect: true, in_order: true };
const ALL: Offloads = Offloads { checksum: true, tcp4: true, tcp6: true };

struct Guest {
    memory: Rc<PlainMemory>,
    send: Driver,
    take: Driver,
    transmit: Transmit<PlainMemory>,
    binding: Binding,
}

fn mac(port: usize) -> Mac {
    Mac::from([0x52, 0x54, 0, 0, 0, port as u8])
}

fn guest(port: usize, to: usize, length: u32) -> (Guest, Receive<PlainMemory>) {
    let memory = Rc::new(PlainMemory::new(0x1000, 4 << 20));
    let send = Driver::new(0x1000, RING, false);
    let mut take = Driver::new(0x4000, RING, false);
    for index in 0..RING {
        let frame = 0x10_0000 + u64::from(index) * BUFFER + 116;
        let mut bytes = [0; 14];
        bytes[..6].copy_from_slice(&mac(to).bytes());
        bytes[6..12].copy_from_slice(&mac(port).bytes());
        bytes[12] = 8;
        Driver::put(&*memory, frame + 12, bytes);
        send.descriptor(&*memory, index, frame, 12 + length, (0, 0));
        let buffer = 0x20_0000 + u64::from(index) * BUFFER + 116;
        take.descriptor(&*memory, index, buffer, BUFFER as u32, (WRITE, 0));
        take.offer(&*memory, index);
    }
    send.want_signal(&*memory, false);
    take.want_signal(&*memory, false);
    take.show(&*memory);
    let ring = |layout, direction| {
        Ring::new(Rc::clone(&memory), layout, direction, OPTIONS).expect("a good ring")
    };
    let transmit = Transmit::new(ring(send.layout, Direction::FromGuest), true, ALL);
    let receive = Receive::new(ring(take.layout, Direction::ToGuest), true, true, ALL);
    let role = if port == 0 { Role::Router } else { Role::Client };
    let binding = Binding { role, mac: mac(port), addresses: Vec::new(), not_from: Vec::new() };
    (Guest { memory, send, take, transmit, binding }, receive)
}

/// Nanoseconds for each frame that clients send to the router, 64 at a time.
fn measure(ports: usize, length: u32, rounds: usize) -> f64 {
    let mut fabric = Fabric::default();
    let mut guests = Vec::new();
    for port in 0..ports {
        let (guest, receive) = guest(port, 0, length);
        guests.push(guest);
        fabric.receivers.push(Some(receive));
        fabric.counters.push(Default::default());
    }
    let bindings = guests.iter().enumerate();
    fabric.table =
        Table::new(bindings.map(|(port, guest)| (port, guest.binding.role, guest.binding.mac)));
    let mut samples = Vec::new();
    for _ in 0..rounds {
        for port in 1..ports {
            let guest = &mut guests[port];
            for _ in 0..64 {
                let head = guest.send.available % RING;
                guest.send.offer(&*guest.memory, head);
            }
            guest.send.show(&*guest.memory);
            let begin = Instant::now();
            let turn = fabric.turn(port, &guest.binding, &mut guest.transmit);
            samples.push(begin.elapsed().as_nanos() as f64 / 64.0);
            assert_eq!((turn.frames, turn.violations), (64, 0));
            let router = &mut guests[0];
            while let Some((head, _)) = router.take.take(&*router.memory) {
                router.take.offer(&*router.memory, head);
            }
            router.take.show(&*router.memory);
        }
    }
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() {
    for length in [60, 1514] {
        for ports in [2, 8, 64] {
            let cost = measure(ports, length, 20_000 / ports);
            println!("{length:>5} bytes, {ports:>2} ports: {cost:6.1} ns for each frame");
        }
    }
}
