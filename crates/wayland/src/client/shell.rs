//! `xdg_surface`: what windows and popups have in common.

use super::frame::Edges;
use super::layout::Layout;
use super::surface::Role;
use super::{Call, Client};
use crate::fault::Fault;
use crate::geometry::Rect;
use crate::protocol::Interface;
use crate::wire::Arg;

/// What an `xdg_surface` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing yet.
    None,
    /// A window: its `xdg_toplevel`.
    Toplevel(u32),
    /// A popup: its `xdg_popup`.
    Popup(u32),
}

/// An `xdg_surface`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XdgSurface {
    /// 0 once the surface is destroyed.
    pub(crate) surface: u32,
    pub(crate) kind: Kind,
    /// The size that the compositor has chosen, without border; more is cut off.
    pub(crate) most: Option<(i32, i32)>,
}

/// Changes of a window, on their way to the compositor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WindowChanges {
    acknowledged: Option<u32>,
    least: Option<(i32, i32)>,
    most: Option<(i32, i32)>,
}

/// `xdg_wm_base.get_xdg_surface`.
pub(crate) fn get_xdg_surface(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (id, surface) = (call.id()?, call.id()?);
    let role = client.surfaces.get(&surface).map(|it| it.role);
    if role != Some(Role::None) {
        return Err(Fault::protocol(call.object, "the surface is something else already"));
    }
    client.ids.add(id, Interface::XdgSurface, call.version)?;
    let new = client.ids.raise(id)?;
    let (base, up) = (client.ids.up(call.object)?, client.ids.up(surface)?);
    let arguments = vec![Arg::New(new), Arg::Object(up)];
    client.request(base, Interface::XdgWmBase, "get_xdg_surface", arguments)?;
    client.xdg.insert(id, XdgSurface { surface, kind: Kind::None, most: None });
    if let Some(surface) = client.surfaces.get_mut(&surface) {
        surface.role = Role::Xdg(id);
    }
    Ok(())
}

/// `xdg_surface.destroy`.
pub(crate) fn destroy(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(xdg) = client.xdg.remove(&call.object) {
        if xdg.kind != Kind::None {
            return Err(Fault::protocol(call.object, "its window or popup is still there"));
        }
        client.end(&call)?;
        if let Some(surface) = client.surfaces.get_mut(&xdg.surface) {
            surface.role = Role::None;
            // A window begins without content.
            surface.now.buffer = None;
            surface.unsent.buffer = None;
        }
        return client.take_content(xdg.surface);
    }
    client.end(&call)
}

/// `xdg_surface.set_window_geometry`: with the next commit.
pub(crate) fn set_window_geometry(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let rect = Rect::new(call.int()?, call.int()?, call.int()?, call.int()?);
    if rect.width <= 0 || rect.height <= 0 {
        return Err(Fault::protocol(call.object, "a window's size is not positive"));
    }
    client.xdg_pending(call.object, |pending| pending.geometry = Some(rect.bounded()));
    Ok(())
}

/// `xdg_surface.ack_configure`: it belongs to the next commit of the client, not to one of ours.
pub(crate) fn ack_configure(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let serial = call.uint()?;
    client.xdg_pending(call.object, |pending| pending.acknowledged = Some(serial));
    Ok(())
}

impl Client {
    /// Changes what is pending of an `xdg_surface`'s surface.
    pub(crate) fn xdg_pending(&mut self, xdg: u32, change: impl FnOnce(&mut super::state::State)) {
        let surface = self.xdg.get(&xdg).map(|it| it.surface);
        if let Some(surface) = surface.and_then(|it| self.surfaces.get_mut(&it)) {
            change(&mut surface.pending);
        }
    }

    /// The border of an `xdg_surface`; none when it is neither window nor popup.
    pub(crate) fn edges(&self, xdg: u32) -> Option<Edges> {
        let surface = self.xdg.get(&xdg)?.surface;
        Some(self.surfaces.get(&surface)?.frame.as_ref()?.edges)
    }

    /// The window or popup of an `xdg_surface` is there.
    pub(crate) fn set_kind(&mut self, xdg: u32, kind: Kind, edges: Edges) -> Result<(), Fault> {
        let Some(kept) = self.xdg.get_mut(&xdg) else {
            return Err(Fault::Bug("an xdg_surface is not kept"));
        };
        if kept.kind != Kind::None {
            return Err(Fault::protocol(xdg, "it is a window or popup already"));
        }
        kept.kind = kind;
        let surface = kept.surface;
        if self.surfaces.get(&surface).is_none_or(|it| it.frame.is_some()) {
            return Err(Fault::protocol(xdg, "its surface is gone"));
        }
        self.make_frame(surface, edges)
    }

    /// The window or popup of an `xdg_surface` is gone, and its border with it.
    pub(crate) fn unset_kind(&mut self, xdg: u32) -> Result<(), Fault> {
        let Some(kept) = self.xdg.get_mut(&xdg) else { return Ok(()) };
        kept.kind = Kind::None;
        kept.most = None;
        let id = kept.surface;
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(()) };
        surface.told.geometry = None;
        surface.now.geometry = None;
        // What comes next on it begins without content.
        surface.now.buffer = None;
        surface.unsent.buffer = None;
        if let Some(frame) = surface.frame.take() {
            self.remove_frame(&frame)?;
        }
        self.take_content(id)
    }

    /// Takes what a surface's changes say of its window.
    pub(crate) fn take_window(&mut self, id: u32) -> WindowChanges {
        let Some(surface) = self.surfaces.get_mut(&id) else { return WindowChanges::default() };
        WindowChanges {
            acknowledged: surface.unsent.acknowledged.take(),
            least: surface.unsent.least.take(),
            most: surface.unsent.most.take(),
        }
    }

    /// Tells what belongs to the root of a tree: geometry and frame, or a cursor's hotspot.
    pub(crate) fn emit_role(
        &mut self,
        id: u32,
        layout: &Layout,
        changes: WindowChanges,
    ) -> Result<bool, Fault> {
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(false) };
        let xdg = match surface.role {
            Role::Xdg(xdg) => xdg,
            Role::Cursor => return self.clamp_hotspots(id).map(|()| false),
            _ => return Ok(false),
        };
        let shown = surface.shown.filter(|_| surface.told.mapped);
        let up = self.ids.up(xdg)?;
        if let Some(serial) = changes.acknowledged {
            self.request(up, Interface::XdgSurface, "ack_configure", vec![Arg::Uint(serial)])?;
        }
        self.emit_limits(xdg, changes.least, changes.most)?;
        let (Some(shown), Some(edges)) = (shown, self.edges(xdg)) else {
            if let Some(surface) = self.surfaces.get_mut(&id) {
                surface.told.geometry = None;
            }
            return Ok(false);
        };
        let window = layout.window.shifted(-shown.x, -shown.y);
        let mut dirty = self.emit_frame(id, window)?;
        let (width, height) = edges.around((window.width, window.height));
        let around = Rect::new(window.x - edges.side, window.y - edges.top, width, height);
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(dirty) };
        if surface.told.geometry.replace(around) != Some(around) {
            let numbers = [around.x, around.y, around.width, around.height].map(Arg::Int).into();
            self.request(up, Interface::XdgSurface, "set_window_geometry", numbers)?;
            dirty = true;
        }
        Ok(dirty)
    }

    fn emit_limits(
        &mut self,
        xdg: u32,
        least: Option<(i32, i32)>,
        most: Option<(i32, i32)>,
    ) -> Result<(), Fault> {
        let (Some(Kind::Toplevel(id)), Some(edges)) =
            (self.xdg.get(&xdg).map(|it| it.kind), self.edges(xdg))
        else {
            return Ok(());
        };
        let toplevel = self.ids.up(id)?;
        for (name, size) in [("set_min_size", least), ("set_max_size", most)] {
            let Some(size) = size else { continue };
            let around = edges.around(size);
            // 0 is no limit.
            let width = if size.0 == 0 { 0 } else { around.0 };
            let height = if size.1 == 0 { 0 } else { around.1 };
            let numbers = vec![Arg::Int(width), Arg::Int(height)];
            self.request(toplevel, Interface::XdgToplevel, name, numbers)?;
        }
        Ok(())
    }

    /// The compositor has chosen a size. What is larger is cut at once, not at the client's leisure.
    pub(crate) fn limit_size(&mut self, xdg: u32, most: Option<(i32, i32)>) -> Result<(), Fault> {
        let Some(kept) = self.xdg.get_mut(&xdg) else { return Ok(()) };
        if kept.most == most {
            return Ok(());
        }
        kept.most = most;
        let root = kept.surface;
        match self.surfaces.get(&root).is_some_and(|it| it.told.mapped) {
            true => self.emit(root),
            false => Ok(()),
        }
    }
}
