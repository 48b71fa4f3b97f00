//! Regions. The proxy keeps what they are made of, and makes one at the compositor when it is used,
//! cut to what is shown of the surface.

use std::rc::Rc;

use super::ids::Role;
use super::{Call, Client};
use crate::fault::Fault;
use crate::geometry::Rect;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// A rectangle that is added or taken away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    add: bool,
    rect: Rect,
}

/// A region of the client, in the order in which it was told.
#[derive(Debug, Default)]
pub(crate) struct Region {
    pub(crate) parts: Rc<Vec<Part>>,
}

/// `wl_compositor.create_region`.
pub(crate) fn create(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.id()?;
    client.ids.add(id, Interface::Region, call.version)?;
    client.regions.insert(id, Region::default());
    Ok(())
}

/// `wl_region.destroy`.
pub(crate) fn destroy(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.regions.remove(&call.object);
    client.end(&call)
}

/// `wl_region.add`.
pub(crate) fn add(client: &mut Client, call: Call) -> Result<(), Fault> {
    extend(client, call, true)
}

/// `wl_region.subtract`.
pub(crate) fn subtract(client: &mut Client, call: Call) -> Result<(), Fault> {
    extend(client, call, false)
}

fn extend(client: &mut Client, mut call: Call, add: bool) -> Result<(), Fault> {
    let rect = Rect::new(call.int()?, call.int()?, call.int()?, call.int()?);
    let sum: usize = client.regions.values().map(|region| region.parts.len()).sum();
    if sum >= limits::REGION_SUM {
        return Err(Fault::limit("rectangles of regions", limits::REGION_SUM));
    }
    let Some(region) = client.regions.get_mut(&call.object) else { return Ok(()) };
    if region.parts.len() >= limits::REGION {
        return Err(Fault::limit("rectangles of a region", limits::REGION));
    }
    Rc::make_mut(&mut region.parts).push(Part { add, rect });
    Ok(())
}

impl Client {
    /// Makes a region at the compositor of what of `parts` lies in `shown`, with that corner as
    /// origin, and hands it to `name` of the surface.
    pub(crate) fn send_region(
        &mut self,
        surface: u32,
        name: &str,
        parts: Option<&[Part]>,
        shown: Rect,
    ) -> Result<(), Fault> {
        let Some(parts) = parts else {
            return self.request(surface, Interface::Surface, name, vec![Arg::Object(0)]);
        };
        let region = self.ids.ours(Interface::Region, Role::Silent)?;
        let compositor = self.own.compositor;
        let new = vec![Arg::New(region)];
        self.request(compositor, Interface::Compositor, "create_region", new)?;
        for part in parts {
            let Some(rect) = part.rect.intersection(shown) else { continue };
            let rect = rect.shifted(-shown.x, -shown.y);
            let numbers = [rect.x, rect.y, rect.width, rect.height].map(Arg::Int).into();
            let verb = if part.add { "add" } else { "subtract" };
            self.request(region, Interface::Region, verb, numbers)?;
        }
        self.request(surface, Interface::Surface, name, vec![Arg::Object(region)])?;
        self.request(region, Interface::Region, "destroy", Vec::new())
    }
}
