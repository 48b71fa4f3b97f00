//! Front-ends and guests that attack the switch. After each attack the process lives, and a router
//! and another client go on as before.

// Each test program uses a part of it.
#[allow(dead_code)]
mod front;

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use casemate_switch::memory::Memory;
use casemate_switch::vhost::Features;
use front::driver::{Driver, INDIRECT, NEXT, WRITE};
use front::{FRONT_END, GUEST, Guest, MEMORY, Net, Setup, frames, front_end, mac, table, usual};
use nix::fcntl::SealFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::ftruncate;

/// Where an attacker has room for what it likes.
const ROOM: u64 = GUEST + (3 << 20);

/// A switch whose port 2 is attacked, while router and port 1 are honest.
fn attack(options: &[&str], attack: impl Fn(&Net, &mut Guest)) {
    attack_as(options, Setup::default, attack);
}

fn attack_as(options: &[&str], setup: impl Fn() -> Setup, attack: impl Fn(&Net, &mut Guest)) {
    let mut net = Net::with(2, options, |_| String::new());
    let (mut router, mut honest) = (net.guest(0), net.guest(1));
    net.works(&mut router, &mut honest);
    {
        let mut attacker = Guest::new(&net, 2, setup());
        attack(&net, &mut attacker);
        net.works(&mut router, &mut honest);
    }
    // The port is good for an honest guest afterwards.
    let mut successor = net.guest(2);
    net.works(&mut router, &mut successor);
    net.works(&mut router, &mut honest);
}

/// A table of descriptors: address, length, flags, next.
type Descriptors = [(u64, u32, u16, u16)];

/// Writes descriptors to the ring's table and offers the first of them.
fn offer(attacker: &mut Guest, descriptors: &Descriptors) {
    for (index, &(address, length, flags, next)) in descriptors.iter().enumerate() {
        let index = index as u16;
        let driver = &attacker.sending;
        driver.descriptor(&attacker.memory, index, address, length, (flags, next));
    }
    attacker.sending.offer(&attacker.memory, 0);
    attacker.sending.show(&attacker.memory);
    attacker.kick(1);
}

/// Whether the switch has stopped that ring: a good chain is not taken any more.
fn is_stopped(attacker: &mut Guest) -> bool {
    // What was offered before is looked at first.
    std::thread::sleep(Duration::from_millis(20));
    attacker.settle();
    let (to, from) = (mac(0), attacker.mac);
    let frame = [&[0; 12][..], &frames::plain(to, from, 60)].concat();
    attacker.memory.guest(ROOM, 72).unwrap().write(&frame);
    let before = attacker.sending.used_index(&attacker.memory);
    offer(attacker, &[(ROOM, 72, 0, 0)]);
    std::thread::sleep(Duration::from_millis(50));
    attacker.settle();
    attacker.sending.used_index(&attacker.memory) == before
}

#[test]
fn chains_that_no_driver_may_make_stop_the_ring() {
    let far = GUEST + MEMORY;
    let attacks: [(&str, &Descriptors); 11] = [
        ("a loop", &[(ROOM, 64, NEXT, 1), (ROOM, 64, NEXT, 0)]),
        ("a loop of one", &[(ROOM, 64, NEXT, 0)]),
        ("an empty loop", &[(ROOM, 0, NEXT, 0)]),
        ("beyond the memory", &[(far, 64, 0, 0)]),
        ("before the memory", &[(GUEST - 1, 64, 0, 0)]),
        ("over the end", &[(far - 63, 64, 0, 0)]),
        ("an address that wraps", &[(u64::MAX - 8, 64, 0, 0)]),
        ("a length that wraps", &[(ROOM, u32::MAX, 0, 0)]),
        ("the second one outside", &[(ROOM, 64, NEXT, 1), (far, 64, 0, 0)]),
        ("to be written", &[(ROOM, 72, WRITE, 0)]),
        ("a next one that is none", &[(ROOM, 64, NEXT, 256)]),
    ];
    for (name, descriptors) in attacks {
        println!("{name}");
        attack(&[], |_, attacker| {
            offer(attacker, descriptors);
            assert!(is_stopped(attacker), "{name}");
        });
    }
}

#[test]
fn indirect_tables_that_no_driver_may_make_stop_the_ring() {
    let far = GUEST + MEMORY;
    let attacks: [(&str, &Descriptors, _); 9] = [
        ("nested", &[(ROOM, 16, INDIRECT, 0)], (ROOM, 16, INDIRECT, 0)),
        ("odd", &[], (ROOM, 17, INDIRECT, 0)),
        ("empty", &[], (ROOM, 0, INDIRECT, 0)),
        ("huge", &[], (GUEST, 0xf_fff0, INDIRECT, 0)),
        ("outside", &[], (far, 64, INDIRECT, 0)),
        ("over the end", &[], (far - 16, 32, INDIRECT, 0)),
        ("goes on", &[(ROOM, 64, 0, 0)], (ROOM, 16, INDIRECT | NEXT, 0)),
        ("a next one that is none", &[(ROOM, 64, NEXT, 1)], (ROOM, 16, INDIRECT, 0)),
        ("a loop", &[(ROOM, 64, NEXT, 0)], (ROOM, 16, INDIRECT, 0)),
    ];
    for (name, inner, outer) in attacks {
        println!("{name}");
        attack(&[], |_, attacker| {
            for (index, &(address, length, flags, next)) in inner.iter().enumerate() {
                let index = index as u16;
                let flags = (flags, next);
                Driver::describe(&attacker.memory, ROOM, index, address, length, flags);
            }
            offer(attacker, &[outer]);
            assert!(is_stopped(attacker), "{name}");
        });
    }
}

#[test]
fn heads_and_indices_that_jump_stop_the_ring() {
    attack(&[], |_, attacker| {
        attacker.sending.offer(&attacker.memory, 300);
        attacker.push();
        attacker.kick(1);
        assert!(is_stopped(attacker));
    });
    for jump in [257, 30_000, 65_535] {
        attack(&[], |_, attacker| {
            let index = attacker.sending.available.wrapping_add(jump);
            attacker.sending.set_index(&attacker.memory, index);
            attacker.kick(1);
            assert!(is_stopped(attacker));
            let index = attacker.taking.available.wrapping_add(jump);
            attacker.taking.set_index(&attacker.memory, index);
            attacker.kick(0);
        });
    }
}

#[test]
fn a_broken_receiving_ring_costs_its_port_only() {
    for (name, descriptor) in [
        ("outside", (GUEST + MEMORY, 2048, (WRITE, 0))),
        ("to be read", (ROOM, 2048, (0, 0))),
        ("a loop of empty ones", (ROOM, 0, (WRITE | NEXT, 0))),
        ("one byte each", (ROOM, 1, (WRITE, 0))),
    ] {
        println!("{name}");
        let mut net = Net::new(2);
        let (mut router, mut honest) = (net.guest(0), net.guest(1));
        let setup = Setup { offers: false, ..Setup::default() };
        let mut attacker = Guest::new(&net, 2, setup);
        let (address, length, flags) = descriptor;
        for index in 0..256 {
            attacker.taking.descriptor(&attacker.memory, index, address, length, flags);
            attacker.taking.offer(&attacker.memory, index);
        }
        attacker.taking.show(&attacker.memory);
        attacker.kick(0);
        for _ in 0..1000 {
            router.send(&frames::plain(attacker.mac, router.mac, 1514));
        }
        net.works(&mut router, &mut honest);
    }
}

#[test]
fn rings_have_to_be_where_memory_is() {
    let far = GUEST + MEMORY;
    for (descriptors, used, available) in [
        (far - 4096 + 16, ROOM, ROOM),
        (far, ROOM, ROOM),
        (ROOM + 8, ROOM, ROOM),
        (ROOM, far - 2052 + 4, ROOM),
        (ROOM, ROOM, far - 518 + 2),
        (ROOM, ROOM + 2, ROOM),
        (ROOM, ROOM, ROOM + 1),
        (u64::MAX - FRONT_END + GUEST - 15, ROOM, ROOM),
    ] {
        attack(&[], |_, attacker| {
            attacker.addresses(1, descriptors, used, available);
            attacker.tell_with(12, &1_u64.to_le_bytes(), &[attacker.kicks[1].as_fd()]);
            attacker.kick(1);
            attacker.settle();
            assert!(is_stopped(attacker));
        });
    }
    // Up to the last byte is good.
    attack(&[], |_, attacker| {
        let layout = attacker.sending.layout;
        attacker.addresses(1, far - 4096, layout.used, layout.available);
        attacker.tell_with(12, &1_u64.to_le_bytes(), &[attacker.kicks[1].as_fd()]);
        attacker.sending.layout.descriptors = far - 4096;
        attacker.settle();
        assert!(!is_stopped(attacker));
    });
}

#[test]
fn regions_have_to_be_what_they_say() {
    let good = (GUEST, MEMORY, FRONT_END, 0);
    for (name, regions) in [
        ("beyond the file", vec![(GUEST, MEMORY + 1, FRONT_END, 0)]),
        ("an offset beyond the file", vec![(GUEST, 4096, FRONT_END, MEMORY)]),
        ("an offset that wraps", vec![(GUEST, 4096, FRONT_END, u64::MAX - 100)]),
        ("an address that wraps", vec![(u64::MAX - 100, 4096, FRONT_END, 0)]),
        ("nothing", vec![(GUEST, 0, FRONT_END, 0)]),
        ("overlapping", vec![good, (GUEST + 4096, 4096, 0, 0)]),
        ("overlapping in the front-end", vec![good, (0, 4096, FRONT_END + 1, 0)]),
        ("half of all addresses", vec![(0, 1 << 63, 0, 0)]),
    ] {
        println!("{name}");
        attack(&[], |_, attacker| {
            let file = attacker.file.try_clone().unwrap();
            let files = vec![file.as_fd(); regions.len()];
            attacker.tell_with(5, &table(&regions), &files);
            assert!(attacker.is_sent_away(), "{name}");
        });
    }
}

#[test]
fn a_buffer_in_two_regions_stops_the_ring() {
    attack(&[], |_, attacker| {
        let half = MEMORY / 2;
        let regions = [(GUEST, half, FRONT_END, 0), (GUEST + half, half, FRONT_END + half, half)];
        let file = attacker.file.as_fd();
        attacker.tell_with(5, &table(&regions), &[file, file]);
        attacker.settle();
        offer(attacker, &[(GUEST + half - 36, 72, 0, 0)]);
        assert!(is_stopped(attacker));
    });
}

#[test]
fn thousands_of_regions_and_descriptors_are_not_kept() {
    attack(&[], |net, attacker| {
        let open = || std::fs::read_dir(format!("/proc/{}/fd", net.process())).unwrap().count();
        let before = open();
        attacker.tell(5, &5000_u64.to_le_bytes());
        assert!(attacker.is_sent_away());
        for count in [9, 100, 253] {
            let file = attacker.file.try_clone().unwrap();
            let mut other = Guest::connect(net, 2, Setup::default());
            let _ = other.try_tell(1, &[], &vec![file.as_fd(); count]);
            assert!(other.is_sent_away(), "{count} descriptors");
        }
        let mut other = Guest::connect(net, 2, Setup::default());
        for number in 0..100_u64 {
            let region = (number << 32, 4096, number << 32, 0);
            let mut payload = table(&[region]);
            payload[..8].fill(0);
            if other.try_tell(37, &payload, &[attacker.file.as_fd()]).is_err() {
                break;
            }
        }
        assert!(other.is_sent_away());
        // One more for a connection that was let go a moment ago.
        assert!(open() <= before + 1, "{} descriptors, before {before}", open());
    });
}

#[test]
fn messages_that_are_none_end_the_connection_only() {
    let long = [0; 8192];
    for (name, bytes) in [
        ("a wrong version", &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..]),
        ("a payload of four gigabytes", &[1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255]),
        ("an unknown request", &[200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
        ("zeroes", &long[..]),
        ("a ring of three entries", &[8, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]),
        ("queue number 7", &[11, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        println!("{name}");
        attack(&[], |_, attacker| {
            let _ = attacker.socket.write_all(bytes);
            assert!(attacker.is_sent_away(), "{name}");
        });
    }
}

#[test]
fn features_that_were_not_offered_end_the_connection() {
    attack(&[], |_, attacker| {
        attacker.tell(2, &(1_u64 << 33).to_le_bytes());
        assert!(attacker.is_sent_away());
    });
}

#[test]
fn half_a_message_and_then_silence_holds_up_nobody() {
    for half in [1, 11, 12, 15] {
        attack(&[], |_, attacker| {
            let message = [&front::message(18, 8)[..], &[0; 8]].concat();
            attacker.socket.write_all(&message[..half]).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        });
    }
}

#[test]
fn replies_that_nobody_reads_hold_up_nobody() {
    attack(&[], |_, attacker| {
        attacker.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let message = front::message(1, 0).repeat(1000);
        for _ in 0..100 {
            if attacker.socket.write_all(&message).is_err() {
                break;
            }
        }
    });
}

#[test]
fn a_flood_of_messages_leaves_time_for_others() {
    let mut net = Net::new(2);
    let (mut router, mut honest) = (net.guest(0), net.guest(1));
    let attacker = net.guest(2);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (net, stop, socket) = (&mut net, &stop, &attacker.socket);
        scope.spawn(move || {
            let mut socket = socket;
            let message = [&front::message(10, 8)[..], &[0; 8]].concat().repeat(100);
            socket.set_nonblocking(true).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = socket.write(&message);
            }
        });
        for _ in 0..5 {
            net.works(&mut router, &mut honest);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_full_blocking_call_holds_up_nobody() {
    attack(&[], |_, attacker| {
        let full = EventFd::from_value_and_flags(0, EfdFlags::empty()).unwrap();
        full.write(u64::MAX - 1).unwrap();
        attacker.tell_with(13, &1_u64.to_le_bytes(), &[full.as_fd()]);
        attacker.tell_with(13, &0_u64.to_le_bytes(), &[full.as_fd()]);
        attacker.sending.want_signal(&attacker.memory, true);
        for _ in 0..100 {
            attacker.send(&frames::plain(mac(0), attacker.mac, 60));
            attacker.sending.want_signal(&attacker.memory, true);
        }
        attacker.flush();
    });
}

#[test]
fn what_is_no_eventfd_is_not_signalled() {
    attack(&[], |_, attacker| {
        let file = attacker.file.try_clone().unwrap();
        attacker.tell_with(13, &1_u64.to_le_bytes(), &[file.as_fd()]);
        assert!(attacker.is_sent_away());
    });
    attack(&[], |_, attacker| {
        let socket = attacker.socket.try_clone().unwrap();
        attacker.tell_with(12, &1_u64.to_le_bytes(), &[socket.as_fd()]);
        assert!(attacker.is_sent_away());
    });
}

#[test]
fn memory_that_could_shrink_is_refused() {
    let mut net = Net::new(2);
    let (mut router, mut honest) = (net.guest(0), net.guest(1));
    let setup = Setup { seals: SealFlag::F_SEAL_SEAL, ..Setup::default() };
    let mut attacker = Guest::connect(&net, 2, setup);
    attacker.set_memory();
    assert!(attacker.is_sent_away());
    net.works(&mut router, &mut honest);
}

#[test]
fn memory_that_is_no_memory_is_refused() {
    let mut net = Net::with(2, &["--allow-unsealed-memory"], |_| String::new());
    let (mut router, mut honest) = (net.guest(0), net.guest(1));
    let mut attacker = Guest::connect(&net, 2, Setup::default());
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    attacker.tell_with(5, &table(&[(GUEST, 4096, FRONT_END, 0)]), &[file.as_fd()]);
    assert!(attacker.is_sent_away());
    net.works(&mut router, &mut honest);
}

#[test]
fn memory_that_shrinks_costs_its_port_only() {
    for length in [0, 1 << 19, 1 << 20] {
        // All of it; all but the sending ring; or the frames and buffers alone.
        let mut net = Net::with(2, &["--allow-unsealed-memory"], |_| String::new());
        let (mut router, mut honest) = (net.guest(0), net.guest(1));
        let setup = Setup { seals: SealFlag::empty(), ..Setup::default() };
        let mut attacker = Guest::new(&net, 2, setup);
        net.works(&mut router, &mut attacker);
        // Frames that are to be looked at and delivered when nothing is there any more.
        attacker.offer_frame(&[0; 12], &frames::plain(mac(0), attacker.mac, 1514));
        attacker.sending.show(&attacker.memory);
        ftruncate(&attacker.file, length).unwrap();
        attacker.kick(1);
        router.send(&frames::plain(attacker.mac, router.mac, 1514));
        assert!(attacker.is_sent_away(), "{length} bytes left");
        net.works(&mut router, &mut honest);
    }
}

#[test]
fn headers_that_lie_cost_a_frame_each() {
    let lie = |at: usize, value: u16| {
        let (mut header, frame) = frames::tcp(mac(0), mac(2), 9000);
        header[at..at + 2].copy_from_slice(&value.to_le_bytes());
        (header, frame)
    };
    let mut net = Net::new(2);
    let (mut router, mut honest) = (net.guest(0), net.guest(1));
    let mut attacker = net.guest(2);
    for (header, frame) in [
        lie(0, 0x0100), // segments without a checksum
        lie(0, 0x0301), // UDP fragments
        lie(0, 0x0401), // the other IP version
        lie(0, 0x8101), // ECN that was not agreed on
        lie(4, 0),      // segments of nothing
        lie(4, 1),      // of one byte
        lie(6, 0),      // a checksum from the beginning
        lie(6, 65535),  // from beyond the end
        lie(8, 65535),  // to beyond the end
    ] {
        attacker.send_with(&header, &frame);
        let last = frames::plain(mac(0), attacker.mac, 60);
        attacker.send(&last);
        assert_eq!(router.take(), last, "{header:?}");
    }
    // A length of headers is only a hint, and replaced.
    let (header, frame) = lie(2, 65535);
    attacker.send_with(&header, &frame);
    let (header, taken) = router.take_with();
    assert_eq!((&header[2..4], &taken), (&54_u16.to_le_bytes()[..], &frame));
    net.works(&mut router, &mut honest);
}

#[test]
fn a_header_that_changes_while_it_is_read_is_delivered_as_it_was_decided() {
    let net = Net::new(2);
    let mut router = net.guest(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut attacker = net.guest(2);
    let memory = attacker.memory.clone();
    let (me, other) = (mac(2), mac(1));
    // The source of the frame in the first buffer changes all the time.
    let addresses = [me.bytes(), other.bytes()];
    let stop = &stop;
    std::thread::scope(|scope| {
        let file = attacker.file.try_clone().unwrap();
        scope.spawn(move || {
            let region = casemate_switch::memory::Region {
                guest: GUEST,
                length: MEMORY,
                front_end: FRONT_END,
                offset: 0,
            };
            let memory =
                casemate_switch::memory::GuestMemory::new(vec![(region, file)], true).unwrap();
            let source = memory.guest(ROOM + 12 + 6, 6).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for address in &addresses {
                    source.write(address);
                }
            }
        });
        let frame = [&[0; 12][..], &frames::plain(mac(0), me, 60)].concat();
        memory.guest(ROOM, 72).unwrap().write(&frame);
        let mut taken = 0;
        for _ in 0..300 {
            for _ in 0..50 {
                offer(&mut attacker, &[(ROOM, 72, 0, 0)]);
            }
            attacker.flush();
            while let Some((_, frame)) = router.try_take() {
                assert_eq!(frame[6..12], me.bytes());
                taken += 1;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(taken > 0, "no frame had its own source");
    });
}

#[test]
fn a_flood_of_forged_frames_is_left_alone() {
    let mut net = Net::new(2);
    let (mut router, mut honest) = (net.guest(0), net.guest(1));
    let mut attacker = net.guest(2);
    for _ in 0..5000 {
        attacker.offer_frame(&[0; 12], &frames::plain(mac(0), mac(1), 60));
    }
    attacker.push();
    net.works(&mut router, &mut honest);
    // It is listened to again, later.
    attacker.flush();
    attacker.send(&frames::plain(mac(0), attacker.mac, 60));
    assert_eq!(router.take().len(), 60);
}

#[test]
fn rings_without_memory_or_kick_do_nothing() {
    let mut net = Net::new(2);
    let (mut router, mut honest) = (net.guest(0), net.guest(1));
    let attacker = Guest::connect(&net, 2, Setup::default());
    attacker.tell(2, &usual().0.to_le_bytes());
    for queue in [0, 1] {
        attacker.state(18, queue, 1);
        attacker.state(8, queue, 0);
        attacker.addresses(queue as usize, GUEST, GUEST, GUEST);
        let kick = attacker.kicks[0].as_fd();
        attacker.tell_with(12, &u64::from(queue).to_le_bytes(), &[kick]);
    }
    attacker.kick(0);
    net.works(&mut router, &mut honest);
    let _ = (Features::offered(), front_end(GUEST));
}

#[test]
fn connecting_again_and_again_costs_others_nothing() {
    let mut net = Net::new(2);
    let (mut router, mut honest) = (net.guest(0), net.guest(1));
    for _ in 0..200 {
        drop(Guest::connect(&net, 2, Setup { offers: false, ..Setup::default() }));
    }
    net.works(&mut router, &mut honest);
    let mut successor = net.guest(2);
    net.works(&mut router, &mut successor);
}
