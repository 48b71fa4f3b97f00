//! A compositor's sandbox, as whoever connects to it for a proxy makes one.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use casemate_wayland::protocol::Kind;
use casemate_wayland::sandbox::{SandboxError, enter};
use casemate_wayland::socket::{Endpoint, pair};
use casemate_wayland::wire::Arg;

const PATIENCE: Duration = Duration::from_secs(5);

/// What a compositor of one connection heard.
#[derive(Debug, Default)]
struct Heard {
    /// Texts, in the order in which they came.
    texts: Vec<String>,
    /// The listening socket, and the one whose end is the end.
    descriptors: VecDeque<OwnedFd>,
    committed: bool,
}

/// A compositor with these globals. `refuses` is its answer to the commit.
fn compositor(socket: OwnedFd, globals: &[&str], refuses: Option<&str>) -> Heard {
    let mut end = Endpoint::new(socket);
    let mut heard = Heard::default();
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let open = end.read().expect("read");
        while let Some(header) = end.next().expect("whole") {
            let kinds: &[Kind] = match (header.object, header.opcode) {
                (1, _) => &[Kind::Uint],
                (2, 0) => &[Kind::Uint, Kind::String, Kind::Uint, Kind::Uint],
                (4, 1) => &[Kind::Uint, Kind::Fd, Kind::Fd],
                (5, 1..=3) => &[Kind::String],
                (5, 4) => &[],
                other => panic!("{other:?}"),
            };
            for argument in end.take(header, kinds).expect("valid") {
                match (argument, header.object, header.opcode) {
                    (Arg::Uint(registry), 1, 1) => {
                        for (number, global) in globals.iter().enumerate() {
                            let name = Arg::Uint(number as u32 + 10);
                            let text = Arg::String(Some((*global).to_owned()));
                            end.put(registry, 0, vec![name, text, Arg::Uint(1)]).expect("short");
                        }
                    }
                    (Arg::Uint(callback), 1, 0) => {
                        end.put(callback, 0, vec![Arg::Uint(0)]).expect("short");
                        end.put(1, 1, vec![Arg::Uint(callback)]).expect("short");
                    }
                    (Arg::String(Some(text)), ..) => heard.texts.push(text),
                    (Arg::Fd(fd), ..) => heard.descriptors.push_back(fd),
                    (Arg::Uint(11), 2, 0) | (Arg::Uint(1 | 4 | 5), ..) => {}
                    other => panic!("{other:?}"),
                }
            }
            if (header.object, header.opcode) == (5, 4) {
                heard.committed = true;
                if let Some(why) = refuses {
                    let why = Arg::String(Some(why.to_owned()));
                    end.put(1, 0, vec![Arg::Object(5), Arg::Uint(2), why]).expect("short");
                }
            }
        }
        end.flush().expect("sent");
        if !open {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    heard
}

/// Enters at such a compositor.
fn try_with(
    globals: &'static [&'static str],
    refuses: Option<&'static str>,
) -> (Result<Option<OwnedFd>, SandboxError>, Heard, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = UnixListener::bind(folder.path().join("socket")).expect("bound");
    let (own, theirs) = pair().expect("a pair");
    let compositor = std::thread::spawn(move || compositor(theirs, globals, refuses));
    let entered = enter(own, listener.into(), "work", PATIENCE);
    (entered, compositor.join().expect("no panic"), folder)
}

#[test]
fn who_connects_there_is_of_the_compartment_until_it_is_given_up() {
    let globals = &["wl_compositor", "wp_security_context_manager_v1", "wl_seat"];
    let (entered, mut heard, folder) = try_with(globals, None);
    let keeps = entered.expect("entered").expect("it knows sandboxes");
    let expected = ["wp_security_context_manager_v1", "org.casemate", "casemate.work", "work"];
    assert_eq!(heard.texts, expected);
    assert!(heard.committed);
    let path = folder.path().join("socket");
    let _client = UnixStream::connect(&path).expect("the compositor listens");
    let listener = UnixListener::from(heard.descriptors.pop_front().expect("a socket"));
    listener.accept().expect("the client");
    let mut closes = std::fs::File::from(heard.descriptors.pop_front().expect("a pipe"));
    drop(keeps);
    assert_eq!(closes.read(&mut [0]).expect("read"), 0, "it is given up");
    // With the compositor the listener ends: nobody waits at a socket that none accepts from.
    drop(listener);
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn compositor_without_sandboxes_is_none_and_hears_no_more() {
    let (entered, heard, _folder) = try_with(&["wl_compositor"], None);
    assert!(entered.expect("answered").is_none());
    assert_eq!((heard.texts.len(), heard.committed), (0, false));
}

#[test]
fn refusal_silence_and_nonsense_are_errors() {
    let (entered, ..) = try_with(&["x", "wp_security_context_manager_v1"], Some("nested"));
    let error = entered.expect_err("refused");
    assert_eq!(error.to_string(), "the compositor refuses: nested");

    let listener = || OwnedFd::from(UnixStream::pair().expect("a pair").0);
    let (own, _silent) = pair().expect("a pair");
    let error = enter(own, listener(), "work", Duration::from_millis(50)).expect_err("silent");
    assert!(matches!(error, SandboxError::Late), "{error}");

    let (own, gone) = pair().expect("a pair");
    drop(gone);
    enter(own, listener(), "work", PATIENCE).expect_err("gone");

    let (own, liar) = pair().expect("a pair");
    rustix::io::write(&liar, &[0xff; 64]).expect("written");
    enter(own, listener(), "work", PATIENCE).expect_err("nonsense");
}
