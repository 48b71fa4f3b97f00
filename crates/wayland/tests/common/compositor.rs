//! A compositor by hand: it takes what the proxy says to it, word for word, and complains as a real
//! one would, about ids, objects and arguments; it says what a test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use casemate_wayland::protocol::{Interface, Kind};
use casemate_wayland::socket::Endpoint;
use casemate_wayland::wire::Arg;

/// Everything the proxy may hear of, each at the version of the table.
pub const GLOBALS: [Interface; 16] = [
    Interface::Compositor,
    Interface::Subcompositor,
    Interface::Shm,
    Interface::Seat,
    Interface::Output,
    Interface::XdgWmBase,
    Interface::XdgDecorationManager,
    Interface::CursorShapeManager,
    Interface::Presentation,
    Interface::FractionalScaleManager,
    Interface::XdgOutputManager,
    Interface::TextInputManager,
    Interface::XdgActivation,
    Interface::PointerConstraints,
    Interface::Viewporter,
    Interface::DataDeviceManager,
];

/// A request that was heard.
#[derive(Debug)]
pub struct Request {
    pub object: u32,
    pub interface: Interface,
    pub name: &'static str,
    pub arguments: Vec<Arg>,
}

impl Request {
    /// Its numbers and objects.
    pub fn numbers(&self) -> Vec<i64> {
        let numbers = self.arguments.iter().filter_map(|argument| match argument {
            Arg::Int(value) | Arg::Fixed(value) => Some(i64::from(*value)),
            Arg::Uint(value) | Arg::Object(value) | Arg::New(value) => Some(i64::from(*value)),
            _ => None,
        });
        numbers.collect()
    }
}

/// The compositor.
pub struct Compositor {
    endpoint: Endpoint,
    pub objects: BTreeMap<u32, Interface>,
    free: BTreeSet<u32>,
    next: u32,
    pub requests: Vec<Request>,
    /// Whether what was heard is kept.
    pub keeps: bool,
    seen: Seen,
}

/// What of windows can be seen, as far as it takes to say whether it is inside of them.
#[derive(Debug, Default)]
struct Seen {
    /// Buffer to its size.
    buffers: BTreeMap<u32, (i64, i64)>,
    /// Surface to the buffer that was attached last, in which size.
    attached: BTreeMap<u32, (i64, i64)>,
    /// Surface to the size its viewport gives it.
    sizes: BTreeMap<u32, (i64, i64)>,
    /// Viewport to surface.
    viewports: BTreeMap<u32, u32>,
    /// Subsurface to its surface, its parent, and where it is.
    subs: BTreeMap<u32, (u32, u32, (i64, i64))>,
    /// `xdg_surface` to surface.
    windows: BTreeMap<u32, u32>,
    /// Surface to the geometry of its window.
    geometries: BTreeMap<u32, [i64; 4]>,
}

impl Seen {
    fn hear(&mut self, object: u32, interface: Interface, name: &str, arguments: &[Arg]) {
        let number = |at: usize| match arguments[at] {
            Arg::Int(value) => i64::from(value),
            _ => panic!("{name} has no number {at}"),
        };
        match (interface, name, arguments) {
            (Interface::Compositor, "create_surface", [Arg::New(id)]) => {
                self.attached.remove(id);
                self.sizes.remove(id);
                self.geometries.remove(id);
            }
            (Interface::ShmPool, "create_buffer", [Arg::New(id), ..]) => {
                self.buffers.insert(*id, (number(2), number(3)));
            }
            (Interface::Surface, "attach", [Arg::Object(buffer), ..]) => {
                match self.buffers.get(buffer) {
                    Some(size) => self.attached.insert(object, *size),
                    None => self.attached.remove(&object),
                };
            }
            (Interface::Viewporter, "get_viewport", [Arg::New(id), Arg::Object(surface)]) => {
                self.viewports.insert(*id, *surface);
            }
            (Interface::Viewport, "set_destination", _) => {
                if let Some(surface) = self.viewports.get(&object) {
                    self.sizes.insert(*surface, (number(0), number(1)));
                }
            }
            (
                Interface::Subcompositor,
                "get_subsurface",
                [Arg::New(id), Arg::Object(surface), Arg::Object(parent)],
            ) => {
                self.subs.insert(*id, (*surface, *parent, (0, 0)));
            }
            (Interface::Subsurface, "set_position", _) => {
                if let Some(sub) = self.subs.get_mut(&object) {
                    sub.2 = (number(0), number(1));
                }
            }
            (Interface::Subsurface, "destroy", _) => drop(self.subs.remove(&object)),
            (Interface::XdgWmBase, "get_xdg_surface", [Arg::New(id), Arg::Object(surface)]) => {
                self.windows.insert(*id, *surface);
            }
            (Interface::XdgSurface, "set_window_geometry", _) => {
                let surface = self.windows[&object];
                self.geometries.insert(surface, [0, 1, 2, 3].map(number));
            }
            (Interface::Surface, "commit", _) => self.check(object, object, (0, 0)),
            (Interface::Surface, "destroy", _) => {
                self.attached.remove(&object);
                self.subs.retain(|_, (surface, parent, _)| *surface != object && *parent != object);
            }
            _ => {}
        }
    }

    /// Everything on a window's surface lies in its geometry, which has the border.
    fn check(&self, root: u32, surface: u32, (x, y): (i64, i64)) {
        let (Some([left, top, wide, high]), Some(buffer)) =
            (self.geometries.get(&root), self.attached.get(&surface))
        else {
            return;
        };
        let unset = |it: &&(i64, i64)| it.0 > 0;
        let (width, height) = self.sizes.get(&surface).filter(unset).unwrap_or(buffer);
        let inside =
            x >= *left && y >= *top && x + width <= left + wide && y + height <= top + high;
        assert!(
            inside,
            "{width}x{height} at {x},{y} of window {root} is outside of {wide}x{high} at {left},{top}"
        );
        for (child, _, at) in self.subs.values().filter(|it| it.1 == surface) {
            self.check(root, *child, (x + at.0, y + at.1));
        }
    }
}

impl Compositor {
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            endpoint: Endpoint::new(socket),
            objects: BTreeMap::from([(1, Interface::Display)]),
            free: BTreeSet::new(),
            next: 2,
            requests: Vec::new(),
            keeps: true,
            seen: Seen::default(),
        }
    }

    /// Hears and answers what there is. False when there was nothing.
    pub fn turn(&mut self) -> bool {
        let open = self.endpoint.read().expect("no flood of descriptors");
        let mut heard = false;
        while let Some(header) = self.endpoint.next().expect("whole messages") {
            heard = true;
            let interface = *self.objects.get(&header.object).unwrap_or_else(|| {
                panic!("request {} of object {} that is not there", header.opcode, header.object)
            });
            let message = interface.definition().requests.get(usize::from(header.opcode));
            let message =
                message.unwrap_or_else(|| panic!("{} {}", interface.name(), header.opcode));
            let name = message.name;
            let arguments = self.endpoint.take(header, message.arguments).expect("valid");
            for (kind, argument) in message.arguments.iter().zip(&arguments) {
                match (kind, argument) {
                    (Kind::New(new), Arg::New(id)) => self.add(*id, *new),
                    (Kind::NewAny, Arg::New(id)) => {
                        let Arg::String(Some(bound)) = &arguments[1] else { panic!("no name") };
                        self.add(*id, Interface::named(bound).expect("known"));
                    }
                    (Kind::Object(wanted) | Kind::ObjectOrNull(wanted), Arg::Object(id)) => {
                        let found = self.objects.get(id);
                        let none = *id == 0 && matches!(kind, Kind::ObjectOrNull(_));
                        assert!(none || found == Some(wanted), "{name} with {id}: {found:?}");
                    }
                    _ => {}
                }
            }
            self.check(interface, name, &arguments);
            self.seen.hear(header.object, interface, name, &arguments);
            self.answer(header.object, interface, name, &arguments);
            if message.ends {
                self.remove(header.object);
            }
            if self.keeps {
                self.requests.push(Request { object: header.object, interface, name, arguments });
            }
        }
        self.endpoint.flush().expect("sent");
        heard && open
    }

    /// Ids are new and leave no gap (libwayland's wl_map_insert_at).
    fn add(&mut self, id: u32, interface: Interface) {
        assert!(self.free.remove(&id) || id == self.next, "id {id} after {}", self.next);
        self.next = self.next.max(id + 1);
        self.objects.insert(id, interface);
    }

    /// Frees an id, and says so.
    pub fn remove(&mut self, id: u32) {
        self.objects.remove(&id);
        if id < 0xff00_0000 {
            self.free.insert(id);
            self.say(1, "delete_id", vec![Arg::Uint(id)]);
        }
    }

    /// What a real one would not take.
    fn check(&self, interface: Interface, name: &str, arguments: &[Arg]) {
        let numbers: Vec<i64> = arguments
            .iter()
            .filter_map(|argument| match argument {
                Arg::Int(value) | Arg::Fixed(value) => Some(i64::from(*value)),
                _ => None,
            })
            .collect();
        let unset = |value: i64| numbers.iter().all(|it| *it == value);
        match (interface, name, &numbers[..]) {
            (Interface::Viewport, "set_source", [x, y, width, height]) => {
                let fits = *x >= 0 && *y >= 0 && *width > 0 && *height > 0;
                assert!(fits || unset(-256), "{numbers:?}");
            }
            (Interface::Viewport, "set_destination", [width, height]) => {
                assert!((*width > 0 && *height > 0) || unset(-1), "{numbers:?}");
            }
            (Interface::XdgSurface, "set_window_geometry", [_, _, width, height])
            | (Interface::XdgPositioner, "set_size", [width, height]) => {
                assert!(*width > 0 && *height > 0, "{numbers:?}");
            }
            (Interface::Surface, "attach", [x, y]) => {
                assert!(x.abs() <= 256 && y.abs() <= 256, "{numbers:?}");
            }
            (Interface::Pointer, "set_cursor", [x, y]) => {
                assert!((0..128).contains(x) && (0..128).contains(y), "{numbers:?}");
            }
            (Interface::XdgToplevel, "set_title", _) => {
                let Arg::String(Some(title)) = &arguments[0] else { panic!("no title") };
                assert!(title.starts_with("[work]") && !title.contains(char::is_control));
            }
            _ => {}
        }
    }

    fn answer(&mut self, object: u32, interface: Interface, name: &str, arguments: &[Arg]) {
        match (interface, name, arguments) {
            (Interface::Display, "get_registry", [Arg::New(registry)]) => {
                for (number, global) in GLOBALS.into_iter().enumerate() {
                    let arguments = vec![
                        Arg::Uint(number as u32 + 1),
                        Arg::String(Some(global.name().into())),
                        // Newer than what is known.
                        Arg::Uint(global.definition().version + 1),
                    ];
                    self.say(*registry, "global", arguments);
                }
            }
            (Interface::Display, "sync", [Arg::New(callback)]) => {
                self.say(*callback, "done", vec![Arg::Uint(0)]);
                self.remove(*callback);
            }
            (Interface::XdgSurface, "get_toplevel", [Arg::New(toplevel)]) => {
                let none = vec![Arg::Int(0), Arg::Int(0), Arg::Array(vec![])];
                self.say(*toplevel, "configure", none);
                self.say(object, "configure", vec![Arg::Uint(1)]);
            }
            (Interface::XdgSurface, "get_popup", [Arg::New(popup), ..]) => {
                let place = [10, 20, 64, 56].map(Arg::Int).into();
                self.say(*popup, "configure", place);
                self.say(object, "configure", vec![Arg::Uint(2)]);
            }
            _ => {}
        }
    }

    /// An event, by name.
    pub fn say(&mut self, object: u32, name: &str, arguments: Vec<Arg>) {
        let interface = self.objects[&object];
        let opcode = interface.definition().event(name).expect(name);
        self.endpoint.put(object, opcode, arguments).expect("a short message");
    }

    /// An event that makes an object.
    pub fn give(&mut self, id: u32, interface: Interface) {
        self.objects.insert(id, interface);
    }

    /// The newest object of an interface.
    pub fn newest(&self, interface: Interface) -> u32 {
        let found = self.objects.iter().rev().find(|(_, it)| **it == interface);
        *found.unwrap_or_else(|| panic!("no {}", interface.name())).0
    }

    /// Requests of an interface by name.
    pub fn heard(&self, interface: Interface, name: &str) -> Vec<&Request> {
        let found = self.requests.iter().filter(|it| it.interface == interface && it.name == name);
        found.collect()
    }
}
