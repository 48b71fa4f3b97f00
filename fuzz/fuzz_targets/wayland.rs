//! Any requests of a client, well-formed and not, and any events of a compositor.
//!
//! Nothing may panic, and whatever a client says, the compositor hears a stream that it can take:
//! ids without gaps, objects that are there and of the right interface, arguments within bounds.
//! The compositor in `crates/wayland/tests/common` looks at each word.
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

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bench::Bench;
use casemate_wayland::Fault;
use casemate_wayland::protocol::{Interface, Kind, Message};
use casemate_wayland::wire::Arg;
use client::Client;
use libfuzzer_sys::fuzz_target;
use words::Words;

/// How long the client waits, which it does not do here.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Messages of one input.
const MOST: usize = 300;

fuzz_target!(|data: &[u8]| {
    let mut words = Words(data);
    let mut bench = Bench::new();
    bench.compositor.keeps = false;
    let registry = bench.client.new_id(Interface::Registry);
    bench.client.registry = registry;
    bench.client.say(1, "get_registry", vec![Arg::New(registry)]);
    bench.run().expect("nothing was said yet");
    for (name, interface, version) in bench.client.globals.clone() {
        if let Some(interface) = Interface::named(&interface) {
            bench.client.bind_as(name, interface, version);
        }
    }
    if words.byte() & 1 == 1 {
        scene(&mut bench.client);
        bench.run().expect("an honest client");
    }
    let mut gone = BTreeSet::new();
    for _ in 0..MOST {
        if words.0.is_empty() {
            break;
        }
        match words.byte() {
            // Bytes as they are.
            0 => {
                let bytes = words.bytes();
                let _ = bench.client.endpoint.flush();
                let socket = bench.client.raw.try_clone().expect("duplicated");
                // The socket does not wait, and holds this much.
                let _ = UnixStream::from(socket).write_all(bytes);
            }
            // An event of the compositor's.
            1..=40 => event(&mut bench, &mut words),
            // What was said so far is handled.
            41..=60 => {
                if !runs(&mut bench) {
                    return;
                }
                bench.client.events.clear();
            }
            _ => request(&mut bench.client, &mut gone, &mut words),
        }
    }
    runs(&mut bench);
});

/// Handles what was said. False when the client has to go, which is never our own mistake.
fn runs(bench: &mut Bench) -> bool {
    let outcome = bench.run();
    if let Err(Fault::Bug(what)) = &outcome {
        panic!("{what}");
    }
    outcome.is_ok()
}

/// Something to begin with: a window with content, two subsurfaces, input and selections.
fn scene(client: &mut Client) {
    let of = |client: &Client, wanted: Interface| {
        let found = client.objects.iter().find(|(_, it)| **it == wanted);
        *found.expect("all globals are bound").0
    };
    let [compositor, subcompositor, shm, base, seat, manager, viewporter] = [
        Interface::Compositor,
        Interface::Subcompositor,
        Interface::Shm,
        Interface::XdgWmBase,
        Interface::Seat,
        Interface::DataDeviceManager,
        Interface::Viewporter,
    ]
    .map(|wanted| of(client, wanted));
    let show = |client: &mut Client, surface: u32| {
        let buffer = client.buffer(shm, 40, 30, 0xff00_00ff);
        let attach = vec![Arg::Object(buffer), Arg::Int(0), Arg::Int(0)];
        client.say(surface, "attach", attach);
        client.say(surface, "commit", vec![]);
    };
    let root = client.make(compositor, "create_surface", Interface::Surface, vec![]);
    let object = vec![Arg::Object(root)];
    let xdg = client.make(base, "get_xdg_surface", Interface::XdgSurface, object);
    client.make(xdg, "get_toplevel", Interface::XdgToplevel, vec![]);
    let mut parent = root;
    for _ in 0..2 {
        let child = client.make(compositor, "create_surface", Interface::Surface, vec![]);
        let objects = [child, parent].map(Arg::Object).into();
        client.make(subcompositor, "get_subsurface", Interface::Subsurface, objects);
        show(client, child);
        parent = child;
    }
    client.make(viewporter, "get_viewport", Interface::Viewport, vec![Arg::Object(parent)]);
    let positioner = client.make(base, "create_positioner", Interface::XdgPositioner, vec![]);
    client.say(positioner, "set_size", vec![Arg::Int(10), Arg::Int(10)]);
    client.say(positioner, "set_anchor_rect", [0, 0, 1, 1].map(Arg::Int).into());
    let object = vec![Arg::Object(seat)];
    client.make(manager, "get_data_device", Interface::DataDevice, object);
    client.make(seat, "get_pointer", Interface::Pointer, vec![]);
    client.make(seat, "get_keyboard", Interface::Keyboard, vec![]);
    client.make(seat, "get_touch", Interface::Touch, vec![]);
    show(client, root);
}

/// A request of some object of the client's, mostly with arguments of the right kind.
fn request(client: &mut Client, gone: &mut BTreeSet<u32>, words: &mut Words<'_>) {
    let mut ids: Vec<u32> =
        client.objects.keys().copied().filter(|id| !gone.contains(id)).collect();
    ids.sort_unstable();
    // The newest are the most interesting.
    let at = ids.len() - 1 - usize::from(words.byte()) % ids.len();
    let (id, interface) = (ids[at], client.objects[&ids[at]]);
    let requests = interface.definition().requests;
    if requests.is_empty() {
        return;
    }
    let opcode = usize::from(words.byte()) % requests.len();
    if interface == Interface::Registry {
        return;
    }
    let arguments = arguments(client, &requests[opcode], gone, words);
    client.say_raw(id, opcode as u16, arguments);
    // Now and then one that is gone is used.
    if requests[opcode].ends && words.byte() < 250 {
        gone.insert(id);
    }
}

fn arguments(
    client: &mut Client,
    message: &Message,
    gone: &BTreeSet<u32>,
    words: &mut Words<'_>,
) -> Vec<Arg> {
    let mut all = Vec::new();
    for kind in message.arguments {
        all.push(match *kind {
            Kind::Int => Arg::Int(number(words)),
            Kind::Fixed => Arg::Fixed(number(words).wrapping_mul(256)),
            Kind::Uint => Arg::Uint(number(words).cast_unsigned()),
            Kind::String | Kind::StringOrNull => {
                let texts = ["", "x", "text/plain", "\u{202e}\u{8}\n[a]", "image/png"];
                Arg::String(Some(texts[usize::from(words.byte()) % texts.len()].into()))
            }
            Kind::Object(wanted) => Arg::Object(find(client, wanted, gone, words)),
            Kind::ObjectOrNull(wanted) => match words.byte() {
                0..=60 => Arg::Object(0),
                _ => Arg::Object(find(client, wanted, gone, words)),
            },
            Kind::AnyObject => Arg::Object(1),
            Kind::New(interface) => Arg::New(client.new_id(interface)),
            Kind::NewAny => Arg::New(number(words).cast_unsigned()),
            Kind::Array => Arg::Array(vec![words.byte(); usize::from(words.byte() % 16)]),
            Kind::Fd => Arg::Fd(file()),
        });
    }
    all
}

/// An object of an interface, the newest first; anything when there is none.
fn find(client: &Client, wanted: Interface, gone: &BTreeSet<u32>, words: &mut Words<'_>) -> u32 {
    let all = client.objects.iter().filter(|(id, it)| **it == wanted && !gone.contains(id));
    let mut ids: Vec<u32> = all.map(|(id, _)| *id).collect();
    ids.sort_unstable();
    match ids.len() {
        0 => u32::from(words.byte()),
        count => ids[count - 1 - usize::from(words.byte()) % count],
    }
}

/// An event of some object at the compositor.
fn event(bench: &mut Bench, words: &mut Words<'_>) {
    let ids: Vec<u32> = bench.compositor.objects.keys().copied().collect();
    let id = ids[ids.len() - 1 - usize::from(words.byte()) % ids.len()];
    let interface = bench.compositor.objects[&id];
    let events = interface.definition().events;
    if events.is_empty() || matches!(interface, Interface::Display | Interface::Registry) {
        return;
    }
    let message = &events[usize::from(words.byte()) % events.len()];
    let mut all = Vec::new();
    for kind in message.arguments {
        all.push(match *kind {
            Kind::Int | Kind::Fixed => Arg::Int(number(words)),
            Kind::Uint => Arg::Uint(number(words).cast_unsigned()),
            Kind::String | Kind::StringOrNull => Arg::String(Some("text/plain".into())),
            Kind::Object(wanted) | Kind::ObjectOrNull(wanted) => {
                let found = bench.compositor.objects.iter().rev();
                let mut found = found.filter(|(_, it)| **it == wanted).map(|(id, _)| *id);
                Arg::Object(found.nth(usize::from(words.byte() % 4)).unwrap_or(0))
            }
            Kind::AnyObject => Arg::Object(1),
            Kind::New(new) => {
                let id = 0xff00_0000 + u32::from(words.byte());
                if bench.compositor.objects.contains_key(&id) {
                    return;
                }
                bench.compositor.give(id, new);
                Arg::New(id)
            }
            Kind::NewAny => return,
            Kind::Array => Arg::Array(vec![words.byte(); usize::from(words.byte() % 16)]),
            Kind::Fd => Arg::Fd(file()),
        });
    }
    bench.compositor.say(id, message.name, all);
    if message.ends {
        bench.compositor.remove(id);
    }
}

fn file() -> OwnedFd {
    Client::memory(&[0; 16])
}

/// Mostly small, sometimes extreme.
fn number(words: &mut Words<'_>) -> i32 {
    match words.byte() {
        byte @ 0..=199 => i32::from(byte) - 20,
        byte @ 200..=219 => 100 * (i32::from(byte) - 200),
        220..=229 => i32::MAX,
        230..=239 => i32::MIN,
        _ => i32::from_le_bytes([words.byte(), words.byte(), words.byte(), words.byte()]),
    }
}
