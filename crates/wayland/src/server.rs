//! The loop: clients come, are served in turn, and go; none waits for another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::client::Client;
use crate::compartment::{Compartment, Effect};
use crate::connector::Connector;
use crate::control::Control;
use crate::fault::Fault;
use crate::limits;
use crate::settings::Settings;

/// Takes a line for the log.
pub type Log = fn(&str);

/// How many bytes this process has allocated.
pub type Heap = fn() -> usize;

/// Descriptors the server begins with.
#[derive(Debug)]
pub struct Descriptors {
    /// A socket that listens for clients, not blocking.
    pub listener: OwnedFd,
    /// On which connections to the compositor are asked for.
    pub connector: OwnedFd,
}

/// Serves the clients of one compartment.
#[derive(Debug)]
pub struct Server {
    settings: Rc<Settings>,
    compartment: Rc<RefCell<Compartment>>,
    listener: OwnedFd,
    connector: Connector,
    control: Control,
    clients: BTreeMap<u64, Slot>,
    last: u64,
    log: Log,
    heap: Heap,
    /// What was allocated before there were clients.
    base: usize,
    /// When the log's count began, and the lines since.
    logged: (Instant, u32),
}

/// A client, from its first byte to its last.
#[derive(Debug)]
struct Slot {
    since: Instant,
    /// Bytes that were allocated while it was served, less those that were freed.
    heap: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It waits for its connection to the compositor.
    Waiting(OwnedFd),
    /// It is served.
    Served(Box<Client>),
}

/// What a descriptor in the list of poll belongs to.
#[derive(Clone, Copy, Debug)]
enum Source {
    Listener,
    Connector,
    Down(u64),
    Up(u64),
    Control(usize),
}

impl Server {
    /// A server without clients.
    pub fn new(
        settings: Settings,
        descriptors: Descriptors,
        control: Control,
        log: Log,
        heap: Heap,
    ) -> Self {
        Self {
            settings: Rc::new(settings),
            compartment: Rc::default(),
            listener: descriptors.listener,
            connector: Connector::new(descriptors.connector),
            control,
            clients: BTreeMap::new(),
            last: 0,
            log,
            heap,
            base: heap(),
            logged: (Instant::now(), 0),
        }
    }

    /// Serves until the broker it was started with is gone.
    ///
    /// # Errors
    /// Waiting failed, or nobody connects to the compositor any more.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// Waits, and does what can be done then. False when it is over.
    fn turn(&mut self) -> io::Result<bool> {
        let ready = self.wait()?;
        for (source, flags) in ready {
            match source {
                Source::Listener => self.accept(),
                Source::Connector => self.connected()?,
                Source::Down(key) => self.attempt(key, |client| read_client(client, flags)),
                Source::Up(key) => self.attempt(key, |client| read_compositor(client, flags)),
                Source::Control(which) => {
                    let mut compartment = self.compartment.borrow_mut();
                    if !self.control.turn(which, flags, &mut compartment) {
                        return Ok(false);
                    }
                }
            }
        }
        let keys: Vec<u64> = self.clients.keys().copied().collect();
        for &key in &keys {
            self.attempt(key, |client| client.handle_requests().map(|_| ()));
        }
        self.effects();
        for key in keys {
            self.attempt(key, |client| {
                let here = client.down.flush()? && client.up.flush()?;
                client.announce_late()?;
                if here { Ok(()) } else { Err(Fault::Left) }
            });
        }
        self.police();
        self.effects();
        Ok(true)
    }

    /// Waits for descriptors.
    fn wait(&mut self) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = Vec::with_capacity(2 * self.clients.len() + 8);
        let mut fds = Vec::with_capacity(2 * self.clients.len() + 8);
        let mut now = false;
        if self.clients.len() < limits::CLIENTS {
            sources.push(Source::Listener);
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        sources.push(Source::Connector);
        fds.push(PollFd::new(&self.connector, PollFlags::IN));
        let mut waiting = false;
        for (key, slot) in &self.clients {
            let State::Served(client) = &slot.state else {
                waiting = true;
                continue;
            };
            waiting |= !client.is_ready();
            // Requests that were read wait for their turn, and no descriptor tells of them.
            now |= client.has_requests();
            let out = |endpoint: &crate::socket::Endpoint| match endpoint.waiting() {
                0 => PollFlags::empty(),
                _ => PollFlags::OUT,
            };
            let read = if client.wants_more() { PollFlags::IN } else { PollFlags::empty() };
            sources.push(Source::Down(*key));
            fds.push(PollFd::new(&client.down, read | out(&client.down)));
            sources.push(Source::Up(*key));
            fds.push(PollFd::new(&client.up, PollFlags::IN | out(&client.up)));
        }
        for (number, (fd, flags)) in self.control.descriptors().into_iter().enumerate() {
            sources.push(Source::Control(number));
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let timeout = match (now, waiting || self.control.has_deadlines()) {
            (true, _) => Some(&zero),
            (_, true) => Some(&second),
            _ => None,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(other) => return Err(other.into()),
        }
        let ready = sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, fd)| (*source, fd.revents())).collect())
    }

    /// New clients.
    fn accept(&mut self) {
        while self.clients.len() < limits::CLIENTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(socket) = accept_with(&self.listener, flags) else { return };
            self.last += 1;
            let state = State::Waiting(socket);
            self.clients.insert(self.last, Slot { since: Instant::now(), heap: 0, state });
            if self.connector.ask(self.last).is_err() {
                let fault = Fault::Upstream("nobody connects to it".into());
                self.end(self.last, &fault);
            }
        }
    }

    /// Connections to the compositor.
    fn connected(&mut self) -> io::Result<()> {
        while let Some((key, socket)) = self.connector.answer()? {
            let Some(slot) = self.clients.get_mut(&key) else { continue };
            let State::Waiting(down) = &slot.state else { continue };
            let Some(up) = socket else {
                let fault = Fault::Upstream("it does not accept connections".into());
                self.end(key, &fault);
                continue;
            };
            let down = down.try_clone();
            let settings = self.settings.clone();
            let client = down
                .map_err(Fault::Socket)
                .and_then(|down| Client::new(key, settings, self.compartment.clone(), down, up));
            match client {
                Ok(client) => {
                    slot.state = State::Served(Box::new(client));
                }
                Err(fault) => self.end(key, &fault),
            }
        }
        Ok(())
    }

    /// Does something with a client, and ends it when that fails.
    fn attempt(&mut self, key: u64, act: impl FnOnce(&mut Client) -> Result<(), Fault>) {
        let Some(slot) = self.clients.get_mut(&key) else { return };
        let State::Served(client) = &mut slot.state else { return };
        let before = (self.heap)();
        let done = act(client);
        slot.heap = (slot.heap + (self.heap)()).saturating_sub(before);
        let done = match slot.heap > limits::CLIENT_HEAP {
            true => done.and(Err(Fault::limit("bytes of memory", limits::CLIENT_HEAP))),
            false => done,
        };
        if let Err(fault) = done {
            self.end(key, &fault);
        }
        self.bound_heap();
    }

    /// All clients together have only so much, at any time.
    fn bound_heap(&mut self) {
        let all = (self.heap)().saturating_sub(self.base);
        if all > limits::HEAP
            && let Some((&key, _)) = self.clients.iter().max_by_key(|(_, slot)| slot.heap)
        {
            self.end(key, &Fault::limit("bytes of memory of all clients", limits::HEAP));
        }
    }

    /// What one client made another may free, so accounts drift apart from what there is; they are never
    /// more together.
    fn settle_heap(&mut self) {
        let all = (self.heap)().saturating_sub(self.base);
        let sum: usize = self.clients.values().map(|slot| slot.heap).sum();
        if sum > all {
            for slot in self.clients.values_mut() {
                slot.heap = (slot.heap as u128 * all as u128 / sum as u128) as usize;
            }
        }
    }

    /// Disconnects a client. The log has a line of it, unless it left by itself.
    fn end(&mut self, key: u64, fault: &Fault) {
        let Some(mut slot) = self.clients.remove(&key) else { return };
        if let State::Served(client) = &mut slot.state {
            client.say(fault);
        }
        self.compartment.borrow_mut().forget_client(key);
        if !matches!(fault, Fault::Left) {
            self.note(&format!("client {key} of {} ended: {fault}", self.settings.name));
        }
    }

    /// Writes a line to the log. Clients that come and are ended again and again do not fill it.
    fn note(&mut self, line: &str) {
        let (begin, lines) = self.logged;
        if begin.elapsed() > limits::LOG_TIME {
            if lines > limits::LOG_LINES {
                let more = lines - limits::LOG_LINES;
                (self.log)(&format!("{more} more lines were not written"));
            }
            self.logged = (Instant::now(), 0);
        }
        self.logged.1 = self.logged.1.saturating_add(1);
        if self.logged.1 <= limits::LOG_LINES {
            (self.log)(line);
        }
    }

    /// What clients left for one another.
    fn effects(&mut self) {
        loop {
            let effect = self.compartment.borrow_mut().effects.pop_front();
            match effect {
                None => return,
                Some(Effect::Announce(which)) => {
                    let keys: Vec<u64> = self.clients.keys().copied().collect();
                    for key in keys {
                        self.attempt(key, |client| client.announce(which));
                    }
                    self.control.announced(&self.compartment.borrow(), which);
                }
                Some(Effect::Send { client, source, kind, fd }) => {
                    self.attempt(client, |client| client.send_data(source, kind, fd));
                }
                Some(Effect::Cancelled { client, source }) => {
                    self.attempt(client, |client| client.cancel_source(source));
                }
                Some(Effect::Broker { number, kind, fd }) => self.control.serve(number, kind, fd),
                Some(Effect::Focus(focused)) => self.control.focus(focused),
            }
        }
    }

    /// Deadlines, and what only the sum of all clients shows.
    fn police(&mut self) {
        let begun = |slot: &Slot| matches!(&slot.state, State::Served(client) if client.is_ready());
        let late = Duration::from_millis(limits::READY);
        let silent: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, slot)| !begun(slot) && slot.since.elapsed() > late)
            .map(|(key, _)| *key)
            .collect();
        for key in silent {
            self.end(key, &Fault::Upstream("it does not answer".into()));
        }
        let counts = self.clients.iter().map(|(key, slot)| match &slot.state {
            State::Served(client) => (client.objects(), *key),
            State::Waiting(_) => (0, *key),
        });
        let counts: Vec<(usize, u64)> = counts.collect();
        let sum: usize = counts.iter().map(|(count, _)| count).sum();
        if sum > limits::ALL_OBJECTS
            && let Some((_, key)) = counts.into_iter().max()
        {
            self.end(key, &Fault::limit("objects of all clients", limits::ALL_OBJECTS));
        }
        self.settle_heap();
        self.control.expire(&mut self.compartment.borrow_mut());
    }
}

fn read_client(client: &mut Client, flags: PollFlags) -> Result<(), Fault> {
    if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
        return Ok(());
    }
    if !client.wants_input() {
        // It hung up while it may not be read: what it said last is of no more use.
        return if flags.contains(PollFlags::HUP) { Err(Fault::Left) } else { Ok(()) };
    }
    // What it said before it left counts still, and is handled in its turn.
    if !client.wants_more() || client.down.read()? {
        return Ok(());
    }
    let _ = client.up.flush();
    Err(Fault::Left)
}

fn read_compositor(client: &mut Client, flags: PollFlags) -> Result<(), Fault> {
    if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
        return Ok(());
    }
    let here = client.up.read()?;
    client.handle_events()?;
    if here { Ok(()) } else { Err(Fault::Ended("the connection was closed".into())) }
}

/// A listening socket that accepts without waiting.
///
/// # Errors
/// It is none.
pub fn unblock(listener: &impl AsFd) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(listener)?;
    Ok(fcntl_setfl(listener, flags | OFlags::NONBLOCK)?)
}
