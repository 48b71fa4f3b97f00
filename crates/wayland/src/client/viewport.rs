//! Viewports of the client stay here: the compositor's viewport of each surface is the proxy's, and
//! shows the part of the client's that is allowed.

use super::ids::Role;
use super::{Call, Client};
use crate::fault::Fault;
use crate::geometry::bounded;
use crate::protocol::Interface;
use crate::wire::Arg;

/// `wp_viewporter.get_viewport`.
pub(crate) fn create(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (id, surface) = (call.id()?, call.id()?);
    client.ids.add(id, Interface::Viewport, 1)?;
    let kept = client.surfaces.get_mut(&surface).ok_or(Fault::Bug("a surface is not kept"))?;
    if kept.client_viewport.is_some() {
        return Err(Fault::protocol(call.object, "the surface has a viewport already"));
    }
    kept.client_viewport = Some(id);
    client.viewports.insert(id, surface);
    Ok(())
}

/// `wp_viewport.destroy`: with the next commit the surface has none.
pub(crate) fn destroy(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(surface) = client.viewports.remove(&call.object)
        && let Some(surface) = client.surfaces.get_mut(&surface)
    {
        surface.client_viewport = None;
        surface.pending.source = Some(None);
        surface.pending.destination = Some(None);
    }
    client.end(&call)
}

/// `wp_viewport.set_source`, in 1/256.
pub(crate) fn set_source(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let [x, y, width, height] = [call.int()?, call.int()?, call.int()?, call.int()?];
    let source = match [x, y, width, height] {
        [-256, -256, -256, -256] => None,
        _ if x < 0 || y < 0 || width <= 0 || height <= 0 => {
            return Err(Fault::protocol(call.object, "a source is outside"));
        }
        source => Some(source),
    };
    if let Some(surface) = client.viewport_surface(call.object)? {
        surface.pending.source = Some(source);
    }
    Ok(())
}

/// `wp_viewport.set_destination`.
pub(crate) fn set_destination(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let destination = match (call.int()?, call.int()?) {
        (-1, -1) => None,
        (width, height) if width <= 0 || height <= 0 => {
            return Err(Fault::protocol(call.object, "a size is not positive"));
        }
        (width, height) => Some((bounded(width), bounded(height))),
    };
    if let Some(surface) = client.viewport_surface(call.object)? {
        surface.pending.destination = Some(destination);
    }
    Ok(())
}

impl Client {
    fn viewport_surface(
        &mut self,
        viewport: u32,
    ) -> Result<Option<&mut super::surface::Surface>, Fault> {
        let Some(&surface) = self.viewports.get(&viewport) else {
            return Err(Fault::protocol(viewport, "the viewport's surface is gone"));
        };
        Ok(self.surfaces.get_mut(&surface))
    }

    /// The proxy's viewport of a surface at the compositor.
    pub(crate) fn make_viewport(&mut self, surface: u32) -> Result<u32, Fault> {
        let viewport = self.ids.ours(Interface::Viewport, Role::Silent)?;
        let arguments = vec![Arg::New(viewport), Arg::Object(surface)];
        let viewporter = self.own.viewporter;
        self.request(viewporter, Interface::Viewporter, "get_viewport", arguments)?;
        Ok(viewport)
    }
}
