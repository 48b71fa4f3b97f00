//! Many sessions and much data: nothing lost, nobody held up by somebody else.

#[allow(dead_code, unreachable_pub)]
mod machine;

use std::time::{Duration, Instant};

use casemate_wire::{FromHost, limits};
use machine::host::session;
use machine::{Machine, Parts};

fn guest(test: &str) -> Option<Machine> {
    match Parts::find(option_env!("CARGO_BIN_EXE_casemate-agent")) {
        Ok(parts) => Some(Machine::boot(&parts)),
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            None
        }
    }
}

/// Bytes that are not the same anywhere near.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn sixty_four_mebibytes_go_both_ways_unharmed() {
    let Some(mut guest) = guest("sixty_four_mebibytes_go_both_ways_unharmed") else { return };
    let input = noise(64 << 20);
    let begin = Instant::now();
    let ended = guest.host.run(session(&["cat"]), &input);
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "64 MiB through cat: {seconds:.2} s, {:.1} MB/s each way",
        input.len() as f64 / 1e6 / seconds
    );
    assert!(ended.stdout == input, "{} bytes came back, or others", ended.stdout.len());
}

#[test]
fn sixty_four_sessions_at_once_are_all_served() {
    let Some(mut guest) = guest("sixty_four_sessions_at_once_are_all_served") else { return };
    let host = &mut guest.host;
    let input = noise(100_000);
    let begin = Instant::now();
    let streams: Vec<u32> = (0..64)
        .map(|number| {
            let script = format!("cat; exit {number}");
            let stream = host.open(session(&["sh", "-c", &script]));
            host.input(stream, &input);
            host.end_input(stream);
            stream
        })
        .collect();
    for (number, stream) in streams.into_iter().enumerate() {
        let ended = host.wait_for_exit(stream);
        assert_eq!(ended.exit.map(|exit| exit.code()), Some(number as u8));
        assert!(ended.stdout == input);
    }
    println!("64 sessions: {:?}", begin.elapsed());
}

#[test]
fn a_session_nobody_reads_holds_up_only_itself() {
    let Some(mut guest) = guest("a_session_nobody_reads_holds_up_only_itself") else { return };
    let host = &mut guest.host;
    // Three that are not read, and three that do not read.
    let stalled: Vec<u32> = (0..3)
        .map(|_| {
            let stream = host.open(session(&["cat", "/dev/zero"]));
            host.stream(stream).stalled = true;
            host.stream(stream).forget = true;
            stream
        })
        .collect();
    for _ in 0..3 {
        let stream = host.open(session(&["sleep", "1000"]));
        host.input(stream, &noise(2_000_000));
    }
    host.run_until(Duration::from_secs(2), |host| {
        stalled.iter().all(|id| host.streams[id].received >= u64::from(limits::WINDOW))
    });
    for id in &stalled {
        assert_eq!(host.streams[id].received, u64::from(limits::WINDOW));
    }
    let input = noise(4 << 20);
    let begin = Instant::now();
    let ended = host.run(session(&["cat"]), &input);
    println!("4 MiB beside six stalled sessions: {:?}", begin.elapsed());
    assert!(ended.stdout == input);
    // And control messages pass.
    host.send(&FromHost::Ping { id: 7 });
    let answer = host.message(Duration::from_secs(5));
    assert_eq!(answer, Some(casemate_wire::FromGuest::Pong { id: 7 }));
}

#[test]
fn too_many_sessions_are_refused_one_by_one() {
    let Some(mut guest) = guest("too_many_sessions_are_refused_one_by_one") else { return };
    let host = &mut guest.host;
    let begin = Instant::now();
    let streams: Vec<u32> =
        (0..limits::MAX_SESSIONS).map(|_| host.open(session(&["sleep", "1000"]))).collect();
    let refused = host.open(session(&["true"]));
    assert_eq!(host.wait_for_exit(refused).exit.map(|exit| exit.code()), Some(125));
    let all = host.run_until(Duration::from_secs(120), |host| {
        streams.iter().all(|stream| host.streams[stream].started.is_some())
    });
    println!("{} sessions started: {:?}", streams.len(), begin.elapsed());
    assert!(all);
    for stream in &streams {
        host.hang_up(*stream);
        host.streams.remove(stream);
    }
    let ended = host.run(session(&["true"]), b"");
    assert_eq!(ended.exit.map(|exit| exit.code()), Some(0));
}
