//! The clipboard of a compartment: any lines of brokers, and any requests of a client for its selections,
//! one among the other.
//!
//! Nothing may panic or wait, whatever descriptors come, and a broker is always answered or closed.
#![no_main]

// What tests have, without their desktop.
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../crates/wayland/tests/common/bench.rs"]
mod bench;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../crates/wayland/tests/common/client.rs"]
mod client;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../crates/wayland/tests/common/compositor.rs"]
mod compositor;
#[path = "../words.rs"]
mod words;

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bench::Bench;
use casemate_wayland::Fault;
use casemate_wayland::compartment::Effect;
use casemate_wayland::control::Control;
use casemate_wayland::protocol::Interface;
use casemate_wayland::socket::pair;
use casemate_wayland::wire::Arg;
use client::Client;
use libfuzzer_sys::fuzz_target;
use rustix::event::PollFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use words::Words;

/// How long the client waits, which it does not do here.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Steps of one input.
const MOST: usize = 200;

const TYPES: [&str; 6] = ["text/plain", "image/png", "", "UTF8_STRING", "\u{202e}\n\"", "x"];

// The standard library does it for programs whose `main` is in Rust.
fuzz_target!(init: ignore_broken_pipes(), |data: &[u8]| {
    let mut words = Words(data);
    let mut desk = Desk::new();
    for _ in 0..MOST {
        if words.0.is_empty() || !desk.step(&mut words) {
            break;
        }
    }
});

fn ignore_broken_pipes() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.expect("ignored");
}

/// A client with devices and the focus, and a broker.
struct Desk {
    bench: Bench,
    control: Control,
    broker: OwnedFd,
    /// The client's managers, devices, and sources of both selections.
    managers: [u32; 2],
    devices: [u32; 2],
    sources: Vec<u32>,
    /// Ends of pipes that somebody else has the other of.
    kept: Vec<OwnedFd>,
}

impl Desk {
    fn new() -> Self {
        let mut bench = Bench::new();
        bench.compositor.keeps = false;
        let client = &mut bench.client;
        let registry = client.new_id(Interface::Registry);
        client.registry = registry;
        client.say(1, "get_registry", vec![Arg::New(registry)]);
        bench.run().expect("nothing was said yet");
        let client = &mut bench.client;
        let [compositor, seat, first, second] = [
            Interface::Compositor,
            Interface::Seat,
            Interface::DataDeviceManager,
            Interface::PrimarySelectionDeviceManager,
        ]
        .map(|interface| client.bind(interface));
        client.make(compositor, "create_surface", Interface::Surface, vec![]);
        client.make(seat, "get_keyboard", Interface::Keyboard, vec![]);
        let device = [Interface::DataDevice, Interface::PrimarySelectionDevice];
        let names = ["get_data_device", "get_device"];
        let managers = [first, second];
        let devices = [0, 1]
            .map(|at| client.make(managers[at], names[at], device[at], vec![Arg::Object(seat)]));
        bench.run().expect("an honest client");
        let [surface, keyboard] =
            [Interface::Surface, Interface::Keyboard].map(|it| bench.compositor.newest(it));
        let enter = vec![Arg::Uint(1), Arg::Object(surface), Arg::Array(vec![])];
        bench.compositor.say(keyboard, "enter", enter);
        bench.run().expect("an honest client");
        for device in devices {
            assert!(bench.client.last(device, "selection").is_some(), "it has the focus");
        }
        let (ours, theirs) = pair().expect("a pair");
        let control = Control::connected(theirs);
        Self { bench, control, broker: ours, managers, devices, sources: vec![], kept: vec![] }
    }

    /// False when the client or the broker had to go.
    fn step(&mut self, words: &mut Words<'_>) -> bool {
        match words.byte() {
            0..=19 => {
                let bytes = words.bytes();
                self.say(bytes, None)
            }
            20..=119 => {
                let (line, file) = line(words, &mut self.kept);
                self.say(line.as_bytes(), file)
            }
            120..=239 => {
                self.request(words);
                self.runs()
            }
            240..=247 => {
                self.kept.clear();
                self.bench.client.events.clear();
                true
            }
            _ => {
                self.control.expire(&mut self.bench.compartment.borrow_mut());
                self.runs()
            }
        }
    }

    /// What a broker says; it is answered before anything else is said.
    fn say(&mut self, bytes: &[u8], file: Option<OwnedFd>) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        if !fds.is_empty() {
            rights.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // Nothing at all would be no message.
        if bytes.is_empty()
            || sendmsg(&self.broker, &[IoSlice::new(bytes)], &mut rights, flags).is_err()
        {
            return true;
        }
        let whole = bytes.ends_with(b"\n");
        let compartment = self.bench.compartment.clone();
        let alive = self.control.turn(0, PollFlags::IN, &mut compartment.borrow_mut());
        let heard = self.hears();
        assert!(!alive || !whole || heard, "each line is answered");
        alive && self.runs()
    }

    fn hears(&self) -> bool {
        let mut stream = UnixStream::from(self.broker.try_clone().expect("duplicated"));
        stream.set_nonblocking(true).expect("set");
        let mut heard = false;
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
            heard = true;
        }
        heard
    }

    /// Everything that follows from what was said. False when the client has to go.
    fn runs(&mut self) -> bool {
        for _ in 0..4 {
            let outcome = self.bench.run().and_then(|()| self.effects());
            if let Err(Fault::Bug(what)) = &outcome {
                panic!("{what}");
            }
            if outcome.is_err() {
                return false;
            }
            let all = self.control.descriptors().len();
            let compartment = self.bench.compartment.clone();
            for which in (1..all).rev() {
                self.control.turn(which, PollFlags::OUT, &mut compartment.borrow_mut());
            }
        }
        self.hears();
        true
    }

    /// As the server does it for one client.
    fn effects(&mut self) -> Result<(), Fault> {
        loop {
            let effect = self.bench.compartment.borrow_mut().effects.pop_front();
            let client = &mut self.bench.proxied;
            match effect {
                None => return Ok(()),
                Some(Effect::Announce(which)) => {
                    client.announce(which)?;
                    self.control.announced(&self.bench.compartment.borrow(), which);
                }
                Some(Effect::Send { source, kind, fd, .. }) => {
                    client.send_data(source, kind, fd)?
                }
                Some(Effect::Cancelled { source, .. }) => client.cancel_source(source)?,
                Some(Effect::Broker { number, kind, fd }) => self.control.serve(number, kind, fd),
                Some(Effect::Focus(focused)) => self.control.focus(focused),
            }
        }
    }

    /// A request about a selection.
    fn request(&mut self, words: &mut Words<'_>) {
        let at = usize::from(words.byte() & 1);
        let client = &mut self.bench.client;
        let source = |sources: &[u32], word: u8| match sources.len() {
            0 => 0,
            // Now and then none, or one that was never made.
            _ if word > 250 => u32::from(word),
            _ if word > 240 => 0,
            count => sources[count - 1 - usize::from(word) % count],
        };
        match words.byte() % 6 {
            0 => {
                let (name, interface) = [
                    ("create_data_source", Interface::DataSource),
                    ("create_source", Interface::PrimarySelectionSource),
                ][at];
                self.sources.push(client.make(self.managers[at], name, interface, vec![]));
            }
            1 => {
                let id = source(&self.sources, words.byte());
                if client.objects.contains_key(&id) && self.sources.contains(&id) {
                    client.say(id, "offer", vec![Arg::String(Some(kind(words)))]);
                }
            }
            2 => {
                let id = source(&self.sources, words.byte());
                let arguments = vec![Arg::Object(id), Arg::Uint(u32::from(words.byte()))];
                client.say(self.devices[at], "set_selection", arguments);
            }
            3 => {
                let id = source(&self.sources, words.byte());
                if let Some(known) = self.sources.iter().position(|it| *it == id) {
                    self.sources.remove(known);
                    client.say(id, "destroy", vec![]);
                }
            }
            _ => {
                let wanted = [Interface::DataOffer, Interface::PrimarySelectionOffer][at];
                let all = client.objects.iter().filter(|(_, it)| **it == wanted);
                let mut offers: Vec<u32> = all.map(|(id, _)| *id).collect();
                offers.sort_unstable();
                if offers.is_empty() {
                    return;
                }
                let offer = offers[offers.len() - 1 - usize::from(words.byte()) % offers.len()];
                let fd = descriptor(words, &mut self.kept);
                client.say(offer, "receive", vec![Arg::String(Some(kind(words))), Arg::Fd(fd)]);
            }
        }
    }
}

fn kind(words: &mut Words<'_>) -> String {
    TYPES[usize::from(words.byte()) % TYPES.len()].into()
}

/// A pipe, a socket, or a file; the other end is kept, or closed.
fn descriptor(words: &mut Words<'_>, kept: &mut Vec<OwnedFd>) -> OwnedFd {
    let word = words.byte();
    let (theirs, other) = match word % 4 {
        0 | 1 => {
            let (read, write) = rustix::pipe::pipe().expect("a pipe");
            if word & 64 == 0 { (write, read) } else { (read, write) }
        }
        2 => pair().expect("a pair"),
        _ => return Client::memory(&vec![word; usize::from(words.byte()) * 1024]),
    };
    if word & 128 == 0 && kept.len() < 16 {
        kept.push(other);
    }
    theirs
}

/// A line of a broker, mostly of the right form, and what comes with it.
fn line(words: &mut Words<'_>, kept: &mut Vec<OwnedFd>) -> (String, Option<OwnedFd>) {
    let types: Vec<String> = (0..words.byte() % 4).map(|_| kind(words)).collect();
    let types = serde_json::to_string(&types).expect("strings");
    let seconds = [0, 1, 60, u64::MAX][usize::from(words.byte() % 4)];
    let text = match words.byte() % 8 {
        0 => "{\"status\":{}}\n".into(),
        1 => "{\"clear\":{}}\n".into(),
        2 | 3 => format!("{{\"take\":{{\"types\":{types}}}}}\n"),
        4..=6 => format!("{{\"offer\":{{\"types\":{types},\"seconds\":{seconds}}}}}\n"),
        _ => "{\"offer\":{\"types\":[]}}\n".into(),
    };
    let file = (words.byte() & 3 != 0).then(|| descriptor(words, kept));
    (text, file)
}
