//! A client by hand: it says what it is told, sense or nonsense, and keeps what it hears.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use casemate_wayland::protocol::{Interface, Kind};
use casemate_wayland::socket::Endpoint;
use casemate_wayland::wire::Arg;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::PATIENCE;

/// An event that was heard.
#[derive(Debug)]
pub struct Event {
    pub object: u32,
    pub name: &'static str,
    pub arguments: Vec<Arg>,
}

impl Event {
    pub fn uint(&self, at: usize) -> u32 {
        match self.arguments[at] {
            Arg::Uint(value) | Arg::Object(value) | Arg::New(value) => value,
            ref other => panic!("{other:?}"),
        }
    }

    pub fn int(&self, at: usize) -> i32 {
        match self.arguments[at] {
            Arg::Int(value) | Arg::Fixed(value) => value,
            ref other => panic!("{other:?}"),
        }
    }

    pub fn text(&self, at: usize) -> &str {
        match &self.arguments[at] {
            Arg::String(Some(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

/// A connection.
pub struct Client {
    pub endpoint: Endpoint,
    /// A second descriptor of the same socket, for bytes that are no messages.
    pub raw: OwnedFd,
    pub objects: HashMap<u32, Interface>,
    next: u32,
    /// An id that is free again, for the next buffer.
    again: Option<u32>,
    pub registry: u32,
    /// Name, interface, version.
    pub globals: Vec<(u32, String, u32)>,
    pub events: Vec<Event>,
    heard: u64,
}

impl Client {
    /// Connects and learns of the globals.
    pub fn connect(path: &Path) -> Self {
        let mut client = Self::silent(path);
        client.registry = client.new_id(Interface::Registry);
        client.say(1, "get_registry", vec![Arg::New(client.registry)]);
        client.sync().expect("connected");
        client
    }

    /// Connects and says nothing.
    pub fn silent(path: &Path) -> Self {
        Self::of(UnixStream::connect(path).expect("connected").into())
    }

    /// On a socket that is connected.
    pub fn of(socket: OwnedFd) -> Self {
        Self {
            raw: socket.try_clone().expect("duplicated"),
            endpoint: Endpoint::new(socket),
            objects: HashMap::from([(1, Interface::Display)]),
            next: 2,
            again: None,
            registry: 0,
            globals: Vec::new(),
            events: Vec::new(),
            heard: 0,
        }
    }

    /// An id that was not used before.
    pub fn new_id(&mut self, interface: Interface) -> u32 {
        let again = if interface == Interface::Buffer { self.again.take() } else { None };
        let id = again.unwrap_or(self.next);
        self.next = self.next.max(id + 1);
        self.objects.insert(id, interface);
        id
    }

    /// The next buffer has this id, of something that is destroyed.
    pub fn reuse(&mut self, id: u32) {
        self.again = Some(id);
    }

    /// A request, by name.
    pub fn say(&mut self, object: u32, name: &str, arguments: Vec<Arg>) {
        let interface = self.objects[&object];
        let opcode = interface.definition().request(name).expect(name);
        self.say_raw(object, opcode, arguments);
    }

    /// A request, by number.
    pub fn say_raw(&mut self, object: u32, opcode: u16, arguments: Vec<Arg>) {
        self.endpoint.put(object, opcode, arguments).expect("a short message");
    }

    /// A request with a new object before its arguments. Returns its id.
    pub fn make(
        &mut self,
        object: u32,
        name: &str,
        interface: Interface,
        mut arguments: Vec<Arg>,
    ) -> u32 {
        let id = self.new_id(interface);
        arguments.insert(0, Arg::New(id));
        self.say(object, name, arguments);
        id
    }

    /// The global of an interface, at the version it is offered.
    pub fn bind(&mut self, interface: Interface) -> u32 {
        let found = self.globals.iter().find(|(_, name, _)| *name == interface.name()).cloned();
        let (name, _, version) = found.unwrap_or_else(|| panic!("no {}", interface.name()));
        self.bind_as(name, interface, version.min(interface.definition().version))
    }

    pub fn bind_as(&mut self, name: u32, interface: Interface, version: u32) -> u32 {
        let id = self.new_id(interface);
        let arguments = vec![
            Arg::Uint(name),
            Arg::String(Some(interface.name().into())),
            Arg::Uint(version),
            Arg::New(id),
        ];
        self.say(self.registry, "bind", arguments);
        id
    }

    /// Whether a global is offered.
    pub fn has(&self, interface: Interface) -> bool {
        self.globals.iter().any(|(_, name, _)| name == interface.name())
    }

    /// Sends everything and waits until it was handled. An error is the other side's last word.
    pub fn sync(&mut self) -> Result<(), String> {
        let callback = self.make(1, "sync", Interface::Callback, vec![]);
        let heard = |event: &Event| event.object == callback && event.name == "done";
        self.wait(|client| client.events.iter().any(heard).then_some(()))
    }

    /// Waits for something to be heard.
    pub fn wait<T>(&mut self, look: impl Fn(&Self) -> Option<T>) -> Result<T, String> {
        let begin = Instant::now();
        loop {
            if let Some(seen) = look(self) {
                return Ok(seen);
            }
            assert!(begin.elapsed() < PATIENCE, "waited in vain; heard: {:?}", self.events);
            self.turn()?;
        }
    }

    /// Sends and hears what there is, waiting a little.
    pub fn turn(&mut self) -> Result<(), String> {
        let here = self.endpoint.flush().map_err(|error| error.to_string())?;
        let out = if self.endpoint.waiting() > 0 { PollFlags::OUT } else { PollFlags::empty() };
        let mut fds = [PollFd::new(&self.endpoint, PollFlags::IN | out)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        poll(&mut fds, Some(&timeout)).expect("waited");
        let open = self.endpoint.read().map_err(|error| error.to_string())?;
        self.hear_all()?;
        if open && here { Ok(()) } else { Err("closed".into()) }
    }

    /// Hears what there is without waiting. False when there was nothing.
    pub fn listen(&mut self) -> bool {
        let before = self.heard;
        let _ = self.endpoint.read();
        let _ = self.hear_all();
        self.heard != before
    }

    fn hear_all(&mut self) -> Result<(), String> {
        while let Some(header) = self.endpoint.next().map_err(|error| error.to_string())? {
            let interface = *self.objects.get(&header.object).unwrap_or_else(|| {
                panic!("an event of object {} that was not made", header.object)
            });
            let definition = &interface.definition().events[usize::from(header.opcode)];
            let arguments = self.endpoint.take(header, definition.arguments);
            let arguments = arguments.map_err(|error| error.to_string())?;
            for (kind, argument) in definition.arguments.iter().zip(&arguments) {
                if let (Kind::New(interface), Arg::New(id)) = (kind, argument) {
                    self.objects.insert(*id, *interface);
                }
            }
            self.heard += 1;
            self.hear(Event { object: header.object, name: definition.name, arguments })?;
        }
        Ok(())
    }

    fn hear(&mut self, event: Event) -> Result<(), String> {
        match (event.object, event.name) {
            (1, "error") => return Err(event.text(2).to_owned()),
            (1, "delete_id") => return Ok(()),
            (object, "global") if object == self.registry => {
                let global = (event.uint(0), event.text(1).to_owned(), event.uint(2));
                self.globals.push(global);
            }
            (object, "ping") if self.objects[&object] == Interface::XdgWmBase => {
                let serial = event.uint(0);
                self.say(object, "pong", vec![Arg::Uint(serial)]);
            }
            _ => self.events.push(event),
        }
        Ok(())
    }

    /// The last event of this name for an object.
    pub fn last(&self, object: u32, name: &str) -> Option<&Event> {
        self.events.iter().rev().find(|event| event.object == object && event.name == name)
    }

    /// Sends until the other side disconnects; its last word.
    pub fn until_disconnected(&mut self) -> String {
        let begin = Instant::now();
        loop {
            if let Err(why) = self.turn() {
                return why;
            }
            assert!(begin.elapsed() < PATIENCE, "still connected; heard: {:?}", self.events);
        }
    }

    /// A file in memory with these bytes.
    pub fn memory(bytes: &[u8]) -> OwnedFd {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = rustix::fs::memfd_create(c"test", flags).expect("a memory file");
        let mut file = std::fs::File::from(file);
        file.write_all(bytes).expect("written");
        file.into()
    }

    /// A buffer of one color, `0xAARRGGBB`.
    pub fn buffer(&mut self, shm: u32, width: i32, height: i32, color: u32) -> u32 {
        let size = width * height * 4;
        let bytes = color.to_ne_bytes().repeat((width * height) as usize);
        let file = Self::memory(&bytes);
        let pool = self.new_id(Interface::ShmPool);
        let arguments = vec![Arg::New(pool), Arg::Fd(file), Arg::Int(size)];
        self.say(shm, "create_pool", arguments);
        let mut arguments: Vec<Arg> = [0, width, height, width * 4].map(Arg::Int).into();
        arguments.push(Arg::Uint(0));
        let buffer = self.make(pool, "create_buffer", Interface::Buffer, arguments);
        self.say(pool, "destroy", vec![]);
        buffer
    }

    /// Bytes as they are.
    pub fn write(&self, bytes: &[u8]) {
        rustix::io::write(self.raw.as_fd(), bytes).expect("written");
    }
}
