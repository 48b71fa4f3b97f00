//! The proxy's own objects at the compositor: its registry, what borders are made of, and the
//! events of all of them.

use rustix::fs::{MemfdFlags, SealFlags};

use super::ids::Role;
use super::{Client, frame};
use crate::fault::Fault;
use crate::protocol::Interface;
use crate::wire::Arg;

/// Formats of `wl_shm`.
const ARGB8888: u32 = 0;

/// Ids of the proxy's objects at the compositor; 0 until they are bound.
#[derive(Debug, Default)]
pub(crate) struct Own {
    pub(crate) ready: bool,
    pub(crate) registry: u32,
    pub(crate) compositor: u32,
    pub(crate) compositor_version: u32,
    pub(crate) subcompositor: u32,
    pub(crate) shm: u32,
    pub(crate) viewporter: u32,
    pub(crate) wm_base: u32,
    pub(crate) wm_base_version: u32,
    pub(crate) presentation: u32,
    pub(crate) xdg_output_manager: u32,
    pub(crate) data_manager: u32,
    pub(crate) data_manager_version: u32,
    /// A tile in the compartment's color.
    pub(crate) tile: u32,
    pub(crate) label: u32,
}

impl Client {
    /// The first messages of a connection.
    pub(crate) fn begin(&mut self) -> Result<(), Fault> {
        let registry = self.ids.ours(Interface::Registry, Role::Registry)?;
        let callback = self.ids.ours(Interface::Callback, Role::Begin)?;
        self.own.registry = registry;
        self.request(1, Interface::Display, "get_registry", vec![Arg::New(registry)])?;
        self.request(1, Interface::Display, "sync", vec![Arg::New(callback)])
    }

    /// Binds what the proxy itself needs.
    pub(crate) fn bind_own(&mut self, name: u32, found: &str, version: u32) -> Result<(), Fault> {
        use Interface::{
            Compositor, DataDeviceManager, Presentation, Shm, Subcompositor, Viewporter,
            XdgOutputManager, XdgWmBase,
        };
        let wanted = [
            Compositor,
            Subcompositor,
            Shm,
            Viewporter,
            XdgWmBase,
            DataDeviceManager,
            Presentation,
            XdgOutputManager,
        ];
        let Some(interface) = wanted.into_iter().find(|it| it.name() == found) else {
            return Ok(());
        };
        let version = version.min(interface.definition().version);
        let place = match interface {
            Compositor => &mut self.own.compositor,
            Subcompositor => &mut self.own.subcompositor,
            Shm => &mut self.own.shm,
            Viewporter => &mut self.own.viewporter,
            XdgWmBase => &mut self.own.wm_base,
            Presentation => &mut self.own.presentation,
            XdgOutputManager => &mut self.own.xdg_output_manager,
            _ => &mut self.own.data_manager,
        };
        if *place != 0 {
            return Ok(());
        }
        let new = self.ids.ours(interface, Role::Silent)?;
        *place = new;
        match interface {
            Compositor => self.own.compositor_version = version,
            XdgWmBase => self.own.wm_base_version = version,
            DataDeviceManager => self.own.data_manager_version = version,
            _ => {}
        }
        self.bind_up(name, interface, version, new)?;
        self.ask_sizes()
    }

    /// An event of one of the proxy's objects.
    pub(crate) fn own_event(
        &mut self,
        object: u32,
        role: Role,
        name: &str,
        arguments: Vec<Arg>,
    ) -> Result<(), Fault> {
        match (role, name, &arguments[..]) {
            (
                Role::Registry,
                "global",
                [Arg::Uint(name), Arg::String(Some(interface)), Arg::Uint(version)],
            ) => self.global(*name, interface, *version),
            (Role::Registry, "global_remove", [Arg::Uint(name)]) => self.global_remove(*name),
            (Role::Begin, "done", _) => self.ready(),
            (Role::Output, ..) => self.output_event(object, name, &arguments),
            (Role::Screen, "logical_size", [Arg::Int(width), Arg::Int(height)]) => {
                self.screen_size(object, *width, *height)
            }
            // The compositor asks each binding of its shell whether its client lives.
            (_, "ping", [Arg::Uint(serial)]) => {
                self.request(object, Interface::XdgWmBase, "pong", vec![Arg::Uint(*serial)])
            }
            (Role::Device(device), ..) => self.device_event(device, name, arguments),
            (Role::Offer, ..) => self.foreign_offer_event(object, name, arguments),
            (Role::DragSource, ..) => self.drag_source_event(object, name, arguments),
            _ => Ok(()),
        }
    }

    /// The compositor has told all its globals.
    fn ready(&mut self) -> Result<(), Fault> {
        let needed = [
            (self.own.compositor, Interface::Compositor),
            (self.own.subcompositor, Interface::Subcompositor),
            (self.own.shm, Interface::Shm),
            (self.own.viewporter, Interface::Viewporter),
        ];
        if let Some((_, interface)) = needed.into_iter().find(|(up, _)| *up == 0) {
            let name = interface.name();
            return Err(Fault::Upstream(format!(
                "the compositor has no {name}, which borders need"
            )));
        }
        self.make_buffers()?;
        self.add_local_globals()?;
        self.own.ready = true;
        Ok(())
    }

    /// The pixels of borders and label, in a sealed memory file that is written once and not mapped.
    fn make_buffers(&mut self) -> Result<(), Fault> {
        let upstream =
            |error: rustix::io::Errno| Fault::Upstream(format!("a memory file: {error}"));
        let label = &self.settings.label;
        let [r, g, b] = self.settings.color;
        let pixel = u32::from_be_bytes([0xff, r, g, b]).to_ne_bytes();
        let tile = pixel.repeat((frame::TILE * frame::TILE).unsigned_abs() as usize);
        let bytes = [&tile[..], &label.pixels].concat();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create(c"casemate-border", flags).map_err(upstream)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest).map_err(upstream)?;
            rest = &rest[written..];
        }
        // Not against writing: compositors map pools for it (libwayland's wl_shm).
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(upstream)?;
        let (width, height) = (label.width, label.height);
        let pool = self.ids.ours(Interface::ShmPool, Role::Silent)?;
        self.own.tile = self.ids.ours(Interface::Buffer, Role::Silent)?;
        self.own.label = self.ids.ours(Interface::Buffer, Role::Silent)?;
        // At most the label's limits, far below 31 bits.
        let size = bytes.len() as i32;
        let behind = tile.len() as i32;
        let arguments = vec![Arg::New(pool), Arg::Fd(file), Arg::Int(size)];
        self.request(self.own.shm, Interface::Shm, "create_pool", arguments)?;
        for (buffer, offset, width, height) in
            [(self.own.tile, 0, frame::TILE, frame::TILE), (self.own.label, behind, width, height)]
        {
            let numbers = [offset, width, height, 4 * width].map(Arg::Int);
            let mut arguments = vec![Arg::New(buffer)];
            arguments.extend(numbers);
            arguments.push(Arg::Uint(ARGB8888));
            self.request(pool, Interface::ShmPool, "create_buffer", arguments)?;
        }
        self.request(pool, Interface::ShmPool, "destroy", Vec::new())
    }
}
