//! A client that measures what stands between it and the compositor of `$WAYLAND_DISPLAY`. Used by
//! `cargo xtask bench windows`; prints one line of JSON.
//!
//! `measure round-trips N` asks N times and waits each time; `measure commits N` commits N times a
//! window of 1280×720 and waits once; `measure frames SECONDS` shows such a window, all of it new,
//! 60 times a second.

#![allow(missing_docs)]

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_wayland::protocol::Interface;
use casemate_wayland::socket::Endpoint;
use casemate_wayland::wire::Arg;
use rustix::event::{PollFd, PollFlags, poll};

const SIZE: (i32, i32) = (1280, 720);

/// A connection with what a window needs.
struct Client {
    endpoint: Endpoint,
    next: u32,
    globals: Vec<(u32, String)>,
    /// Callbacks and configures that were heard.
    heard: Vec<(u32, u32)>,
    interfaces: Vec<Interface>,
}

impl Client {
    fn connect() -> Self {
        let display = PathBuf::from(std::env::var_os("WAYLAND_DISPLAY").expect("WAYLAND_DISPLAY"));
        let runtime = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_default());
        let stream = UnixStream::connect(runtime.join(display)).expect("a compositor");
        let interfaces = vec![Interface::Display; 2];
        let endpoint = Endpoint::new(stream.into());
        let mut client = Self { endpoint, next: 2, globals: vec![], heard: vec![], interfaces };
        let registry = client.new_id(Interface::Registry);
        client.say(1, "get_registry", vec![Arg::New(registry)]);
        client.sync();
        client
    }

    fn new_id(&mut self, interface: Interface) -> u32 {
        self.interfaces.push(interface);
        self.next += 1;
        self.next - 1
    }

    fn say(&mut self, object: u32, name: &str, arguments: Vec<Arg>) {
        let interface = self.interfaces[object as usize];
        let opcode = interface.definition().request(name).expect(name);
        self.endpoint.put(object, opcode, arguments).expect("short");
    }

    fn make(&mut self, object: u32, name: &str, new: Interface, mut rest: Vec<Arg>) -> u32 {
        let id = self.new_id(new);
        rest.insert(0, Arg::New(id));
        self.say(object, name, rest);
        id
    }

    fn bind(&mut self, interface: Interface) -> u32 {
        let (name, text) =
            self.globals.iter().find(|it| it.1 == interface.name()).cloned().expect("a global");
        let id = self.new_id(interface);
        let text = Arg::String(Some(text));
        self.say(2, "bind", vec![Arg::Uint(name), text, Arg::Uint(1), Arg::New(id)]);
        id
    }

    fn turn(&mut self) {
        self.endpoint.flush().expect("sent");
        let out = if self.endpoint.waiting() > 0 { PollFlags::OUT } else { PollFlags::empty() };
        poll(&mut [PollFd::new(&self.endpoint, PollFlags::IN | out)], None).expect("waited");
        assert!(self.endpoint.read().expect("read"), "disconnected");
        while let Some(header) = self.endpoint.next().expect("valid") {
            let interface = self.interfaces[header.object as usize];
            let event = &interface.definition().events[usize::from(header.opcode)];
            let arguments = self.endpoint.take(header, event.arguments).expect("valid");
            match (event.name, &arguments[..]) {
                ("global", [Arg::Uint(name), Arg::String(Some(text)), _]) => {
                    self.globals.push((*name, text.clone()));
                }
                ("error", _) => panic!("{arguments:?}"),
                ("done" | "configure", [Arg::Uint(value), ..]) => {
                    self.heard.push((header.object, *value));
                }
                ("ping", [Arg::Uint(serial)]) => {
                    self.say(header.object, "pong", vec![Arg::Uint(*serial)]);
                }
                _ => {}
            }
        }
    }

    fn wait_for(&mut self, object: u32) -> u32 {
        loop {
            if let Some(at) = self.heard.iter().position(|it| it.0 == object) {
                return self.heard.swap_remove(at).1;
            }
            self.turn();
        }
    }

    fn sync(&mut self) {
        let callback = self.make(1, "sync", Interface::Callback, vec![]);
        self.wait_for(callback);
    }
}

/// A window with two buffers.
struct Window {
    client: Client,
    surface: u32,
    buffers: [u32; 2],
    shown: usize,
}

impl Window {
    fn new() -> Self {
        let mut client = Client::connect();
        let compositor = client.bind(Interface::Compositor);
        let shm = client.bind(Interface::Shm);
        let base = client.bind(Interface::XdgWmBase);
        let surface = client.make(compositor, "create_surface", Interface::Surface, vec![]);
        let object = vec![Arg::Object(surface)];
        let xdg = client.make(base, "get_xdg_surface", Interface::XdgSurface, object);
        client.make(xdg, "get_toplevel", Interface::XdgToplevel, vec![]);
        client.say(surface, "commit", vec![]);
        let serial = client.wait_for(xdg);
        client.say(xdg, "ack_configure", vec![Arg::Uint(serial)]);
        let bytes = SIZE.0 * SIZE.1 * 4;
        let file = rustix::fs::memfd_create(c"measure", rustix::fs::MemfdFlags::CLOEXEC);
        let mut file = File::from(file.expect("a memory file"));
        file.write_all(&vec![0x80; 2 * bytes as usize]).expect("written");
        let pool = client.new_id(Interface::ShmPool);
        let arguments = vec![Arg::New(pool), Arg::Fd(file.into()), Arg::Int(2 * bytes)];
        client.say(shm, "create_pool", arguments);
        let buffers = [0, bytes].map(|offset| {
            let mut arguments: Vec<Arg> = [offset, SIZE.0, SIZE.1, 4 * SIZE.0].map(Arg::Int).into();
            arguments.push(Arg::Uint(1));
            client.make(pool, "create_buffer", Interface::Buffer, arguments)
        });
        let mut window = Self { client, surface, buffers, shown: 0 };
        window.commit();
        window.client.sync();
        window
    }

    fn commit(&mut self) {
        self.shown = 1 - self.shown;
        let attach = vec![Arg::Object(self.buffers[self.shown]), Arg::Int(0), Arg::Int(0)];
        self.client.say(self.surface, "attach", attach);
        let all = [0, 0, SIZE.0, SIZE.1].map(Arg::Int).into();
        self.client.say(self.surface, "damage", all);
        self.client.say(self.surface, "commit", vec![]);
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, count] = &words[..] else { panic!("measure WHAT COUNT") };
    let count: u32 = count.parse().expect("a number");
    match what.as_str() {
        "round-trips" => {
            let mut client = Client::connect();
            let mut times: Vec<f64> = (0..count)
                .map(|_| {
                    let begin = Instant::now();
                    client.sync();
                    begin.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            times.sort_by(f64::total_cmp);
            println!("{{\"microseconds\":{:.1}}}", times[times.len() / 2]);
        }
        "commits" => {
            let mut window = Window::new();
            let begin = Instant::now();
            for number in 0..count {
                window.commit();
                if number % 100 == 99 {
                    window.client.sync();
                }
            }
            window.client.sync();
            println!("{{\"per-second\":{:.0}}}", f64::from(count) / begin.elapsed().as_secs_f64());
        }
        "frames" => {
            let mut window = Window::new();
            let begin = Instant::now();
            let mut frames = 0_u32;
            while begin.elapsed() < Duration::from_secs(u64::from(count)) {
                window.commit();
                window.client.sync();
                frames += 1;
                let next = begin + Duration::from_secs(1) * frames / 60;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            println!("{{\"frames\":{frames}}}");
        }
        other => panic!("{other} cannot be measured"),
    }
}
