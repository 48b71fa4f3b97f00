//! One client: its connection, the connection to the compositor that is made for it alone, and
//! everything it has made.
//!
//! A message is looked up in [`crate::protocol`]: forwarded with its objects translated, or given to
//! a handler in one of these modules. Ids of the two sides differ, because the proxy has objects of
//! its own at the compositor: borders, viewports, regions.

pub(crate) mod cursor;
pub(crate) mod display;
pub(crate) mod drag;
mod emit;
mod forward;
mod frame;
mod ids;
pub(crate) mod keyboard;
mod layout;
mod own;
pub(crate) mod popup;
pub(crate) mod positioner;
pub(crate) mod region;
pub(crate) mod registry;
pub(crate) mod screen;
pub(crate) mod seat;
pub(crate) mod selection;
pub(crate) mod shell;
pub(crate) mod shm;
mod state;
pub(crate) mod subsurface;
pub(crate) mod surface;
pub(crate) mod toplevel;
pub(crate) mod viewport;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use crate::compartment::Compartment;
use crate::fault::Fault;
use crate::limits;
use crate::protocol::{Interface, Rule};
use crate::settings::Settings;
use crate::socket::Endpoint;
use crate::wire::Arg;
use ids::Ids;
pub(crate) use ids::Owner;

/// A client and what it has.
#[derive(Debug)]
pub struct Client {
    pub(crate) key: u64,
    pub(crate) settings: Rc<Settings>,
    pub(crate) compartment: Rc<RefCell<Compartment>>,
    pub(crate) down: Endpoint,
    pub(crate) up: Endpoint,
    pub(crate) ids: Ids,
    pub(crate) globals: registry::Globals,
    pub(crate) own: own::Own,
    pub(crate) screens: screen::Screens,
    pub(crate) surfaces: BTreeMap<u32, surface::Surface>,
    /// Subsurface to surface.
    pub(crate) subsurfaces: BTreeMap<u32, u32>,
    /// Viewport to surface.
    pub(crate) viewports: BTreeMap<u32, u32>,
    /// `wp_fractional_scale_v1` to surface.
    pub(crate) fractions: BTreeMap<u32, u32>,
    pub(crate) regions: BTreeMap<u32, region::Region>,
    /// By a number that is not used again: a pool lives on with its buffers.
    pub(crate) pools: BTreeMap<u64, shm::Pool>,
    pub(crate) last_pool: u64,
    pub(crate) buffers: BTreeMap<u32, shm::Buffer>,
    pub(crate) last_buffer: u64,
    /// Buffers that the client has destroyed and something that waits still shows.
    pub(crate) doomed: Vec<u32>,
    pub(crate) positioners: BTreeMap<u32, positioner::Positioner>,
    pub(crate) xdg: BTreeMap<u32, shell::XdgSurface>,
    pub(crate) toplevels: BTreeMap<u32, toplevel::Toplevel>,
    pub(crate) popups: BTreeMap<u32, popup::Popup>,
    /// Whether each has the focus.
    pub(crate) keyboards: BTreeMap<u32, bool>,
    pub(crate) pointers: BTreeMap<u32, seat::Pointer>,
    pub(crate) touches: BTreeMap<u32, BTreeMap<i32, seat::Place>>,
    pub(crate) text_inputs: BTreeMap<u32, u32>,
    pub(crate) sources: BTreeMap<u32, selection::Source>,
    pub(crate) devices: BTreeMap<u32, selection::Device>,
    pub(crate) offers: BTreeMap<u32, selection::Offer>,
    pub(crate) drag: drag::Drags,
}

/// A message on its way to a handler. Ids are those of the side it came from.
#[derive(Debug)]
pub(crate) struct Call {
    /// The client's id of the object.
    pub(crate) object: u32,
    pub(crate) interface: Interface,
    pub(crate) version: u32,
    pub(crate) opcode: u16,
    pub(crate) arguments: std::vec::IntoIter<Arg>,
}

/// Arguments one after the other. They were compared with the definition, so that a mismatch is a
/// mistake in a handler.
impl Call {
    pub(crate) fn int(&mut self) -> Result<i32, Fault> {
        match self.arguments.next() {
            Some(Arg::Int(value) | Arg::Fixed(value)) => Ok(value),
            _ => Err(Fault::Bug("a handler expects a signed number")),
        }
    }

    pub(crate) fn uint(&mut self) -> Result<u32, Fault> {
        match self.arguments.next() {
            Some(Arg::Uint(value)) => Ok(value),
            _ => Err(Fault::Bug("a handler expects a number")),
        }
    }

    /// An object's id, or the id of a new one; 0 for none.
    pub(crate) fn id(&mut self) -> Result<u32, Fault> {
        match self.arguments.next() {
            Some(Arg::Object(id) | Arg::New(id)) => Ok(id),
            _ => Err(Fault::Bug("a handler expects an object")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<Option<String>, Fault> {
        match self.arguments.next() {
            Some(Arg::String(text)) => Ok(text),
            _ => Err(Fault::Bug("a handler expects a text")),
        }
    }

    pub(crate) fn array(&mut self) -> Result<Vec<u8>, Fault> {
        match self.arguments.next() {
            Some(Arg::Array(bytes)) => Ok(bytes),
            _ => Err(Fault::Bug("a handler expects bytes")),
        }
    }

    pub(crate) fn fd(&mut self) -> Result<OwnedFd, Fault> {
        match self.arguments.next() {
            Some(Arg::Fd(fd)) => Ok(fd),
            _ => Err(Fault::Bug("a handler expects a descriptor")),
        }
    }
}

impl Client {
    /// A client on `down` whose connection to the compositor is `up`. Nothing is read of it before
    /// the compositor has told what it has: [`Self::is_ready`].
    ///
    /// # Errors
    /// The first messages do not fit, which they do.
    pub fn new(
        key: u64,
        settings: Rc<Settings>,
        compartment: Rc<RefCell<Compartment>>,
        down: OwnedFd,
        up: OwnedFd,
    ) -> Result<Self, Fault> {
        let mut client = Self {
            key,
            settings,
            compartment,
            down: Endpoint::new(down),
            up: Endpoint::new(up),
            ids: Ids::new(),
            globals: registry::Globals::default(),
            own: own::Own::default(),
            screens: screen::Screens::default(),
            surfaces: BTreeMap::new(),
            subsurfaces: BTreeMap::new(),
            viewports: BTreeMap::new(),
            fractions: BTreeMap::new(),
            regions: BTreeMap::new(),
            pools: BTreeMap::new(),
            last_pool: 0,
            buffers: BTreeMap::new(),
            last_buffer: 0,
            doomed: Vec::new(),
            positioners: BTreeMap::new(),
            xdg: BTreeMap::new(),
            toplevels: BTreeMap::new(),
            popups: BTreeMap::new(),
            keyboards: BTreeMap::new(),
            pointers: BTreeMap::new(),
            touches: BTreeMap::new(),
            text_inputs: BTreeMap::new(),
            sources: BTreeMap::new(),
            devices: BTreeMap::new(),
            offers: BTreeMap::new(),
            drag: drag::Drags::default(),
        };
        client.begin()?;
        Ok(client)
    }

    /// Whether the compositor has told what it has.
    pub fn is_ready(&self) -> bool {
        self.own.ready
    }

    /// Whether requests may be handled: the client has an answer, and the compositor takes what it says.
    pub fn wants_input(&self) -> bool {
        let fds = self.up.waiting_fds() < limits::UP_FDS;
        self.own.ready && fds && self.up.waiting() < limits::UP_PAUSE
    }

    /// Whether the client may be read: nothing that it said before waits.
    pub fn wants_more(&self) -> bool {
        self.wants_input() && matches!(self.down.next(), Ok(None))
    }

    /// Whether a request that was read can be handled.
    pub fn has_requests(&self) -> bool {
        // What is no message is found out by handling it.
        self.wants_input() && !matches!(self.down.next(), Ok(None))
    }

    /// Handles requests that were read, some at a time. True when more are waiting.
    ///
    /// # Errors
    /// The client has to go.
    pub fn handle_requests(&mut self) -> Result<bool, Fault> {
        let begin = Instant::now();
        for number in 1..=limits::TURN {
            let late = number % 16 == 0 && begin.elapsed() > limits::TURN_TIME;
            if late || !self.wants_input() {
                return Ok(self.has_requests());
            }
            let Some(header) = self.down.next()? else { return Ok(false) };
            let Some(object) = self.ids.live(header.object) else {
                return Err(Fault::Protocol {
                    object: 1,
                    code: crate::fault::code::INVALID_OBJECT,
                    why: format!("it used object {} that is not there", header.object),
                });
            };
            let message = object.interface.definition().requests.get(usize::from(header.opcode));
            let message = message.filter(|message| message.since <= object.version);
            let Some(message) = message else {
                let name = object.interface.name();
                let why = format!("it sent request {} of {name}, not there", header.opcode);
                return Err(Fault::protocol(header.object, why));
            };
            let arguments = self.down.take(header, message.arguments)?;
            self.check_objects(header.object, message, &arguments)?;
            let call = Call {
                object: header.object,
                interface: object.interface,
                version: object.version,
                opcode: header.opcode,
                arguments: arguments.into_iter(),
            };
            match message.rule {
                Rule::Forward => self.forward_request(call)?,
                Rule::Handle(handler) => handler(self, call)?,
                Rule::Refuse => {
                    let why =
                        format!("{}.{} is not allowed", object.interface.name(), message.name);
                    return Err(Fault::protocol(header.object, why));
                }
            }
            self.check_upstream()?;
            self.check_output()?;
        }
        Ok(true)
    }

    /// Handles events that were read.
    ///
    /// # Errors
    /// The client has to go.
    pub fn handle_events(&mut self) -> Result<(), Fault> {
        while let Some(header) = self.up.next()? {
            let Some(owner) = self.ids.owner(header.object) else {
                return Err(Fault::Ended("it speaks of an object that is not there".into()));
            };
            let interface = owner.interface();
            let message = interface.definition().events.get(usize::from(header.opcode));
            let Some(message) = message else {
                return Err(Fault::Ended(format!("{} has no such event", interface.name())));
            };
            let arguments = self.up.take(header, message.arguments)?;
            match owner {
                Owner::Ours { role, .. } => {
                    self.own_event(header.object, role, message.name, arguments)?;
                }
                Owner::Client { id, .. } => {
                    let Some(object) = self.ids.live(id) else { continue };
                    let call = Call {
                        object: id,
                        interface,
                        version: object.version,
                        opcode: header.opcode,
                        arguments: arguments.into_iter(),
                    };
                    match message.rule {
                        Rule::Forward => self.forward_event(call)?,
                        Rule::Handle(handler) => handler(self, call)?,
                        Rule::Refuse => {}
                    }
                }
            }
            self.check_output()?;
        }
        Ok(())
    }

    /// A client whose requests become too much for the compositor goes.
    pub(crate) fn check_upstream(&self) -> Result<(), Fault> {
        match self.up.waiting() > limits::UP {
            true => Err(Fault::limit("bytes for the compositor", limits::UP)),
            false => Ok(()),
        }
    }

    /// A client that does not read is not waited for.
    pub(crate) fn check_output(&self) -> Result<(), Fault> {
        match self.down.waiting() > limits::DOWN {
            true => Err(Fault::limit("bytes that it does not read", limits::DOWN)),
            false => Ok(()),
        }
    }

    /// The last the client hears.
    pub fn say(&mut self, fault: &Fault) {
        if matches!(fault, Fault::Left) {
            return;
        }
        let (object, code) = fault.told();
        let text = format!("casemate: {fault}");
        let arguments = vec![Arg::Object(object), Arg::Uint(code), Arg::String(Some(text))];
        // It may be gone, or not read.
        let _ = self.event(1, Interface::Display, "error", arguments);
        let _ = self.down.flush();
    }
}

impl Client {
    /// Reads, handles and sends what there is, without waiting: what a server does in parts, for
    /// whoever has one client only.
    ///
    /// # Errors
    /// The client has to go.
    pub fn turn(&mut self) -> Result<(), Fault> {
        self.up.read()?;
        self.handle_events()?;
        if self.wants_more() {
            self.down.read()?;
        }
        self.handle_requests()?;
        self.up.flush()?;
        self.down.flush()?;
        Ok(())
    }

    /// Live objects of this client.
    pub fn objects(&self) -> usize {
        self.ids.count()
    }
}
