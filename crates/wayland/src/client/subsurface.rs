//! Subsurfaces. To the compositor all are synchronized, whatever the client says: the proxy applies
//! a tree itself and tells it as one change, so that each part is cut for the state it appears in.

use super::surface::{Role, Sub};
use super::{Call, Client};
use crate::fault::Fault;
use crate::geometry::bounded;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// `wl_subcompositor.get_subsurface`.
pub(crate) fn create(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (id, surface, parent) = (call.id()?, call.id()?, call.id()?);
    client.ids.add(id, Interface::Subsurface, 1)?;
    let role = client.surfaces.get(&surface).map(|surface| surface.role);
    if role != Some(Role::None) {
        return Err(Fault::protocol(call.object, "the surface is something else already"));
    }
    let height = client.height(surface);
    match client.ancestry(parent) {
        Some(above) if above.contains(&surface) => {
            return Err(Fault::protocol(call.object, "a surface would be its own ancestor"));
        }
        Some(above) if above.len() + height <= limits::DEPTH => {}
        _ => return Err(Fault::limit("subsurfaces above one another", limits::DEPTH)),
    }
    let new = client.ids.raise(id)?;
    let (up, parent_up) = (client.ids.up(surface)?, client.ids.up(parent)?);
    let subcompositor = client.ids.up(call.object)?;
    let arguments = vec![Arg::New(new), Arg::Object(up), Arg::Object(parent_up)];
    client.request(subcompositor, Interface::Subcompositor, "get_subsurface", arguments)?;
    client.subsurfaces.insert(id, surface);
    if let Some(surface) = client.surfaces.get_mut(&surface) {
        let sub = Sub { id, parent: Some(parent), sync: true, at: (0, 0), next: None };
        surface.role = Role::Sub(sub);
        surface.told.at = Some((0, 0));
    }
    if let Some(parent) = client.surfaces.get_mut(&parent) {
        for order in [&mut parent.order, &mut parent.next_order] {
            order.push(surface);
        }
        // The compositor puts it on top, above border and label; emitting puts it right.
        parent.told.order.clear();
    }
    Ok(())
}

/// `wl_subsurface.destroy`: it disappears at once.
pub(crate) fn destroy(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(id) = client.subsurfaces.remove(&call.object)
        && let Some(surface) = client.surfaces.get_mut(&id)
        && let Role::Sub(sub) = surface.role
    {
        surface.role = Role::None;
        let cached = surface.cached.take();
        if let Some(parent) = sub.parent {
            client.leave_parent(id, parent);
        }
        if let Some(cached) = cached {
            client.discard(cached)?;
        }
        client.end(&call)?;
        return client.take_content(id);
    }
    client.end(&call)
}

/// `wl_subsurface.set_position`: with the parent's next state.
pub(crate) fn set_position(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let position = (bounded(call.int()?), bounded(call.int()?));
    if let Some(sub) = client.sub(call.object) {
        sub.next = Some(position);
    }
    Ok(())
}

/// `wl_subsurface.place_above`.
pub(crate) fn place_above(client: &mut Client, call: Call) -> Result<(), Fault> {
    place(client, call, 1)
}

/// `wl_subsurface.place_below`.
pub(crate) fn place_below(client: &mut Client, call: Call) -> Result<(), Fault> {
    place(client, call, 0)
}

/// Behind or before a sibling or the parent itself, with the parent's next state.
fn place(client: &mut Client, mut call: Call, after: usize) -> Result<(), Fault> {
    let sibling = call.id()?;
    let Some(&surface) = client.subsurfaces.get(&call.object) else { return Ok(()) };
    let Some(Sub { parent: Some(parent), .. }) = client.sub(call.object).copied() else {
        return Ok(());
    };
    let Some(parent) = client.surfaces.get_mut(&parent) else { return Ok(()) };
    if sibling == surface || !parent.next_order.contains(&sibling) {
        return Err(Fault::protocol(call.object, "that surface is no sibling and no parent"));
    }
    parent.next_order.retain(|id| *id != surface);
    let at = parent.next_order.iter().position(|id| *id == sibling).unwrap_or(0);
    parent.next_order.insert(at + after, surface);
    Ok(())
}

/// `wl_subsurface.set_sync`.
pub(crate) fn set_sync(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(sub) = client.sub(call.object) {
        sub.sync = true;
    }
    Ok(())
}

/// `wl_subsurface.set_desync`: what has waited for the parent waits no longer.
pub(crate) fn set_desync(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(sub) = client.sub(call.object) {
        sub.sync = false;
    }
    match client.subsurfaces.get(&call.object).copied() {
        Some(surface) if !client.is_synced(surface) => client.apply_waiting(surface),
        _ => Ok(()),
    }
}

impl Client {
    fn sub(&mut self, id: u32) -> Option<&mut Sub> {
        let surface = *self.subsurfaces.get(&id)?;
        match &mut self.surfaces.get_mut(&surface)?.role {
            Role::Sub(sub) => Some(sub),
            _ => None,
        }
    }

    /// A surface's parent.
    pub(crate) fn parent(&self, surface: u32) -> Option<u32> {
        match self.surfaces.get(&surface)?.role {
            Role::Sub(Sub { parent, .. }) => parent,
            _ => None,
        }
    }

    /// A surface and what is above it, up to the root; none when that is too deep.
    fn ancestry(&self, surface: u32) -> Option<Vec<u32>> {
        let mut above = vec![surface];
        while let Some(parent) = self.parent(*above.last()?) {
            if above.len() > limits::DEPTH {
                return None;
            }
            above.push(parent);
        }
        Some(above)
    }

    /// Surfaces on top of one another from here on. Trees never are deeper than the limit.
    fn height(&self, surface: u32) -> usize {
        let children = self.surfaces.get(&surface).map(|it| &it.next_order[..]).unwrap_or_default();
        let below = children.iter().filter(|id| **id != surface).map(|id| self.height(*id));
        1 + below.max().unwrap_or(0)
    }

    /// Takes a surface out of its parent's lists.
    pub(crate) fn leave_parent(&mut self, surface: u32, parent: u32) {
        if let Some(parent) = self.surfaces.get_mut(&parent) {
            for order in [&mut parent.order, &mut parent.next_order, &mut parent.told.order] {
                order.retain(|id| *id != surface);
            }
        }
    }
}
