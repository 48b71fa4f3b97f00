//! What honest guests get from a switch.

// Each test program uses a part of it.
#[allow(dead_code)]
mod front;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use casemate_switch::rules::Mac;
use casemate_switch::vhost::Features;
use front::driver::{Driver, INDIRECT, NEXT};
use front::frames;
use front::{GUEST, Guest, Net, PATIENCE, Setup, mac, usual};

fn without(features: Features) -> Setup {
    Setup { features: Features(usual().0 & !features.0), ..Setup::default() }
}

#[test]
fn a_client_and_the_router_exchange_frames_of_all_lengths() {
    let mut net = Net::new(1);
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    net.works(&mut router, &mut client);
    for length in [14, 15, 59, 64, 255, 256, 257, 1514, 2036, 2037, 9000] {
        let frame = frames::plain(router.mac, client.mac, length);
        client.send(&frame);
        assert_eq!(router.take(), frame, "{length} bytes");
    }
}

#[test]
fn clients_reach_the_router_only() {
    let net = Net::new(2);
    let (mut router, mut one, mut two) = (net.guest(0), net.guest(1), net.guest(2));
    one.send(&frames::plain(two.mac, one.mac, 60));
    let last = frames::plain(router.mac, one.mac, 61);
    one.send(&last);
    assert_eq!(router.take(), last);
    two.has_nothing();
}

#[test]
fn broadcast_and_multicast_go_to_the_router_and_from_it() {
    let net = Net::new(2);
    let (mut router, mut one, mut two) = (net.guest(0), net.guest(1), net.guest(2));
    for to in [frames::broadcast(), Mac::from([1, 0, 0x5e, 0, 0, 1])] {
        let frame = frames::plain(to, one.mac, 60);
        one.send(&frame);
        assert_eq!(router.take(), frame);
        two.has_nothing();
        let frame = frames::plain(to, router.mac, 60);
        router.send(&frame);
        assert_eq!(one.take(), frame);
        assert_eq!(two.take(), frame);
    }
}

#[test]
fn what_the_router_sends_to_nobody_floods_nowhere() {
    let net = Net::new(2);
    let (mut router, mut one, mut two) = (net.guest(0), net.guest(1), net.guest(2));
    router.send(&frames::plain(mac(77), router.mac, 60));
    let last = frames::plain(one.mac, router.mac, 61);
    router.send(&last);
    assert_eq!(one.take(), last);
    two.has_nothing();
}

#[test]
fn a_client_cannot_pretend_to_be_another() {
    let net = Net::with(2, &[], |port| match port {
        1 => ",ip=10.0.0.2".into(),
        _ => String::new(),
    });
    let (mut router, mut one) = (net.guest(0), net.guest(1));
    let (me, other) = (one.mac, mac(2));
    let mut tagged = frames::ethernet(router.mac, me, 0x8100);
    tagged.extend(frames::arp(me, other, [10, 0, 0, 3]).split_off(12));
    for (name, frame) in [
        ("source", frames::plain(router.mac, other, 60)),
        ("ARP sender", frames::arp(me, other, [10, 0, 0, 2])),
        ("ARP address", frames::arp(me, me, [10, 0, 0, 3])),
        ("tagged ARP", tagged),
        ("advertisement", frames::advertisement(router.mac, me, other, &[])),
        (
            "advertisement behind another header",
            frames::advertisement(router.mac, me, other, &[58, 0, 1, 4, 0, 0, 0, 0]),
        ),
        ("IP source", frames::ipv4(router.mac, me, [10, 0, 0, 3])),
    ] {
        one.send(&frame);
        let honest = frames::ipv4(router.mac, me, [10, 0, 0, 2]);
        one.send(&honest);
        assert_eq!(router.take(), honest, "{name} went through");
    }
    let honest = frames::arp(me, me, [10, 0, 0, 2]);
    one.send(&honest);
    assert_eq!(router.take(), honest);
}

#[test]
fn an_advertisement_of_its_own_passes() {
    let net = Net::new(1);
    let (mut router, mut one) = (net.guest(0), net.guest(1));
    for before in [&[][..], &[58, 0, 1, 4, 0, 0, 0, 0]] {
        let honest = frames::advertisement(router.mac, one.mac, one.mac, before);
        one.send(&honest);
        assert_eq!(router.take(), honest);
    }
}

#[test]
fn guests_of_different_generations_understand_each_other() {
    let old = Features::VERSION_1 | Features::MERGEABLE | Features::EVENT_INDEX;
    let mut net = Net::new(1);
    let mut router = net.guest(0);
    let mut client = Guest::new(&net, 1, without(old));
    assert_eq!((router.header(), client.header()), (12, 10));
    net.works(&mut router, &mut client);
}

#[test]
fn in_order_guests_work_without_an_element_for_each_frame() {
    let mut net = Net::new(1);
    let setup = || Setup { features: Features::offered(), ..Setup::default() };
    let (mut router, mut client) = (Guest::new(&net, 0, setup()), Guest::new(&net, 1, setup()));
    net.works(&mut router, &mut client);
}

#[test]
fn a_long_packet_passes_whole_between_guests_that_take_it() {
    let net = Net::new(1);
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    let (header, frame) = frames::tcp(router.mac, client.mac, 60_000);
    client.send_with(&header, &frame);
    let (taken_header, taken) = router.take_with();
    assert_eq!(taken_header[..10], header[..10]);
    assert_eq!(taken, frame);
}

#[test]
fn a_long_packet_is_cut_and_summed_for_a_guest_that_does_not_take_it() {
    let net = Net::new(1);
    let mut client = net.guest(1);
    let lacks = Features::GUEST_TCP4 | Features::GUEST_CHECKSUM;
    let mut router = Guest::new(&net, 0, without(lacks));
    let (header, frame) = frames::tcp(router.mac, client.mac, 60_000);
    client.send_with(&header, &frame);
    let mut data = Vec::new();
    while data.len() < 60_000 {
        let (header, segment) = router.take_with();
        assert_eq!(header[..10], [0; 10]);
        assert!(segment.len() <= 54 + 1448 && frames::is_summed(&segment));
        data.extend_from_slice(&segment[54..]);
    }
    assert!(data == frame[54..]);
}

#[test]
fn chains_and_indirect_tables_are_frames_as_well() {
    let net = Net::new(1);
    let (mut router, client) = (net.guest(0), net.guest(1));
    let mut sending = Driver::new(GUEST + 0x1000, 256, true);
    let frame = frames::plain(router.mac, client.mac, 100);
    let at = GUEST + (1 << 20);
    let bytes = [&[0; 12][..], &frame].concat();
    Driver::put::<112>(&client.memory, at, bytes.try_into().unwrap());
    let parts = [(at, 5), (at + 5, 7), (at + 12, 0), (at + 12, 1), (at + 13, 99)];
    for (index, (address, length)) in parts.into_iter().enumerate() {
        let index = index as u16;
        let flags = if index < 4 { (NEXT, index + 1) } else { (0, 0) };
        sending.descriptor(&client.memory, index, address, length, flags);
        Driver::describe(&client.memory, at + 4096, index, address, length, flags);
    }
    sending.descriptor(&client.memory, 9, at + 4096, 80, (INDIRECT, 0));
    for head in [0, 9] {
        sending.offer(&client.memory, head);
        sending.show(&client.memory);
        client.kick(1);
        assert_eq!(router.take(), frame, "chain at {head}");
    }
}

#[test]
fn nothing_is_lost_when_the_receiver_is_slow() {
    let net = &Net::new(1);
    let mut router = Guest::new(net, 0, Setup { ring: 64, ..Setup::default() });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = net.guest(1);
            for number in 0..2000_usize {
                let mut frame = frames::plain(mac(0), client.mac, 60);
                frame[20..28].copy_from_slice(&number.to_be_bytes());
                client.send(&frame);
            }
            client.flush();
        });
        for number in 0..2000_usize {
            if number % 100 == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(router.take()[20..28], number.to_be_bytes());
        }
    });
}

#[test]
fn a_client_that_takes_nothing_does_not_hold_up_the_others() {
    let net = &Net::new(2);
    let dead = Setup { offers: false, ..Setup::default() };
    let (_dead, mut live) = (Guest::new(net, 1, dead), net.guest(2));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut router = net.guest(0);
            for number in 0..4000_usize {
                let mut frame = frames::plain(mac(1 + number % 2), router.mac, 60);
                frame[20..28].copy_from_slice(&number.to_be_bytes());
                router.send(&frame);
            }
            router.flush();
        });
        for number in (1..4000_usize).step_by(2) {
            assert_eq!(live.take()[20..28], number.to_be_bytes());
        }
    });
    // Each of the two thousand frames between could have been waited for, for a second each.
    assert!(begin.elapsed() < PATIENCE / 2);
}

#[test]
fn two_busy_clients_share_the_router() {
    let net = &Net::new(2);
    let mut router = Guest::new(net, 0, Setup { ring: 32, ..Setup::default() });
    let stop = &AtomicBool::new(false);
    let mut counts = [0; 3];
    std::thread::scope(|scope| {
        let senders = [1, 2].map(|port| {
            scope.spawn(move || {
                let mut client = net.guest(port);
                let frame = frames::plain(mac(0), client.mac, 60);
                while !stop.load(Ordering::Relaxed) {
                    client.send(&frame);
                }
            })
        });
        let begin = Instant::now();
        let mut taken = 0;
        // Counted from when both have begun.
        while counts[1].max(counts[2]) < 10_000 {
            counts[usize::from(router.take()[11])] += 1;
            taken += 1;
            // Slower than either sends, so that both always wait, whoever has a processor.
            if taken % 32 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            if counts[1].min(counts[2]) == 0 {
                counts = counts.map(|count: i32| count.min(1));
            }
            if begin.elapsed() > PATIENCE {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        // They end when what they have queued is gone.
        while !senders.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let _ = router.try_take();
        }
    });
    let [_, one, two] = counts;
    assert!(one.max(two) >= 10_000 && one.min(two) * 4 > one.max(two), "{counts:?}");
}

#[test]
fn guests_come_and_go_without_disturbing_others() {
    let mut net = Net::new(2);
    let (mut router, mut stays) = (net.guest(0), net.guest(1));
    for _ in 0..5 {
        let mut comes = net.guest(2);
        net.works(&mut router, &mut comes);
        // Gone in the middle of a burst.
        for _ in 0..50 {
            comes.offer_frame(&[0; 12], &frames::plain(router.mac, comes.mac, 60));
        }
        comes.push();
        drop(comes);
        let begin = Instant::now();
        let mut frame = frames::plain(router.mac, stays.mac, 99);
        frame[20] = 1;
        stays.send(&frame);
        while router.take() != frame {
            assert!(begin.elapsed() < PATIENCE);
        }
        net.works(&mut router, &mut stays);
    }
    drop(router);
    let mut router = net.guest(0);
    net.works(&mut router, &mut stays);
}

#[test]
fn a_ring_goes_on_where_it_was_stopped() {
    let mut net = Net::new(1);
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    net.works(&mut router, &mut client);
    // GET_VRING_BASE stops it and tells where.
    client.state(11, 1, 0);
    assert_eq!(client.answer() >> 32, u64::from(client.sending.available));
    client.sending.layout.base = client.sending.available;
    client.start(1);
    client.settle();
    net.works(&mut router, &mut client);
    // Disabled and enabled.
    client.state(18, 0, 0);
    client.state(18, 0, 1);
    client.settle();
    net.works(&mut router, &mut client);
}

#[test]
fn an_idle_switch_uses_no_processor_time() {
    let mut net = Net::new(2);
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    net.works(&mut router, &mut client);
    std::thread::sleep(Duration::from_millis(50));
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", net.process())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_millis(500));
    assert!(ticks() - before <= 1);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (reading, writing) = nix::unistd::pipe().unwrap();
    nix::fcntl::fcntl(&writing, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut net = Net::logging_to(2, writing.into());
    let mut router = net.guest(0);
    // More lines than fit.
    for _ in 0..20 {
        for port in [1, 2] {
            let mut client = net.guest(port);
            net.works(&mut router, &mut client);
        }
    }
    drop(reading);
}

#[test]
fn sigterm_ends_it_and_removes_its_sockets() {
    let mut net = Net::new(1);
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    net.works(&mut router, &mut client);
    assert!(net.end());
    assert!(!net.socket(0).exists() && !net.socket(1).exists());
}
