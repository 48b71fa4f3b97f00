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
    /// Names of outputs; clients are told where in this list they are.
    names: Vec<String>,
    /// What the outputs say of themselves.
    modes: BTreeMap<u32, Mode>,
}

/// An output's pixels.
#[derive(Clone, Copy, Debug, Default)]
struct Mode {
    size: (i32, i32),
    /// Pixels for one of a window's, rounded up by the compositor.
    scale: i32,
    /// It stands on its side.
    turned: bool,
}

/// A scale of 1 in what `wp_fractional_scale_v1` says.
const WHOLE: i64 = 120;

/// `wl_output.mode`: the one that is used.
const CURRENT: u32 = 1;

impl Mode {
    /// Width and height for windows. Without a scale in 1/120 that is known to be exact they may be
    /// smaller than they are.
    fn size(self, exact: Option<i64>) -> (i32, i32) {
        let (width, height) = self.size;
        let (width, height) = if self.turned { (height, width) } else { (width, height) };
        let scale = exact.unwrap_or(i64::from(self.scale.max(1)) * WHOLE).max(1);
        let scaled = |length: i32| i32::try_from(i64::from(length) * WHOLE / scale);
        (scaled(width).unwrap_or(i32::MAX), scaled(height).unwrap_or(i32::MAX))
    }
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

/// `wl_output.name` and `zxdg_output_v1.name`: the same for the same output, and no more.
pub(crate) fn name(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let name = call.text()?.unwrap_or_default();
    let names = &mut client.screens.names;
    let number = names.iter().position(|it| *it == name).unwrap_or_else(|| {
        if names.len() < MOST {
            names.push(name);
        }
        names.len() - 1
    });
    let text = vec![Arg::String(Some(format!("{MODEL}-{}", number + 1)))];
    client.event(call.object, call.interface, "name", text)
}

/// `wl_output.description` and `zxdg_output_v1.description`.
pub(crate) fn description(client: &mut Client, call: Call) -> Result<(), Fault> {
    let text = vec![Arg::String(Some(MODEL.into()))];
    client.event(call.object, call.interface, "description", text)
}

/// `wp_fractional_scale_manager_v1.get_fractional_scale`.
pub(crate) fn get_fractional_scale(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let [Arg::New(id), Arg::Object(surface)] = call.arguments.as_slice() {
        client.fractions.insert(*id, *surface);
    }
    client.forward_request(call)
}

/// `wp_fractional_scale_v1.preferred_scale`: the scale of the output that a surface is on, exactly.
pub(crate) fn preferred_scale(client: &mut Client, call: Call) -> Result<(), Fault> {
    let (object, scale) = (call.object, call.arguments.as_slice().first());
    if let (Some(surface), Some(Arg::Uint(scale))) = (client.fractions.get(&object), scale)
        && let Some(surface) = client.surfaces.get_mut(surface)
    {
        surface.fraction = Some(i64::from(*scale));
    }
    client.forward_event(call)?;
    client.fit_windows()
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
        let output = self.ids.ours(Interface::Output, Role::Output)?;
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

    /// What an output says of itself: what counts where the compositor does not say how large it is for
    /// windows. To a sandbox, sway does not.
    pub(crate) fn output_event(
        &mut self,
        output: u32,
        name: &str,
        arguments: &[Arg],
    ) -> Result<(), Fault> {
        let mode = self.screens.modes.entry(output).or_default();
        match (name, arguments) {
            ("geometry", [.., Arg::Int(transform)]) => mode.turned = transform % 2 != 0,
            ("mode", [Arg::Uint(flags), Arg::Int(width), Arg::Int(height), _])
                if flags & CURRENT != 0 =>
            {
                mode.size = (*width, *height);
            }
            ("scale", [Arg::Int(scale)]) => mode.scale = *scale,
            ("done", _) => return self.fit_windows(),
            _ => {}
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
        self.screens.modes.remove(&output);
        for surface in self.surfaces.values_mut() {
            surface.on.remove(&output);
        }
        self.fit_windows()
    }

    /// The largest size inside such a border that is on the screen with it, as far as that is known: of
    /// the smallest screen that the surface is on, or of all before it is on any. A window whose size
    /// the compositor has chosen may be as large as the largest, where it says exactly how large that is.
    pub(crate) fn largest(&self, surface: u32, edges: Edges, is_chosen: bool) -> (i32, i32) {
        let on = self.surfaces.get(&surface).map(|it| &it.on).filter(|on| !on.is_empty());
        let counts = |output: &u32| is_chosen || on.is_none_or(|on| on.contains(output));
        let outputs = self.screens.outputs.values().filter(|(_, output, _)| counts(output));
        let exact = self.surfaces.get(&surface).and_then(|it| it.fraction);
        let size = |(_, output, teller): &(u32, u32, u32)| {
            let told = self.screens.sizes.get(teller).copied();
            let own = self.screens.modes.get(output).filter(|_| !is_chosen);
            told.or_else(|| own.map(|mode| mode.size(exact)))
        };
        let sizes = outputs.filter_map(size).filter(|(width, height)| *width > 0 && *height > 0);
        let one = sizes.reduce(|one, it| match is_chosen {
            true => (one.0.max(it.0), one.1.max(it.1)),
            false => (one.0.min(it.0), one.1.min(it.1)),
        });
        one.map_or((limits::BUFFER_SIDE, limits::BUFFER_SIDE), |size| edges.within(size))
    }
}
