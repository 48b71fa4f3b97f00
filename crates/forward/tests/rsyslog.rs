//! Records that go to a real rsyslogd.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use casemate_audit::{Forwarded, verify};
use common::{Listens, Server, certificates, until, write};

/// The program that sends, for this log and server.
fn forward(log: &Path, server: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-forward"));
    command.arg("--log").arg(log).args(["--syslog", server]).stdin(Stdio::null());
    command
}

/// One attempt; what it said when it failed.
fn once(command: &mut Command) -> Result<(), String> {
    let done = command.arg("--once").output().expect("started");
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

/// What was received is a log by itself, whose head is this.
fn is_the_log(received: &[(u64, String)], head: &casemate_audit::Head) {
    let copy = tempfile::tempdir().expect("a folder");
    let lines: Vec<&str> = received.iter().map(|(_, line)| line.as_str()).collect();
    fs::write(copy.path().join("audit.jsonl"), lines.join("\n") + "\n").expect("written");
    let verified = verify(copy.path(), Some(head)).expect("read");
    assert_eq!((&verified.breaks, verified.head.as_ref()), (&Vec::new(), Some(head)));
}

#[test]
fn records_arrive_over_tcp_as_they_stand_in_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit");
    let mut server = Server::new(folder.path(), Listens::Tcp);
    let to = format!("tcp://127.0.0.1:{}", server.port);
    write(&log, 1, 700);
    // Nobody listens yet: nothing is lost, and it is said.
    let error = once(&mut forward(&log, &to)).expect_err("no server");
    assert!(error.contains("could not connect to tcp://127.0.0.1"), "{error}");
    let state = Forwarded::load(&log).expect("read");
    assert_eq!(state.syslog.number, 0);
    assert!(state.syslog.error.is_some_and(|error| error.contains("refused")));
    server.start();
    once(&mut forward(&log, &to)).expect("sent");
    let head = write(&log, 701, 3);
    once(&mut forward(&log, &to)).expect("sent");
    // Nothing is new.
    once(&mut forward(&log, &to)).expect("nothing to send");
    let received = server.received_all(703);
    let ids: Vec<u64> = received.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, (1..=703).collect::<Vec<_>>());
    is_the_log(&received, &head);
    let state = Forwarded::load(&log).expect("read").syslog;
    assert_eq!((state.number, state.digest, state.error), (703, head.digest, None));
}

#[test]
fn server_that_is_killed_again_and_again_gets_everything_at_least_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit");
    let mut server = Server::new(folder.path(), Listens::Tcp);
    let to = format!("tcp://127.0.0.1:{}", server.port);
    write(&log, 1, 2000);
    let mut sender = forward(&log, &to).spawn().expect("started");
    let mut first = 2001;
    for _ in 0..3 {
        // Counted first: once it listens, all may arrive before anybody looks.
        let before = server.received().len();
        server.start();
        until("some records", || server.received().len() > before);
        server.kill();
        write(&log, first, 500);
        first += 500;
    }
    // The sender too: the next one goes on where that was.
    sender.kill().expect("killed");
    sender.wait().expect("waited for");
    server.start();
    let mut sender = forward(&log, &to).spawn().expect("started");
    // A second one sees the first, and goes.
    assert!(forward(&log, &to).status().expect("started").success());
    let received = server.received_all(first - 1);
    let mut ids: Vec<u64> = received.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    let lost: Vec<u64> = (1..first).filter(|id| ids.binary_search(id).is_err()).collect();
    // What rsyslogd had read and not written when it was killed is its own to lose: the kernel closes
    // its connection as if it were done. It reads 128 KiB at a time, some 300 records; three kills.
    assert!(lost.len() <= 3 * 300, "lost {}", lost.len());
    assert_eq!(ids.last(), Some(&(first - 1)));
    sender.kill().expect("killed");
    sender.wait().expect("waited for");
}

#[test]
fn batch_has_arrived_when_the_server_read_all_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit");
    let head = write(&log, 1, 400);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let to = format!("tcp://{}", listener.local_addr().expect("an address"));
    let mut sender = forward(&log, &to).spawn().expect("started");
    // Some of it, and gone; all of it and an answer without end; all of it, and closed as it should be.
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.read_exact(&mut [0; 1000]).expect("read");
    drop(stream);
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut first = Vec::new();
    stream.read_to_end(&mut first).expect("read");
    while stream.write(&[b'x'; 4096]).is_ok() {}
    assert_eq!(Forwarded::load(&log).expect("read").syslog.number, 0);
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut second = Vec::new();
    stream.read_to_end(&mut second).expect("read");
    drop(stream);
    assert_eq!(first, second);
    until("it is kept", || Forwarded::load(&log).expect("read").syslog.number == 400);
    assert_eq!(Forwarded::load(&log).expect("read").syslog.digest, head.digest);
    sender.kill().expect("killed");
    sender.wait().expect("waited for");
}

#[test]
fn records_arrive_over_tls_at_the_right_server_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit");
    let keys = certificates(folder.path());
    let mut server = Server::new(folder.path(), Listens::Tls);
    server.start();
    let head = write(&log, 1, 20);
    let to = format!("tls://localhost:{}", server.port);
    let error = once(&mut forward(&log, &to)).expect_err("a stranger's certificate");
    assert!(error.contains("UnknownIssuer"), "{error}");
    let error = once(forward(&log, &to).arg("--ca").arg(keys.join("other.pem")));
    assert!(error.expect_err("another authority's").contains("invalid peer certificate"));
    let elsewhere = format!("tls://127.0.0.2:{}", server.port);
    let error = once(forward(&log, &elsewhere).arg("--ca").arg(keys.join("ca.pem")));
    error.expect_err("nobody there, or not by this name");
    let error = once(forward(&log, &to).arg("--ca").arg(keys.join("no.pem")));
    assert!(error.expect_err("no such file").contains("no.pem"));
    assert_eq!(server.received(), []);
    once(forward(&log, &to).arg("--ca").arg(keys.join("ca.pem"))).expect("sent");
    is_the_log(&server.received_all(20), &head);
}

#[test]
fn server_may_want_to_know_who_sends() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit");
    let keys = certificates(folder.path());
    let mut server = Server::new(folder.path(), Listens::MutualTls);
    server.start();
    let head = write(&log, 1, 3);
    let to = format!("tls://127.0.0.1:{}", server.port);
    let error = once(forward(&log, &to).arg("--ca").arg(keys.join("ca.pem")));
    assert!(error.is_err(), "it was shown no certificate");
    assert_eq!(
        (server.received(), Forwarded::load(&log).expect("read").syslog.number),
        (vec![], 0)
    );
    let mut command = forward(&log, &to);
    command.arg("--ca").arg(keys.join("ca.pem"));
    command.arg("--certificate").arg(keys.join("client.pem"));
    command.arg("--key").arg(keys.join("client.key"));
    once(&mut command).expect("sent");
    is_the_log(&server.received_all(3), &head);
}

#[test]
fn records_are_sent_over_udp() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit");
    let mut server = Server::new(folder.path(), Listens::Udp);
    server.start();
    let head = write(&log, 1, 50);
    once(&mut forward(&log, &format!("udp://127.0.0.1:{}", server.port))).expect("sent");
    is_the_log(&server.received_all(50), &head);
}

#[test]
fn another_log_is_sent_from_its_beginning() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit");
    let mut server = Server::new(folder.path(), Listens::Tcp);
    server.start();
    let to = format!("tcp://127.0.0.1:{}", server.port);
    write(&log, 1, 5);
    once(&mut forward(&log, &to)).expect("sent");
    // Somebody began it anew, with as many records.
    fs::remove_file(log.join("audit.jsonl")).expect("removed");
    write(&log, 1, 6);
    once(&mut forward(&log, &to)).expect("sent");
    let received = server.received_all(6);
    let ids: Vec<u64> = received.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6]);
    // A file that is no state is a beginning, too.
    fs::write(log.join("forward/state.json"), "{\"syslog\":").expect("written");
    once(&mut forward(&log, &to)).expect("sent");
    until("all again", || server.received().len() == 17);
}

#[test]
fn kernel_audit_takes_records_of_root() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit");
    write(&log, 1, 2);
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-forward"));
    let done = once(command.arg("--log").arg(&log).arg("--auditd"));
    let state = Forwarded::load(&log).expect("read").auditd;
    match (
        done,
        fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0),
    ) {
        (Ok(()), true) => assert_eq!((state.number, state.error), (2, None)),
        // Root of a container has no such right, and some kernels have no audit.
        (Err(error), _) => {
            assert!(error.contains("the kernel's audit"), "{error}");
            assert_eq!(state.number, 0);
            assert!(state.error.is_some());
        }
        (Ok(()), false) => panic!("an ordinary user may not write to it"),
    }
}
