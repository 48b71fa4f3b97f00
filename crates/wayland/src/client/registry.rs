//! Globals: the compositor's that are allowed, at versions this program knows, and the proxy's own.
//!
//! Names are the proxy's, counted from 1. A bind has to match a name, its interface and its version;
//! anything else is a guess and ends the client.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use casemate_wire::text::harmless_line;

use super::{Call, Client};
use crate::fault::{Fault, code};
use crate::limits;
use crate::protocol::Interface;
use crate::settings::Settings;
use crate::wire::Arg;

/// Where a global comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The compositor.
    Compositor,
    /// The compositor, if the compartment's file allows it.
    Activation,
    /// Likewise.
    Constraints,
    /// The proxy itself.
    Proxy,
}

/// Everything that exists for a client.
const ALLOWED: [(Interface, Origin); 17] = [
    (Interface::Compositor, Origin::Compositor),
    (Interface::Subcompositor, Origin::Compositor),
    (Interface::Shm, Origin::Compositor),
    (Interface::Seat, Origin::Compositor),
    (Interface::Output, Origin::Compositor),
    (Interface::XdgWmBase, Origin::Compositor),
    (Interface::XdgDecorationManager, Origin::Compositor),
    (Interface::CursorShapeManager, Origin::Compositor),
    (Interface::Presentation, Origin::Compositor),
    (Interface::FractionalScaleManager, Origin::Compositor),
    (Interface::XdgOutputManager, Origin::Compositor),
    (Interface::TextInputManager, Origin::Compositor),
    (Interface::XdgActivation, Origin::Activation),
    (Interface::PointerConstraints, Origin::Constraints),
    (Interface::Viewporter, Origin::Proxy),
    (Interface::DataDeviceManager, Origin::Proxy),
    (Interface::PrimarySelectionDeviceManager, Origin::Proxy),
];

/// A global that a client sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Global {
    name: u32,
    interface: Interface,
    version: u32,
    /// The compositor's name.
    up: Option<u32>,
}

/// The globals and who was told of them.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    list: Vec<Global>,
    /// Those that are gone, and since when: a client may have bound them before it heard of that.
    gone: VecDeque<(Instant, Global)>,
    last: u32,
    registries: Vec<u32>,
}

/// Globals that may exist at a time: seats and outputs come and go.
const MOST: usize = 256;

/// How long a global that is gone may be bound. Compositors keep theirs as long, without effect.
const GRACE: Duration = Duration::from_secs(5);

/// Globals that are gone and may still be bound.
const GONE: usize = 16;

/// `wl_display.get_registry`.
pub(crate) fn create(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.id()?;
    client.ids.add(id, Interface::Registry, 1)?;
    client.globals.registries.push(id);
    for global in client.globals.list.clone() {
        client.tell(id, global)?;
    }
    Ok(())
}

/// `wl_registry.bind`.
pub(crate) fn bind(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let name = call.uint()?;
    let interface = call.text()?.unwrap_or_default();
    let version = call.uint()?;
    let id = call.id()?;
    let globals = &client.globals;
    let late = globals.gone.iter().filter(|(since, _)| since.elapsed() < GRACE);
    let mut all = globals.list.iter().chain(late.map(|(_, global)| global)).copied();
    let global = all.find(|global| {
        global.name == name
            && global.interface.name() == interface
            && (1..=global.version).contains(&version)
    });
    let Some(global) = global else {
        let shown = harmless_line(&interface, 64);
        let why = format!("it bound {shown} version {version} as {name}, which it was not offered");
        return Err(Fault::Protocol { object: call.object, code: code::INVALID_OBJECT, why });
    };
    client.ids.add(id, global.interface, version)?;
    if let Some(up) = global.up {
        let new = client.ids.raise(id)?;
        client.bind_up(up, global.interface, version, new)?;
    }
    Ok(())
}

impl Client {
    /// The compositor has a global.
    pub(crate) fn global(&mut self, up: u32, interface: &str, version: u32) -> Result<(), Fault> {
        self.bind_own(up, interface, version)?;
        if interface == Interface::Output.name() {
            self.watch_output(up, version)?;
        }
        let found = ALLOWED.iter().find(|(it, _)| it.name() == interface);
        let Some(&(interface, origin)) = found else { return Ok(()) };
        if origin != Origin::Proxy && origin.is_allowed(&self.settings) {
            self.add_global(interface, version.min(interface.definition().version), Some(up))?;
        }
        Ok(())
    }

    /// The compositor has told everything; what follows is the proxy's.
    pub(crate) fn add_local_globals(&mut self) -> Result<(), Fault> {
        for (interface, origin) in ALLOWED {
            if origin == Origin::Proxy {
                self.add_global(interface, interface.definition().version, None)?;
            }
        }
        Ok(())
    }

    fn add_global(
        &mut self,
        interface: Interface,
        version: u32,
        up: Option<u32>,
    ) -> Result<(), Fault> {
        if self.globals.list.len() >= MOST {
            return Ok(());
        }
        self.globals.last += 1;
        let global = Global { name: self.globals.last, interface, version, up };
        self.globals.list.push(global);
        for id in self.globals.registries.clone() {
            self.tell(id, global)?;
        }
        Ok(())
    }

    /// A global of the compositor's is gone.
    pub(crate) fn global_remove(&mut self, up: u32) -> Result<(), Fault> {
        self.unwatch_output(up)?;
        let Some(at) = self.globals.list.iter().position(|global| global.up == Some(up)) else {
            return Ok(());
        };
        let global = self.globals.list.remove(at);
        self.globals.gone.truncate(GONE - 1);
        self.globals.gone.push_front((Instant::now(), global));
        for id in self.globals.registries.clone() {
            self.event(id, Interface::Registry, "global_remove", vec![Arg::Uint(global.name)])?;
        }
        Ok(())
    }

    fn tell(&mut self, registry: u32, global: Global) -> Result<(), Fault> {
        let arguments = vec![
            Arg::Uint(global.name),
            Arg::String(Some(global.interface.name().into())),
            Arg::Uint(global.version),
        ];
        self.event(registry, Interface::Registry, "global", arguments)
    }

    /// Binds a global of the compositor's.
    pub(crate) fn bind_up(
        &mut self,
        name: u32,
        interface: Interface,
        version: u32,
        new: u32,
    ) -> Result<(), Fault> {
        let arguments = vec![
            Arg::Uint(name),
            Arg::String(Some(interface.name().into())),
            Arg::Uint(version),
            Arg::New(new),
        ];
        self.request(self.own.registry, Interface::Registry, "bind", arguments)
    }
}

impl Origin {
    fn is_allowed(self, settings: &Settings) -> bool {
        match self {
            Self::Compositor | Self::Proxy => true,
            Self::Activation => settings.allow_activation,
            Self::Constraints => settings.allow_constraints,
        }
    }
}

const _: () = assert!(MOST < limits::OBJECTS);
