//! How large the screens are. A window larger than the one it is on could show its middle everywhere and
//! its border nowhere.
//!
//! What monitors are called, often with the number of the very one, is not told to clients: it would tell
//! one compartment that it is on the same desk as another.

use std::collections::BTreeMap;

use super::frame::Edges;
use super::ids::Role;
use super::surface::Role as SurfaceRole;
use super::{Call, Client};
use crate::fault::Fault;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// The proxy's own look at the compositor's outputs.
#[derive(Debug, Default)]
pub(crate) struct Screens {
    /// By the compositor's name: its version, the output, and what tells its size; 0 until then.
    outputs: BTreeMap<u32, (u32, u32, u32)>,
    /// Width and height by what told them.
    sizes: BTreeMap<u32, (i32, i32)>,
}

/// Outputs that are looked at.
const MOST: usize = 32;

/// What clients are told of a screen's maker and model.
const MAKER: &str = "casemate";
const MODEL: &str = "screen";

/// `wl_output.geometry`.
pub(crate) fn geometry(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let mut arguments = Vec::new();
    for _ in 0..5 {
        arguments.push(Arg::Int(call.int()?));
    }
    let _names = (call.text()?, call.text()?);
    arguments.extend([MAKER, MODEL].map(|text| Arg::String(Some(text.into()))));
    arguments.push(Arg::Int(call.int()?));
    client.event(call.object, Interface::Output, "geometry", arguments)
}

/// `wl_output.description` and `zxdg_output_v1.description`.
pub(crate) fn description(client: &mut Client, call: Call) -> Result<(), Fault> {
    let text = vec![Arg::String(Some(MODEL.into()))];
    client.event(call.object, call.interface, "description", text)
}

/// `wl_surface.enter`.
pub(crate) fn enter(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.on_screen(call, "enter", true)
}

/// `wl_surface.leave`.
pub(crate) fn leave(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.on_screen(call, "leave", false)
}

impl Client {
    /// The compositor has an output.
    pub(crate) fn watch_output(&mut self, name: u32, version: u32) -> Result<(), Fault> {
        if self.screens.outputs.len() >= MOST {
            return Ok(());
        }
        let version = version.min(Interface::Output.definition().version);
        let output = self.ids.ours(Interface::Output, Role::Silent)?;
        self.bind_up(name, Interface::Output, version, output)?;
        self.screens.outputs.insert(name, (version, output, 0));
        self.ask_sizes()
    }

    /// Asks for the sizes of outputs that were not asked yet, if the compositor tells them.
    pub(crate) fn ask_sizes(&mut self) -> Result<(), Fault> {
        let manager = self.own.xdg_output_manager;
        if manager == 0 {
            return Ok(());
        }
        let unasked = self.screens.outputs.iter().filter(|(_, it)| it.2 == 0);
        let unasked: Vec<(u32, u32)> = unasked.map(|(name, it)| (*name, it.1)).collect();
        for (name, output) in unasked {
            let new = self.ids.ours(Interface::XdgOutput, Role::Screen)?;
            let arguments = vec![Arg::New(new), Arg::Object(output)];
            self.request(manager, Interface::XdgOutputManager, "get_xdg_output", arguments)?;
            if let Some(kept) = self.screens.outputs.get_mut(&name) {
                kept.2 = new;
            }
        }
        Ok(())
    }

    /// An output has this size.
    pub(crate) fn screen_size(
        &mut self,
        teller: u32,
        width: i32,
        height: i32,
    ) -> Result<(), Fault> {
        match self.screens.sizes.insert(teller, (width, height)) == Some((width, height)) {
            true => Ok(()),
            false => self.fit_windows(),
        }
    }

    /// A surface is on an output, or no longer. The compositor tells it of each of the client's objects
    /// for this output, and of the proxy's own.
    fn on_screen(&mut self, mut call: Call, event: &str, is_on: bool) -> Result<(), Fault> {
        let output = call.id()?;
        if let Some(own) = self.ids.client_of(output) {
            return self.event(call.object, Interface::Surface, event, vec![Arg::Object(own)]);
        }
        if !self.screens.outputs.values().any(|it| it.1 == output) {
            return Ok(());
        }
        let id = call.object;
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(()) };
        let changed = if is_on { surface.on.insert(output) } else { surface.on.remove(&output) };
        let is_window = matches!(surface.role, SurfaceRole::Xdg(_)) && surface.told.mapped;
        if changed && is_window { self.emit(id) } else { Ok(()) }
    }

    /// Cuts windows anew: the screens have changed.
    fn fit_windows(&mut self) -> Result<(), Fault> {
        let windows = self
            .surfaces
            .iter()
            .filter(|(_, it)| matches!(it.role, SurfaceRole::Xdg(_)) && it.told.mapped);
        let windows: Vec<u32> = windows.map(|(id, _)| *id).collect();
        windows.into_iter().try_for_each(|id| self.emit(id))
    }

    /// A global of the compositor's is gone; perhaps an output.
    pub(crate) fn unwatch_output(&mut self, name: u32) -> Result<(), Fault> {
        let Some((version, output, teller)) = self.screens.outputs.remove(&name) else {
            return Ok(());
        };
        if teller != 0 {
            self.screens.sizes.remove(&teller);
            self.request(teller, Interface::XdgOutput, "destroy", Vec::new())?;
        }
        if version >= 3 {
            self.request(output, Interface::Output, "release", Vec::new())?;
        }
        for surface in self.surfaces.values_mut() {
            surface.on.remove(&output);
        }
        self.fit_windows()
    }

    /// The largest size inside such a border that is on the screen with it, as far as that is known: of
    /// the smallest screen that the surface is on, or of all before it is on any. A window whose size
    /// the compositor has chosen may be as large as the largest.
    pub(crate) fn largest(&self, surface: u32, edges: Edges, is_chosen: bool) -> (i32, i32) {
        let on = self.surfaces.get(&surface).map(|it| &it.on).filter(|on| !on.is_empty());
        let counts = |output: &u32| is_chosen || on.is_none_or(|on| on.contains(output));
        let outputs = self.screens.outputs.values().filter(|(_, output, _)| counts(output));
        let sizes = outputs.filter_map(|(_, _, teller)| self.screens.sizes.get(teller));
        let sizes = sizes.copied().filter(|(width, height)| *width > 0 && *height > 0);
        let one = sizes.reduce(|one, it| match is_chosen {
            true => (one.0.max(it.0), one.1.max(it.1)),
            false => (one.0.min(it.0), one.1.min(it.1)),
        });
        one.map_or((limits::BUFFER_SIDE, limits::BUFFER_SIDE), |size| edges.within(size))
    }
}
