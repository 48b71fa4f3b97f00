//! Popups: bounded in number and size, with a border of their own.

use super::frame::POPUP;
use super::shell::Kind;
use super::{Call, Client};
use crate::fault::Fault;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// A popup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Popup {
    xdg: u32,
    /// The `xdg_surface` it belongs to.
    parent: u32,
    /// Repositions without an answer.
    repositions: u32,
}

/// `xdg_surface.get_popup`.
pub(crate) fn create(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (id, parent, positioner) = (call.id()?, call.id()?, call.id()?);
    if client.popups.len() >= limits::POPUPS {
        return Err(Fault::limit("popups", limits::POPUPS));
    }
    // Without one it would belong to a panel, which no guest has.
    let Some(edges) = client.edges(parent).filter(|_| parent != call.object) else {
        return Err(Fault::protocol(call.object, "a popup has no parent"));
    };
    client.ids.add(id, Interface::XdgPopup, call.version)?;
    let positioner = client.make_positioner(positioner, parent, edges)?;
    let new = client.ids.raise(id)?;
    let (up, parent_up) = (client.ids.up(call.object)?, client.ids.up(parent)?);
    let arguments = vec![Arg::New(new), Arg::Object(parent_up), Arg::Object(positioner)];
    client.request(up, Interface::XdgSurface, "get_popup", arguments)?;
    client.end_positioner(positioner)?;
    client.set_kind(call.object, Kind::Popup(id), POPUP)?;
    client.popups.insert(id, Popup { xdg: call.object, parent, repositions: 0 });
    Ok(())
}

/// `xdg_popup.destroy`.
pub(crate) fn destroy(client: &mut Client, call: Call) -> Result<(), Fault> {
    let popup = client.popups.remove(&call.object);
    client.end(&call)?;
    match popup {
        Some(popup) => client.unset_kind(popup.xdg),
        None => Ok(()),
    }
}

/// `xdg_popup.reposition`.
pub(crate) fn reposition(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (positioner, token) = (call.id()?, call.uint()?);
    let popup = client.popups.get_mut(&call.object).ok_or(Fault::Bug("a popup is not kept"))?;
    popup.repositions += 1;
    if popup.repositions > limits::REPOSITIONS {
        return Err(Fault::limit("repositions at a time", limits::REPOSITIONS as usize));
    }
    let parent = popup.parent;
    let edges = client.edges(parent);
    let edges = edges.ok_or_else(|| Fault::protocol(call.object, "a popup has no parent"))?;
    let up = client.ids.up(call.object)?;
    let positioner = client.make_positioner(positioner, parent, edges)?;
    let arguments = vec![Arg::Object(positioner), Arg::Uint(token)];
    client.request(up, Interface::XdgPopup, "reposition", arguments)?;
    client.end_positioner(positioner)
}

/// Where the popup is, relative to its parent, and how large: both without borders for the client.
pub(crate) fn configure(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (x, y) = (call.int()?, call.int()?);
    let size = POPUP.within((call.int()?, call.int()?));
    let Some(popup) = client.popups.get(&call.object).copied() else { return Ok(()) };
    let Some(parent) = client.edges(popup.parent) else { return Ok(()) };
    let most = (size.0 > 0 && size.1 > 0).then_some(size);
    client.limit_size(popup.xdg, most)?;
    let x = x.saturating_add(POPUP.side - parent.side);
    let y = y.saturating_add(POPUP.top - parent.top);
    let arguments = [x, y, size.0, size.1].map(Arg::Int).into();
    client.event(call.object, Interface::XdgPopup, "configure", arguments)
}

/// An answer to a reposition.
pub(crate) fn repositioned(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(popup) = client.popups.get_mut(&call.object) {
        popup.repositions = popup.repositions.saturating_sub(1);
    }
    client.forward_event(call)
}
