//! The control socket: statistics, ports that come and go, recorded frames, events.

// Each test program uses a part of it.
#[allow(dead_code)]
mod front;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

use front::{GUEST, Net, PATIENCE, frames, mac};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    socket, socketpair,
};
use serde_json::{Value, json};

struct Supervisor(OwnedFd);

impl Supervisor {
    fn new(path: &Path) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        Self(socket)
    }

    fn ask(&self, request: &Value) -> Value {
        self.ask_with(request, None)
    }

    fn ask_with(&self, request: &Value, descriptor: Option<BorrowedFd<'_>>) -> Value {
        let bytes = request.to_string();
        let numbers: Vec<i32> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &[] } else { &rights[..] };
        let parts = [IoSlice::new(bytes.as_bytes())];
        let flags = MsgFlags::empty();
        sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, flags, None).unwrap();
        self.hear()
    }

    fn hear(&self) -> Value {
        let mut buffer = vec![0; 1 << 18];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        serde_json::from_slice(&buffer[..length]).unwrap()
    }

    fn port(&self, name: &str) -> Value {
        let all = self.ask(&json!({ "stats": {} }));
        let ports = all["ports"].as_array().unwrap();
        ports.iter().find(|port| port["name"] == name).cloned().unwrap_or(Value::Null)
    }
}

/// Two connected packet sockets.
fn packets() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

fn controlled(clients: usize, more: &[&str]) -> (Net, Supervisor, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let options = [&["--control", path.to_str().unwrap()], more].concat();
    let net = Net::with(clients, &options, |port| format!(",ip=10.0.0.{port}"));
    (net, Supervisor::new(&path), folder)
}

#[test]
fn statistics_say_what_was_sent_and_dropped() {
    let (mut net, supervisor, _folder) = controlled(2, &[]);
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    net.works(&mut router, &mut client);
    client.send(&frames::plain(router.mac, mac(9), 60));
    client.send(&frames::plain(mac(2), client.mac, 60));
    client.flush();
    let port = supervisor.port("1");
    assert_eq!(port["mac"], client.mac.to_string());
    assert_eq!((&port["role"], &port["connected"]), (&json!("client"), &json!(true)));
    assert_eq!(port["sent"]["frames"], 100);
    assert_eq!(port["received"]["frames"], 100);
    assert_eq!(port["sent"]["bytes"], (60..160).sum::<i32>());
    assert_eq!(port["drops"], json!({ "source": 1, "not-router": 1 }));
    assert_eq!(supervisor.port("2")["connected"], false);
}

#[test]
fn ports_come_and_go_while_others_work() {
    let (mut net, supervisor, folder) = controlled(1, &[]);
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    let path = net.socket(2);
    let listener = UnixListener::bind(&path).unwrap();
    let add = |name: &str, role: &str, mac: String| json!({ "add": { "name": name, "role": role, "mac": mac, "ip": ["10.0.0.2"] } });
    let good = add("new", "client", mac(2).to_string());
    for (request, reason) in [
        (add("1", "client", mac(2).to_string()), "could not add port `1`: its name is taken"),
        (
            add("new", "client", mac(1).to_string()),
            "could not add port `new`: its MAC address is taken",
        ),
        (add("new", "router", mac(2).to_string()), "could not add port `new`: there is a router"),
    ] {
        let answer = supervisor.ask_with(&request, Some(listener.as_fd()));
        assert_eq!(answer, json!({ "error": reason }));
    }
    let answer = supervisor.ask(&good);
    assert_eq!(answer, json!({ "error": "no descriptor came with the request" }));
    let answer = supervisor.ask_with(&good, Some(listener.as_fd()));
    assert_eq!(answer, json!({ "ok": {} }));
    drop(listener);
    let mut new = net.guest(2);
    net.works(&mut router, &mut new);
    net.works(&mut router, &mut client);
    let remove = json!({ "remove": { "name": "new" } });
    assert_eq!(supervisor.ask(&remove), json!({ "ok": {} }));
    assert!(new.is_sent_away());
    assert_eq!(supervisor.ask(&remove), json!({ "error": "there is no port `new`" }));
    net.works(&mut router, &mut client);
    drop(folder);
}

#[test]
fn a_router_forwards_nothing_from_client_to_client() {
    let (mut net, supervisor, folder) = controlled(0, &[]);
    let remove = json!({ "remove": { "name": "0" } });
    assert_eq!(supervisor.ask(&remove), json!({ "ok": {} }));
    let add = |number: u8, role: &str, not_from: Value| {
        let path = net.socket(number.into());
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let port = json!({
            "name": number.to_string(), "role": role, "mac": mac(number.into()).to_string(),
            "ip": [format!("10.0.0.{}", number + 1)], "not-from": not_from,
        });
        supervisor.ask_with(&json!({ "add": port }), Some(listener.as_fd()))
    };
    for (networks, reason) in [
        (json!(["10.0.0.1/24"]), "`10.0.0.1/24` is no network like 10.88.0.0/24"),
        (json!(vec!["10.0.0.0/24"; 65]), "there are more than 64 networks in `not-from`"),
    ] {
        assert_eq!(add(9, "router", networks), json!({ "error": reason }));
    }
    let networks = json!(["10.0.0.0/24", "192.0.2.0/25"]);
    assert_eq!(add(0, "router", networks), json!({ "ok": {} }));
    assert_eq!(add(1, "client", json!([])), json!({ "ok": {} }));
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    for source in [[10, 0, 0, 5], [192, 0, 2, 127], [10, 0, 0, 0]] {
        router.send(&frames::ipv4(client.mac, router.mac, source));
    }
    let others = [[10, 0, 0, 1], [192, 0, 2, 128], [10, 0, 1, 5]];
    for source in others {
        router.send(&frames::ipv4(client.mac, router.mac, source));
    }
    router.flush();
    for source in others {
        assert_eq!(client.take(), frames::ipv4(client.mac, router.mac, source));
    }
    assert_eq!(supervisor.port("0")["drops"], json!({ "crossing": 3 }));
    net.works(&mut router, &mut client);
    drop(folder);
}

#[test]
fn held_ports_go_with_whoever_added_them_and_the_switch_with_its_last_client() {
    let (mut net, supervisor, folder) = controlled(1, &["--end-with-clients"]);
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    let other = Supervisor::new(&folder.path().join("control"));
    let add = |number: u8| {
        let listener = UnixListener::bind(net.socket(number.into())).unwrap();
        let port = json!({
            "name": format!("held{number}"), "role": "client", "mac": mac(number.into()).to_string(),
            "ip": [format!("10.0.0.{number}")], "held": true,
        });
        let answer = other.ask_with(&json!({ "add": port }), Some(listener.as_fd()));
        assert_eq!(answer, json!({ "ok": {} }));
    };
    [2, 3].into_iter().for_each(add);
    let (mut two, mut three) = (net.guest(2), net.guest(3));
    net.works(&mut router, &mut two);
    net.works(&mut router, &mut three);
    drop(other);
    assert!(two.is_sent_away() && three.is_sent_away());
    assert_eq!(supervisor.port("held2"), Value::Null);
    // Others keep theirs, and the number of a client that has gone is another's later.
    let third = Supervisor::new(&folder.path().join("control"));
    assert_eq!(third.port("1")["connected"], true);
    drop(third);
    net.works(&mut router, &mut client);
    drop(supervisor);
    assert!(client.is_sent_away());
    assert!(net.has_ended());
}

#[test]
fn held_ports_that_go_in_the_middle_of_a_flood_cost_others_nothing() {
    let (mut net, _supervisor, folder) = controlled(1, &[]);
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    for round in 0..20 {
        let holder = Supervisor::new(&folder.path().join("control"));
        let path = net.socket(2);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let port = json!({
            "name": "hostile", "role": "client", "mac": mac(2).to_string(), "ip": [], "held": true,
        });
        let answer = holder.ask_with(&json!({ "add": port }), Some(listener.as_fd()));
        assert_eq!(answer, json!({ "ok": {} }));
        drop(listener);
        let mut hostile = net.guest(2);
        // Forged and honest frames, and rings that break.
        for number in 0..8 {
            let from = if number % 2 == 0 { mac(1) } else { mac(2) };
            hostile.send(&frames::plain(router.mac, from, 60));
        }
        if round % 3 == 0 {
            hostile.sending.descriptor(&hostile.memory, 0, GUEST - 1, 60, (0, 0));
            hostile.sending.offer(&hostile.memory, 0);
        }
        hostile.push();
        drop(holder);
        net.works(&mut router, &mut client);
        assert!(hostile.is_sent_away());
    }
}

#[test]
fn a_probe_tells_how_long_a_guest_takes() {
    let (net, supervisor, _folder) = controlled(1, &[]);
    let mut client = net.guest(1);
    assert_eq!(supervisor.port("1")["probe-us"], Value::Null);
    let answer = supervisor.ask(&json!({ "probe": { "name": "1" } }));
    assert_eq!(answer, json!({ "ok": {} }));
    let question = client.take();
    assert_eq!(question[38..42], [10, 0, 0, 1]);
    // As a kernel answers: to whoever asked.
    let mut answer = frames::arp(client.mac, client.mac, [10, 0, 0, 1]);
    answer[..6].copy_from_slice(&question[6..12]);
    client.send(&answer);
    client.flush();
    let port = supervisor.port("1");
    assert!(port["probe-us"].as_f64().is_some_and(|latency| latency > 0.0), "{port}");
    assert_eq!(port["drops"], json!({}));
}

#[test]
fn frames_of_a_port_are_recorded_when_that_is_allowed() {
    let (mut net, supervisor, _folder) = controlled(2, &["--allow-capture"]);
    let (mut router, mut one, mut two) = (net.guest(0), net.guest(1), net.guest(2));
    let (reader, writer) = packets();
    let capture = json!({ "capture": { "name": "1" } });
    let answer = supervisor.ask_with(&capture, Some(writer.as_fd()));
    assert_eq!(answer, json!({ "ok": {} }));
    drop(writer);
    net.works(&mut router, &mut one);
    net.works(&mut router, &mut two);
    assert_eq!(supervisor.ask(&json!({ "stop-capture": {} })), json!({ "ok": {} }));
    net.works(&mut router, &mut one);
    let mut buffer = vec![0; 1 << 17];
    let mut next = || {
        recv(reader.as_raw_fd(), &mut buffer, MsgFlags::empty())
            .map(|length| buffer[..length].to_vec())
    };
    let header = next().unwrap();
    assert_eq!((&header[..4], header.len()), (&0xa1b2_3c4d_u32.to_le_bytes()[..], 24));
    let mut count = 0;
    // The other end is closed when recording has stopped.
    while let Ok(record) = next()
        && !record.is_empty()
    {
        let (header, frame) = record.split_at(16);
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        assert_eq!(frame.len(), length);
        assert!(frame[..12].chunks(6).any(|address| address == one.mac.bytes()));
        count += 1;
    }
    assert_eq!(count, 200);
}

#[test]
fn who_does_not_read_recorded_frames_holds_up_nobody_and_misses_some() {
    let (mut net, supervisor, _folder) = controlled(1, &["--allow-capture"]);
    let (mut router, mut one) = (net.guest(0), net.guest(1));
    let (reader, writer) = packets();
    let capture = json!({ "capture": { "name": "1" } });
    let answer = supervisor.ask_with(&capture, Some(writer.as_fd()));
    assert_eq!(answer, json!({ "ok": {} }));
    drop(writer);
    for _ in 0..10 {
        net.works(&mut router, &mut one);
    }
    let mut buffer = vec![0; 1 << 17];
    let mut count = 0;
    while recv(reader.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {
        count += 1;
    }
    assert!((1..2001).contains(&count), "{count}");
    // Nor does one who has gone.
    drop(reader);
    net.works(&mut router, &mut one);
    assert_eq!(supervisor.port("1")["sent"]["frames"], 1100);
}

#[test]
fn recording_is_refused_unless_it_is_allowed() {
    let (_net, supervisor, _folder) = controlled(1, &[]);
    let (_reader, writer) = packets();
    let capture = json!({ "capture": { "name": "1" } });
    let answer = supervisor.ask_with(&capture, Some(writer.as_fd()));
    assert_eq!(answer, json!({ "error": "recording is not allowed: --allow-capture" }));
}

#[test]
fn whoever_watches_hears_of_broken_rings() {
    let (net, supervisor, _folder) = controlled(1, &[]);
    assert_eq!(supervisor.ask(&json!({ "watch": {} })), json!({ "ok": {} }));
    let mut client = net.guest(1);
    assert_eq!(supervisor.hear()["event"]["kind"], "connected");
    client.sending.descriptor(&client.memory, 0, GUEST - 1, 60, (0, 0));
    client.sending.offer(&client.memory, 0);
    client.push();
    let event = supervisor.hear();
    assert_eq!((&event["event"]["kind"], &event["event"]["port"]), (&json!("broken"), &json!("1")));
    let text = "port 1: transmitting ring stopped: \
                a buffer of 60 bytes at 0xfffff is outside the memory";
    assert_eq!(event["event"]["text"], text);
}

#[test]
fn requests_that_are_none_are_answered() {
    let (mut net, supervisor, _folder) = controlled(1, &[]);
    for request in [json!({ "stat": {} }), json!([]), json!({ "remove": { "nam": 1 } })] {
        let answer = supervisor.ask(&request);
        let error = answer["error"].as_str().unwrap();
        assert!(error.starts_with("could not understand the request: "), "{error}");
    }
    let answer = supervisor.ask(&json!({ "remove": { "name": "x".repeat(5000) } }));
    assert_eq!(answer, json!({ "error": "the request is too long" }));
    // Those who do not read are sent away, and nobody waits for them.
    let begin = Instant::now();
    let stats = json!({ "stats": {} }).to_string();
    while begin.elapsed() < PATIENCE {
        let parts = [IoSlice::new(stats.as_bytes())];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(supervisor.0.as_raw_fd(), &parts, &[], flags, None);
        if sent.is_err() {
            break;
        }
    }
    assert!(begin.elapsed() < PATIENCE, "it is not sent away");
    let (mut router, mut client) = (net.guest(0), net.guest(1));
    net.works(&mut router, &mut client);
}
