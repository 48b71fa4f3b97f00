//! The bytes of every message and frame, one line each in `golden.txt`. A change there is a change
//! of the protocol: `PROTOCOL_VERSION` goes up with it. `CASEMATE_BLESS=1` writes the file anew.

use std::fmt::Write;
use std::path::Path;

use casemate_wire::{
    Boot, ExitStatus, FromGuest, FromHost, Init, Interface, Key, Kind, OpenSession, Port,
    Restrictions, RootDisk, Service, ShareMount, TerminalSize, User, Verity, VolumeMount,
    WriteFile, WriteSecret, decode, encode, preamble, push_frame,
};

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_guest() -> Vec<(&'static str, FromGuest)> {
    vec![
        (
            "Hello",
            FromGuest::Hello {
                protocol: 1,
                version: "0.1.0".into(),
                features: vec!["a".into(), "bc".into()],
                kernel: "6.12".into(),
                booted: true,
            },
        ),
        ("Ready", FromGuest::Ready),
        ("BootFailed", FromGuest::BootFailed { reason: "why".into() }),
        ("Log", FromGuest::Log { text: "é".into() }),
        ("Pong", FromGuest::Pong { id: 300 }),
        ("ShuttingDown", FromGuest::ShuttingDown),
        ("RootDamaged", FromGuest::RootDamaged { block: 300 }),
        ("Frozen", FromGuest::Frozen { id: 300, failure: Some("why".into()) }),
        ("Call", FromGuest::Call { call: 300, target: "t".into(), service: "s+a".into() }),
        ("CallGone", FromGuest::CallGone { call: 300 }),
    ]
}

fn from_host() -> Vec<(&'static str, FromHost)> {
    let boot = Boot {
        hostname: "h".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        clock: 1_900_000_000_000_000_000,
        seed: vec![1, 2, 255],
        root: RootDisk {
            serial: "root".into(),
            filesystem: "erofs".into(),
            overlay: true,
            verity: Some(Verity { root_hash: [0xab; 32], data_blocks: 300, hash_start: 301 }),
        },
        overlay_size: 1 << 30,
        volumes: vec![VolumeMount {
            name: "home".into(),
            serial: "volume0".into(),
            mount_point: "/home".into(),
            filesystem: "ext4".into(),
            blank: true,
            sector_size: 4096,
            key: Key::new(&[1, 2, 3]),
        }],
        init: Init::Systemd,
        units: vec!["dnsmasq.service".into()],
        users: vec![User {
            name: "u".into(),
            uid: Some(1000),
            groups: vec!["g".into()],
            shell: "/bin/sh".into(),
            authorized_keys: vec!["k".into()],
        }],
        default_user: "u".into(),
        files: vec![WriteFile {
            path: "/f".into(),
            content: vec![0],
            mode: 0o644,
            owner: "root".into(),
        }],
        sysctls: vec![("a.b".into(), "1".into())],
        timezone: Some("UTC".into()),
        environment: vec![("A".into(), "b".into())],
        console_user: None,
        secrets: vec![WriteSecret {
            name: "db-password".into(),
            content: Key::new(b"not shown"),
            mode: 0o400,
            owner: "root".into(),
        }],
        restrictions: Restrictions { nosuid: true, no_new_privs: false, no_core_dumps: true },
        shares: vec![ShareMount {
            tag: "data".into(),
            mount_point: "/srv/data".into(),
            read_only: true,
        }],
        network: Some(Interface {
            mac: [2, 0, 0, 0x12, 0x34, 0x56],
            address: [172, 16, 200, 7].into(),
            gateway: [172, 16, 200, 6].into(),
            v6: None,
            name_servers: vec![[169, 254, 1, 1].into()],
            mtu: 1500,
        }),
        ports: vec![Port {
            mac: [2, 0, 0, 0x65, 0x43, 0x21],
            address: [10, 88, 0, 7].into(),
            prefix: 24,
            gateway: Some([10, 88, 0, 1].into()),
            name_servers: vec![],
            mtu: 1500,
        }],
    };
    let session = OpenSession {
        argv: vec![b"ls".to_vec(), vec![0xff]],
        environment: vec![(b"A".to_vec(), b"1".to_vec())],
        cwd: Some(b"/".to_vec()),
        user: None,
        terminal: Some(TerminalSize { rows: 24, columns: 300 }),
        detached: false,
        service: Some(Service {
            name: "s".into(),
            argument: "a".into(),
            source: "b".into(),
            target: "t".into(),
        }),
    };
    vec![
        ("Boot", FromHost::Boot(Box::new(boot))),
        ("Open", FromHost::Open { stream: 7, session: Box::new(session) }),
        ("SetClock", FromHost::SetClock { nanoseconds: 1 << 60 }),
        ("Ping", FromHost::Ping { id: 0 }),
        ("Shutdown", FromHost::Shutdown),
        ("Freeze", FromHost::Freeze { id: 300, milliseconds: 10_000, memory: true }),
        ("Thaw", FromHost::Thaw),
        ("Resumed", FromHost::Resumed { clock: 1 << 60, seed: vec![7, 8] }),
        ("Connect", FromHost::Connect { stream: 7, call: 300 }),
        ("Refuse", FromHost::Refuse { call: 300, code: 126, reason: "why".into() }),
    ]
}

fn exits() -> Vec<(&'static str, ExitStatus)> {
    let reason = || "r".to_owned();
    vec![
        ("Code", ExitStatus::Code(255)),
        ("Signal", ExitStatus::Signal(9)),
        ("NotFound", ExitStatus::NotFound { reason: reason() }),
        ("NotExecutable", ExitStatus::NotExecutable { reason: reason() }),
        ("AgentFailed", ExitStatus::AgentFailed { reason: reason() }),
    ]
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |stream, kind, payload: &[u8]| {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, stream, kind, payload);
        bytes
    };
    vec![
        ("MessagePart", frame(0, Kind::MessagePart, &[1])),
        ("Message", frame(0, Kind::Message, &[2])),
        ("Stdin", frame(0x0102_0304, Kind::Stdin, b"in")),
        ("Stdout", frame(1, Kind::Stdout, b"out")),
        ("Stderr", frame(1, Kind::Stderr, b"")),
        ("Credit", frame(1, Kind::Credit, &0x0001_0203_u32.to_le_bytes())),
        ("Resize", frame(1, Kind::Resize, &TerminalSize { rows: 24, columns: 300 }.encode())),
        ("Signal", frame(1, Kind::Signal, &[15])),
        ("HangUp", frame(1, Kind::HangUp, &[])),
        ("Started", frame(1, Kind::Started, &42_u32.to_le_bytes())),
        ("Exit", frame(1, Kind::Exit, &encode(&ExitStatus::Code(0)))),
    ]
}

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let mut lines = String::new();
    let mut line = |group: &str, name: &str, bytes: &[u8]| {
        let _ = writeln!(lines, "{group} {name} {}", hexadecimal(bytes));
    };
    for (name, message) in from_guest() {
        line("guest", name, &encode(&message));
        assert_eq!(decode::<FromGuest>(&encode(&message)).expect("decodes"), message);
    }
    for (name, message) in from_host() {
        line("host", name, &encode(&message));
        assert_eq!(decode::<FromHost>(&encode(&message)).expect("decodes"), message);
    }
    for (name, exit) in exits() {
        line("exit", name, &encode(&exit));
        assert_eq!(decode::<ExitStatus>(&encode(&exit)).expect("decodes"), exit);
    }
    for (name, frame) in frames() {
        line("frame", name, &frame);
    }
    line("preamble", "guest", &preamble::encode(preamble::FROM_GUEST, 0x0102_0304_0506_0708));
    line("preamble", "host", &preamble::encode(preamble::FROM_HOST, 1));
    line("preamble", "knock", &preamble::knock());

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.txt");
    if std::env::var_os("CASEMATE_BLESS").is_some() {
        std::fs::write(&file, &lines).expect("written");
    }
    let golden = std::fs::read_to_string(&file).expect("golden.txt is there");
    for (line, golden) in lines.lines().zip(golden.lines()) {
        assert_eq!(line, golden);
    }
    assert_eq!(lines.lines().count(), golden.lines().count());
}

#[test]
fn what_stands_behind_a_message_makes_it_wrong() {
    for (_, message) in from_host() {
        let mut bytes = encode(&message);
        bytes.push(0);
        assert!(decode::<FromHost>(&bytes).is_err());
    }
}
