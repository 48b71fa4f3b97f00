//! Windows: names that say whose they are, sizes without the border, and no fullscreen unless it is
//! allowed.

use super::shell::Kind;
use super::{Call, Client, frame};
use crate::fault::Fault;
use crate::geometry::bounded;
use crate::limits;
use crate::name;
use crate::protocol::Interface;
use crate::wire::Arg;

/// States of `xdg_toplevel.configure`.
mod state {
    pub(super) const MAXIMIZED: u32 = 1;
    pub(super) const FULLSCREEN: u32 = 2;
    pub(super) const ACTIVATED: u32 = 4;
    pub(super) const TILED_LEFT: u32 = 5;
    pub(super) const TILED_BOTTOM: u32 = 8;
}

/// A window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Toplevel {
    pub(crate) xdg: u32,
    pub(crate) activated: bool,
}

/// `xdg_surface.get_toplevel`.
pub(crate) fn create(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.id()?;
    if client.toplevels.len() >= limits::WINDOWS {
        return Err(Fault::limit("windows", limits::WINDOWS));
    }
    client.ids.add(id, Interface::XdgToplevel, call.version)?;
    let new = client.ids.raise(id)?;
    let up = client.ids.up(call.object)?;
    client.request(up, Interface::XdgSurface, "get_toplevel", vec![Arg::New(new)])?;
    client.set_kind(call.object, Kind::Toplevel(id), frame::WINDOW)?;
    client.toplevels.insert(id, Toplevel { xdg: call.object, activated: false });
    // Until the client says more.
    client.send_title(new, "")?;
    client.send_app_id(new, "")
}

/// `xdg_toplevel.destroy`.
pub(crate) fn destroy(client: &mut Client, call: Call) -> Result<(), Fault> {
    let toplevel = client.toplevels.remove(&call.object);
    client.end(&call)?;
    client.tell_focus();
    match toplevel {
        Some(toplevel) => client.unset_kind(toplevel.xdg),
        None => Ok(()),
    }
}

/// `xdg_toplevel.set_title`.
pub(crate) fn set_title(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let title = call.text()?.unwrap_or_default();
    let up = client.ids.up(call.object)?;
    client.send_title(up, &title)
}

/// `xdg_toplevel.set_app_id`.
pub(crate) fn set_app_id(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.text()?.unwrap_or_default();
    let up = client.ids.up(call.object)?;
    client.send_app_id(up, &id)
}

/// `xdg_activation_token_v1.set_app_id`.
pub(crate) fn set_token_app_id(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = name::app_id(&client.settings.name, &call.text()?.unwrap_or_default());
    let up = client.ids.up(call.object)?;
    let arguments = vec![Arg::String(Some(id))];
    client.request(up, Interface::XdgActivationToken, "set_app_id", arguments)
}

/// `xdg_toplevel.show_window_menu`: at a point of the window.
pub(crate) fn show_window_menu(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (seat, serial) = (call.id()?, call.uint()?);
    let (x, y) = (bounded(call.int()?), bounded(call.int()?));
    let (up, seat) = (client.ids.up(call.object)?, client.ids.up(seat)?);
    let edges = frame::WINDOW;
    let (x, y) = (Arg::Int(x + edges.side), Arg::Int(y + edges.top));
    let arguments = vec![Arg::Object(seat), Arg::Uint(serial), x, y];
    client.request(up, Interface::XdgToplevel, "show_window_menu", arguments)
}

/// `xdg_toplevel.set_max_size`: with the next commit.
pub(crate) fn set_max_size(client: &mut Client, call: Call) -> Result<(), Fault> {
    set_limit(client, call, true)
}

/// `xdg_toplevel.set_min_size`: with the next commit.
pub(crate) fn set_min_size(client: &mut Client, call: Call) -> Result<(), Fault> {
    set_limit(client, call, false)
}

fn set_limit(client: &mut Client, mut call: Call, most: bool) -> Result<(), Fault> {
    let size = (bounded(call.int()?), bounded(call.int()?));
    if size.0 < 0 || size.1 < 0 {
        return Err(Fault::protocol(call.object, "a size is negative"));
    }
    let Some(toplevel) = client.toplevels.get(&call.object) else { return Ok(()) };
    client.xdg_pending(toplevel.xdg, |pending| match most {
        true => pending.most = Some(size),
        false => pending.least = Some(size),
    });
    Ok(())
}

/// `xdg_toplevel.set_fullscreen`: maximized where it is not allowed.
pub(crate) fn set_fullscreen(client: &mut Client, call: Call) -> Result<(), Fault> {
    if client.settings.allow_fullscreen {
        return client.forward_request(call);
    }
    let up = client.ids.up(call.object)?;
    client.request(up, Interface::XdgToplevel, "set_maximized", Vec::new())
}

/// `xdg_toplevel.unset_fullscreen`.
pub(crate) fn unset_fullscreen(client: &mut Client, call: Call) -> Result<(), Fault> {
    if client.settings.allow_fullscreen {
        return client.forward_request(call);
    }
    let up = client.ids.up(call.object)?;
    client.request(up, Interface::XdgToplevel, "unset_maximized", Vec::new())
}

/// The compositor suggests or decides size and state.
pub(crate) fn configure(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let size = frame::WINDOW.within((call.int()?, call.int()?));
    let mut states = words(&call.array()?);
    let Some(xdg) = client.toplevels.get(&call.object).map(|it| it.xdg) else { return Ok(()) };
    let activated = states.contains(&state::ACTIVATED);
    let before = client.has_focus();
    if let Some(toplevel) = client.toplevels.get_mut(&call.object) {
        toplevel.activated = activated;
    }
    client.tell_focus();
    client.announce_focus(before)?;
    let decided = |it: &u32| {
        matches!(*it, state::MAXIMIZED | state::FULLSCREEN)
            || (state::TILED_LEFT..=state::TILED_BOTTOM).contains(it)
    };
    let most = (size.0 > 0 && size.1 > 0 && states.iter().any(decided)).then_some(size);
    client.limit_size(xdg, most)?;
    if !client.settings.allow_fullscreen {
        for it in states.iter_mut().filter(|it| **it == state::FULLSCREEN) {
            *it = state::MAXIMIZED;
        }
        states.dedup();
    }
    let bytes = states.iter().flat_map(|it| it.to_ne_bytes()).collect();
    let arguments = vec![Arg::Int(size.0), Arg::Int(size.1), Arg::Array(bytes)];
    client.event(call.object, Interface::XdgToplevel, "configure", arguments)
}

/// The largest size that makes sense.
pub(crate) fn configure_bounds(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let size = frame::WINDOW.within((call.int()?, call.int()?));
    let arguments = vec![Arg::Int(size.0), Arg::Int(size.1)];
    client.event(call.object, Interface::XdgToplevel, "configure_bounds", arguments)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|it| u32::from_ne_bytes(*it)).collect()
}

impl Client {
    fn send_title(&mut self, toplevel: u32, title: &str) -> Result<(), Fault> {
        let title = name::title(&self.settings.name, title);
        let arguments = vec![Arg::String(Some(title))];
        self.request(toplevel, Interface::XdgToplevel, "set_title", arguments)
    }

    fn send_app_id(&mut self, toplevel: u32, id: &str) -> Result<(), Fault> {
        let id = name::app_id(&self.settings.name, id);
        let arguments = vec![Arg::String(Some(id))];
        self.request(toplevel, Interface::XdgToplevel, "set_app_id", arguments)
    }

    /// Tells the compartment whether a window of this client has the focus.
    pub(crate) fn tell_focus(&self) {
        let focused = self.toplevels.values().any(|it| it.activated);
        self.compartment.borrow_mut().set_focus(self.key, focused);
    }
}
