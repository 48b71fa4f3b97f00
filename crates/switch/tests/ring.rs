//! Rings and the data path over memory of this process: no system call, so that it also runs under
//! valgrind and Miri (docs/design/0012-switch.md has the commands).

#[path = "front/driver.rs"]
#[allow(dead_code)]
mod driver;

use std::rc::Rc;

use casemate_switch::forward::offload::Offloads;
use casemate_switch::forward::{Drop, Ended, Fabric, Queue, Receive, Transmit};
use casemate_switch::memory::{Memory, PlainMemory};
use casemate_switch::ring::{Broken, Direction, Layout, Options, Ring};
use casemate_switch::rules::{Binding, Mac, Role, Table};
use driver::{Driver, INDIRECT, NEXT, WRITE};

const BASE: u64 = 0x1000;
const LENGTH: usize = 1 << 16;
/// Where frames and buffers are.
const ROOM: u64 = BASE + 0x2000;
const SIZE: u16 = 16;

fn mac(port: u8) -> Mac {
    Mac::from([0x52, 0x54, 0, 0, 0, port])
}

fn options(event_index: bool, in_order: bool) -> Options {
    Options { event_index, indirect: true, in_order }
}

/// A client that sends and a router that takes.
struct Pair {
    fabric: Fabric<PlainMemory>,
    client: Rc<PlainMemory>,
    router: Rc<PlainMemory>,
    sending: Driver,
    taking: Driver,
    transmit: Transmit<PlainMemory>,
}

fn binding(role: Role, port: u8) -> Binding {
    Binding { role, mac: mac(port), addresses: Vec::new(), not_from: Vec::new() }
}

impl Pair {
    fn new(options: Options, mergeable: bool) -> Self {
        let memory = || Rc::new(PlainMemory::new(BASE, LENGTH));
        let (client, router) = (memory(), memory());
        let sending = Driver::new(BASE, SIZE, options.event_index);
        let taking = Driver::new(BASE, SIZE, options.event_index);
        let ring = |memory: &Rc<PlainMemory>, layout, direction| {
            Ring::new(Rc::clone(memory), layout, direction, options).unwrap()
        };
        let transmit = ring(&client, sending.layout, Direction::FromGuest);
        let receive = ring(&router, taking.layout, Direction::ToGuest);
        let mut fabric = Fabric::default();
        let ports = [(0, Role::Router, mac(0)), (1, Role::Client, mac(1))];
        fabric.table = Table::new(ports.into_iter());
        fabric.counters = vec![Default::default(); 2];
        let offloads = Offloads { checksum: true, tcp4: true, tcp6: true };
        fabric.receivers = vec![Some(Receive::new(receive, true, mergeable, offloads)), None];
        let transmit = Transmit::new(transmit, true, offloads);
        Self { fabric, client, router, sending, taking, transmit }
    }

    fn turn(&mut self) -> casemate_switch::forward::Turn {
        self.fabric.turn(1, &binding(Role::Client, 1), &mut self.transmit)
    }

    /// Offers buffers of that length.
    fn offer(&mut self, count: u16, length: u32) {
        for _ in 0..count {
            let slot = self.taking.available % SIZE;
            let address = ROOM + u64::from(slot) * 2048;
            self.taking.descriptor(&*self.router, slot, address, length, (WRITE, 0));
            self.taking.offer(&*self.router, slot);
        }
        self.taking.show(&*self.router);
    }

    /// Sends a frame whose bytes count up.
    fn send(&mut self, length: u32) {
        let slot = self.sending.available % SIZE;
        let address = ROOM + u64::from(slot) * 2048;
        let mut bytes = [&[0; 12][..], &mac(0).bytes(), &mac(1).bytes()].concat();
        bytes.extend((24..12 + length).map(|byte| byte as u8));
        self.client.guest(address, bytes.len() as u64).unwrap().write(&bytes);
        self.sending.descriptor(&*self.client, slot, address, 12 + length, (0, 0));
        self.sending.offer(&*self.client, slot);
        self.sending.show(&*self.client);
    }
}

#[test]
fn frames_pass_for_many_times_the_rings_size() {
    for (event_index, in_order) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut pair = Pair::new(options(event_index, in_order), true);
        pair.offer(SIZE, 2048);
        // Indices of 16 bits come round.
        for number in 0..70_000_u32 / u32::from(SIZE) {
            let length = 60 + number % 1400;
            for _ in 0..SIZE {
                pair.send(length);
            }
            let turn = pair.turn();
            assert_eq!((turn.frames, turn.violations, turn.ended), (SIZE, 0, Ended::Empty));
            for _ in 0..SIZE {
                assert_eq!(
                    pair.taking.take(&*pair.router).map(|(_, length)| length),
                    Some(length + 12)
                );
            }
            assert_eq!(pair.sending.used_index(&*pair.client), pair.sending.available);
            pair.offer(SIZE, 2048);
        }
        let span = pair.router.guest(ROOM + 12, 60).unwrap();
        let mut frame = [0; 60];
        span.read(&mut frame);
        assert_eq!(frame[..12], [mac(0).bytes(), mac(1).bytes()].concat());
        assert!(frame[12..].iter().enumerate().all(|(index, &byte)| byte == 24 + index as u8));
    }
}

#[test]
fn a_frame_is_spread_over_buffers_and_waits_for_enough_of_them() {
    let mut pair = Pair::new(options(true, false), true);
    pair.offer(3, 400);
    pair.send(1514);
    assert_eq!(pair.turn().ended, Ended::Full(0));
    assert_eq!(pair.taking.take(&*pair.router), None);
    pair.offer(1, 400);
    assert_eq!(pair.turn().frames, 1);
    let lengths: Vec<u32> =
        std::iter::from_fn(|| pair.taking.take(&*pair.router)).map(|(_, length)| length).collect();
    assert_eq!(lengths, [400, 400, 400, 326]);
    let mut count = [0; 2];
    pair.router.guest(ROOM + 10, 2).unwrap().read(&mut count);
    assert_eq!(u16::from_le_bytes(count), 4);
}

#[test]
fn without_mergeable_buffers_what_does_not_fit_one_is_dropped() {
    let mut pair = Pair::new(options(true, false), false);
    pair.offer(4, 400);
    pair.send(1514);
    pair.send(100);
    assert_eq!(pair.turn().frames, 2);
    assert_eq!(pair.fabric.counters[0].dropped(Drop::Buffers), 1);
    assert_eq!(pair.taking.take(&*pair.router), Some((0, 112)));
}

#[test]
fn one_signal_is_wanted_for_a_batch_and_none_where_none_is_wanted() {
    for event_index in [false, true] {
        let mut pair = Pair::new(options(event_index, false), true);
        pair.offer(SIZE, 2048);
        pair.taking.want_signal(&*pair.router, true);
        pair.sending.want_signal(&*pair.client, false);
        for _ in 0..4 {
            pair.send(60);
        }
        pair.turn();
        assert_eq!(pair.fabric.signals, [(0, Queue::Receive)]);
        pair.fabric.signals.clear();
        pair.taking.used = pair.taking.used_index(&*pair.router);
        pair.taking.want_signal(&*pair.router, false);
        pair.send(60);
        pair.turn();
        assert_eq!(pair.fabric.signals, []);
    }
}

#[test]
fn an_armed_ring_asks_for_a_kick_and_sees_what_came_before() {
    for event_index in [false, true] {
        let mut pair = Pair::new(options(event_index, false), true);
        pair.offer(SIZE, 2048);
        pair.send(60);
        pair.turn();
        assert_eq!(pair.transmit.ring.arm(), Ok(false));
        pair.send(60);
        pair.sending.descriptor(&*pair.client, 9, ROOM, 72, (0, 0));
        pair.sending.offer(&*pair.client, 9);
        // The one after it is not asked for, once the first has been seen.
        assert_eq!(pair.transmit.ring.arm(), Ok(true));
        pair.turn();
        assert_eq!(pair.transmit.ring.arm(), Ok(false));
        assert!(pair.sending.show(&*pair.client), "a kick is wanted");
    }
}

#[test]
fn whatever_no_driver_may_do_breaks_the_ring_and_touches_nothing_else() {
    type Case = (&'static str, fn(&mut Driver, &PlainMemory), Broken);
    let far = BASE + LENGTH as u64;
    let cases: [Case; 5] = [
        (
            "a jump",
            |driver, memory| driver.set_index(memory, SIZE + 1),
            Broken::Jump { pending: SIZE + 1, size: SIZE },
        ),
        (
            "a head beyond the table",
            |driver, memory| driver.offer(memory, SIZE),
            Broken::Head { head: SIZE, size: SIZE },
        ),
        (
            "a buffer over the end",
            |driver, memory| {
                driver.descriptor(memory, 0, BASE + LENGTH as u64 - 71, 72, (0, 0));
                driver.offer(memory, 0);
            },
            Broken::Outside { address: far - 71, length: 72 },
        ),
        (
            "a loop",
            |driver, memory| {
                driver.descriptor(memory, 0, ROOM, 72, (NEXT, 0));
                driver.offer(memory, 0);
            },
            Broken::Chain,
        ),
        (
            "a nested table",
            |driver, memory| {
                driver.descriptor(memory, 0, ROOM, 16, (INDIRECT, 0));
                Driver::describe(memory, ROOM, 0, ROOM, 16, (INDIRECT, 0));
                driver.offer(memory, 0);
            },
            Broken::Indirect { length: 16 },
        ),
    ];
    for (name, attack, broken) in cases {
        let mut pair = Pair::new(options(true, false), true);
        pair.offer(SIZE, 2048);
        attack(&mut pair.sending, &pair.client);
        if pair.sending.available > 0 {
            pair.sending.show(&*pair.client);
        }
        let turn = pair.turn();
        assert_eq!((turn.ended, turn.frames), (Ended::Broken(broken), 0), "{name}");
        assert_eq!(pair.taking.take(&*pair.router), None, "{name}");
    }
}

#[test]
fn rings_outside_the_memory_are_none() {
    let memory = Rc::new(PlainMemory::new(BASE, LENGTH));
    let far = BASE + LENGTH as u64;
    let good = Driver::new(BASE, SIZE, true).layout;
    let make = |layout: Layout| {
        Ring::new(Rc::clone(&memory), layout, Direction::FromGuest, options(true, false)).map(drop)
    };
    assert_eq!(make(good), Ok(()));
    assert_eq!(make(Layout { descriptors: far - 256, ..good }), Ok(()));
    for layout in [
        Layout { descriptors: far - 240, ..good },
        Layout { available: far - 36, ..good },
        Layout { used: far - 132, ..good },
        Layout { used: u64::MAX - 3, ..good },
        Layout { descriptors: BASE + 8, ..good },
        Layout { available: BASE + 1, ..good },
        Layout { used: BASE + 2, ..good },
    ] {
        assert!(matches!(make(layout), Err(Broken::Part { .. })), "{layout:?}");
    }
    for size in [0, 3, 40_000] {
        assert_eq!(make(Layout { size, ..good }), Err(Broken::Size { size }));
    }
}

#[test]
fn memory_of_noise_breaks_nothing_but_its_ring() {
    // The generator of Knuth's MMIX.
    let mut state = 1_u64;
    let mut noise = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for round in 0..400 {
        let mut pair = Pair::new(options(round % 2 == 0, round % 3 == 0), round % 5 != 0);
        pair.offer(SIZE, 2048);
        for _ in 0..SIZE {
            pair.send(60 + noise() % 1000);
        }
        // Somewhere in the rings or the headers.
        for _ in 0..1 + round % 4 {
            let memory = if noise() % 2 == 0 { &pair.client } else { &pair.router };
            let address = BASE + u64::from(noise() % 0x2400);
            Driver::put(&**memory, address, (noise() as u16).to_le_bytes());
        }
        for _ in 0..4 {
            let turn = pair.turn();
            assert!(turn.frames <= SIZE);
            if matches!(turn.ended, Ended::Broken(_)) {
                break;
            }
        }
    }
}
