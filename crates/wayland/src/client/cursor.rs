//! Cursors: cut to 128×128, with the hotspot inside.

use super::surface::Role;
use super::{Call, Client};
use crate::fault::Fault;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// A pointer's image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    surface: u32,
    serial: u32,
    /// As the client wants it.
    wanted: (i32, i32),
    told: (i32, i32),
}

/// `wl_pointer.set_cursor`.
pub(crate) fn set_cursor(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (serial, id) = (call.uint()?, call.id()?);
    let wanted = (call.int()?, call.int()?);
    let up = client.ids.up(call.object)?;
    if id == 0 {
        if let Some(pointer) = client.pointers.get_mut(&call.object) {
            pointer.cursor = None;
        }
        return client.send_cursor(up, serial, 0, (0, 0));
    }
    let surface = client.surfaces.get_mut(&id).ok_or(Fault::Bug("a surface is not kept"))?;
    let fresh = match surface.role {
        Role::None => true,
        Role::Cursor => false,
        _ => return Err(Fault::protocol(call.object, "the surface is something else already")),
    };
    surface.role = Role::Cursor;
    let told = client.hotspot(id, wanted);
    let surface = client.ids.up(id)?;
    client.send_cursor(up, serial, surface, told)?;
    if let Some(pointer) = client.pointers.get_mut(&call.object) {
        pointer.cursor = Some(Cursor { surface: id, serial, wanted, told });
    }
    // What it showed before it was a cursor.
    if fresh { client.apply_waiting(id) } else { Ok(()) }
}

impl Client {
    fn send_cursor(
        &mut self,
        pointer: u32,
        serial: u32,
        surface: u32,
        (x, y): (i32, i32),
    ) -> Result<(), Fault> {
        let arguments = vec![Arg::Uint(serial), Arg::Object(surface), Arg::Int(x), Arg::Int(y)];
        self.request(pointer, Interface::Pointer, "set_cursor", arguments)
    }

    /// The nearest point of the image.
    fn hotspot(&self, surface: u32, (x, y): (i32, i32)) -> (i32, i32) {
        let side = limits::CURSOR_SIDE;
        let size = self.surfaces.get(&surface).and_then(super::surface::Surface::size);
        let (width, height) = size.unwrap_or((side, side));
        (x.clamp(0, width.min(side) - 1), y.clamp(0, height.min(side) - 1))
    }

    /// The image has another size: hotspots are inside of it again.
    pub(crate) fn clamp_hotspots(&mut self, surface: u32) -> Result<(), Fault> {
        let moved: Vec<(u32, Cursor)> = self
            .pointers
            .iter()
            .filter_map(|(id, pointer)| Some((*id, pointer.cursor?)))
            .filter(|(_, cursor)| cursor.surface == surface)
            .collect();
        for (id, mut cursor) in moved {
            let told = self.hotspot(surface, cursor.wanted);
            if told == cursor.told {
                continue;
            }
            cursor.told = told;
            let (pointer, up) = (self.ids.up(id)?, self.ids.up(surface)?);
            self.send_cursor(pointer, cursor.serial, up, told)?;
            if let Some(pointer) = self.pointers.get_mut(&id) {
                pointer.cursor = Some(cursor);
            }
        }
        Ok(())
    }
}
