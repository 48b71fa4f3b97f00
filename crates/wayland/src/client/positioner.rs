//! Positioners stay here until a popup uses them; then the compositor gets one that knows of the
//! borders of both.

use super::frame::{Edges, POPUP};
use super::ids::Role;
use super::{Call, Client};
use crate::fault::Fault;
use crate::geometry::{Rect, bounded};
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// Where a popup goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Positioner {
    size: (i32, i32),
    anchor_rect: Option<Rect>,
    anchor: u32,
    gravity: u32,
    adjustment: u32,
    offset: (i32, i32),
    reactive: bool,
    parent_size: Option<(i32, i32)>,
    parent_configure: Option<u32>,
}

/// `constraint_adjustment`: along both axes.
const SLIDE: u32 = 3;

/// Positioners a client may have: each popup needs one for a moment.
const MOST: usize = 256;

/// `xdg_wm_base.create_positioner`.
pub(crate) fn create(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.id()?;
    if client.positioners.len() >= MOST {
        return Err(Fault::limit("positioners", MOST));
    }
    client.ids.add(id, Interface::XdgPositioner, call.version)?;
    client.positioners.insert(id, Positioner::default());
    Ok(())
}

/// `xdg_positioner.destroy`.
pub(crate) fn destroy(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.positioners.remove(&call.object);
    client.end(&call)
}

/// `xdg_positioner.set_size`: never more than a popup may have.
pub(crate) fn set_size(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let size = (call.int()?, call.int()?);
    if size.0 <= 0 || size.1 <= 0 {
        return Err(Fault::protocol(call.object, "a popup's size is not positive"));
    }
    let most = limits::POPUP_SIDE;
    positioner(client, &call)?.size = (size.0.min(most), size.1.min(most));
    Ok(())
}

/// `xdg_positioner.set_anchor_rect`.
pub(crate) fn set_anchor_rect(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let rect = Rect::new(call.int()?, call.int()?, call.int()?, call.int()?);
    if rect.width < 0 || rect.height < 0 {
        return Err(Fault::protocol(call.object, "a size is negative"));
    }
    positioner(client, &call)?.anchor_rect = Some(rect.bounded());
    Ok(())
}

/// `xdg_positioner.set_anchor`.
pub(crate) fn set_anchor(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let anchor = edge(&mut call)?;
    positioner(client, &call)?.anchor = anchor;
    Ok(())
}

/// `xdg_positioner.set_gravity`.
pub(crate) fn set_gravity(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let gravity = edge(&mut call)?;
    positioner(client, &call)?.gravity = gravity;
    Ok(())
}

/// `xdg_positioner.set_constraint_adjustment`: six flags.
pub(crate) fn set_constraint_adjustment(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let adjustment = call.uint()? & 0x3f;
    positioner(client, &call)?.adjustment = adjustment;
    Ok(())
}

/// `xdg_positioner.set_offset`.
pub(crate) fn set_offset(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let offset = (bounded(call.int()?), bounded(call.int()?));
    positioner(client, &call)?.offset = offset;
    Ok(())
}

/// `xdg_positioner.set_reactive`.
pub(crate) fn set_reactive(client: &mut Client, call: Call) -> Result<(), Fault> {
    positioner(client, &call)?.reactive = true;
    Ok(())
}

/// `xdg_positioner.set_parent_size`.
pub(crate) fn set_parent_size(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let size = (bounded(call.int()?), bounded(call.int()?));
    positioner(client, &call)?.parent_size = Some(size);
    Ok(())
}

/// `xdg_positioner.set_parent_configure`.
pub(crate) fn set_parent_configure(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let serial = call.uint()?;
    positioner(client, &call)?.parent_configure = Some(serial);
    Ok(())
}

fn positioner<'a>(client: &'a mut Client, call: &Call) -> Result<&'a mut Positioner, Fault> {
    let positioner = client.positioners.get_mut(&call.object);
    positioner.ok_or(Fault::Bug("a positioner is not kept"))
}

fn edge(call: &mut Call) -> Result<u32, Fault> {
    match call.uint()? {
        value @ 0..=8 => Ok(value),
        value => Err(Fault::protocol(call.object, format!("there is no edge {value}"))),
    }
}

impl Client {
    /// Makes the compositor's positioner for a popup on this `xdg_surface`, which has this border. To be
    /// destroyed after its use.
    pub(crate) fn make_positioner(
        &mut self,
        id: u32,
        below: u32,
        parent: Edges,
    ) -> Result<u32, Fault> {
        use Interface::{XdgPositioner, XdgWmBase};
        let positioner =
            *self.positioners.get(&id).ok_or(Fault::Bug("a positioner is not kept"))?;
        let Some(anchor) = positioner.anchor_rect.filter(|_| positioner.size.0 > 0) else {
            return Err(Fault::protocol(id, "a positioner is not complete"));
        };
        let new = self.ids.ours(XdgPositioner, Role::Silent)?;
        let base = self.own.wm_base;
        self.request(base, XdgWmBase, "create_positioner", vec![Arg::New(new)])?;
        // On the screen with its border: never larger, and moved there if need be.
        let below = self.xdg.get(&below).map_or(0, |it| it.surface);
        let largest = self.largest(below, POPUP, false);
        let size = (positioner.size.0.min(largest.0), positioner.size.1.min(largest.1));
        let size = POPUP.around(size);
        let anchor = anchor.shifted(parent.side, parent.top);
        let pair = |(a, b): (i32, i32)| vec![Arg::Int(a), Arg::Int(b)];
        let mut says = vec![
            ("set_size", pair(size)),
            (
                "set_anchor_rect",
                [anchor.x, anchor.y, anchor.width, anchor.height].map(Arg::Int).into(),
            ),
            ("set_anchor", vec![Arg::Uint(positioner.anchor)]),
            ("set_gravity", vec![Arg::Uint(positioner.gravity)]),
            ("set_constraint_adjustment", vec![Arg::Uint(positioner.adjustment | SLIDE)]),
            ("set_offset", pair(positioner.offset)),
        ];
        if self.own.wm_base_version >= 3 {
            if positioner.reactive {
                says.push(("set_reactive", Vec::new()));
            }
            if let Some(size) = positioner.parent_size {
                says.push(("set_parent_size", pair(parent.around(size))));
            }
            if let Some(serial) = positioner.parent_configure {
                says.push(("set_parent_configure", vec![Arg::Uint(serial)]));
            }
        }
        for (name, arguments) in says {
            self.request(new, XdgPositioner, name, arguments)?;
        }
        Ok(new)
    }

    /// Ends a positioner of [`Self::make_positioner`].
    pub(crate) fn end_positioner(&mut self, up: u32) -> Result<(), Fault> {
        self.request(up, Interface::XdgPositioner, "destroy", Vec::new())
    }
}
