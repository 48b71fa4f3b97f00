//! Input: coordinates are those of the client's surfaces, uncut; what happens on a border is not
//! the client's, and drags the window.

use super::cursor::Cursor;
use super::ids::{Owner, Role};
use super::{Call, Client};
use crate::fault::Fault;
use crate::geometry::fixed;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// The left button (linux/input-event-codes.h).
const LEFT: u32 = 0x110;

/// Where a pointer or finger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Outside of this client, or where it wants no input.
    Nowhere,
    /// On this surface of the client.
    Surface(u32),
    /// On the frame of this one.
    Frame(u32),
}

/// A `wl_pointer`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pointer {
    /// At the compositor.
    seat: u32,
    place: Place,
    pub(crate) cursor: Option<Cursor>,
}

/// `wl_seat.get_pointer`.
pub(crate) fn get_pointer(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.id()?;
    client.ids.add(id, Interface::Pointer, call.version)?;
    let new = client.ids.raise(id)?;
    let seat = client.ids.up(call.object)?;
    client.pointers.insert(id, Pointer { seat, place: Place::Nowhere, cursor: None });
    client.request(seat, Interface::Seat, "get_pointer", vec![Arg::New(new)])
}

/// `wl_pointer.release`.
pub(crate) fn release_pointer(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.pointers.remove(&call.object);
    client.end(&call)
}

/// `wl_touch.release`.
pub(crate) fn release_touch(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.touches.remove(&call.object);
    client.end(&call)
}

/// `wl_pointer.enter`.
pub(crate) fn pointer_enter(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (serial, surface, x, y) = (call.uint()?, call.id()?, call.int()?, call.int()?);
    let place = client.place_of(surface);
    let Some(pointer) = client.pointers.get_mut(&call.object) else { return Ok(()) };
    pointer.place = place;
    let Place::Surface(id) = place else { return Ok(()) };
    let (x, y) = client.uncut(id, x, y);
    let arguments = vec![Arg::Uint(serial), Arg::Object(id), Arg::Fixed(x), Arg::Fixed(y)];
    client.event(call.object, Interface::Pointer, "enter", arguments)
}

/// `wl_pointer.leave`.
pub(crate) fn pointer_leave(client: &mut Client, call: Call) -> Result<(), Fault> {
    let Some(pointer) = client.pointers.get_mut(&call.object) else { return Ok(()) };
    match std::mem::replace(&mut pointer.place, Place::Nowhere) {
        Place::Frame(_) => Ok(()),
        Place::Surface(_) | Place::Nowhere => client.forward_event(call),
    }
}

/// `wl_pointer.motion`.
pub(crate) fn pointer_motion(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (time, x, y) = (call.uint()?, call.int()?, call.int()?);
    let Some(Place::Surface(id)) = client.pointers.get(&call.object).map(|it| it.place) else {
        return Ok(());
    };
    let (x, y) = client.uncut(id, x, y);
    let arguments = vec![Arg::Uint(time), Arg::Fixed(x), Arg::Fixed(y)];
    client.event(call.object, Interface::Pointer, "motion", arguments)
}

/// `wl_pointer.button`: on a border it begins to move the window.
pub(crate) fn pointer_button(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let Some(pointer) = client.pointers.get(&call.object).copied() else { return Ok(()) };
    let surface = match pointer.place {
        Place::Frame(surface) => surface,
        Place::Surface(_) => return client.forward_event(call),
        Place::Nowhere => return Ok(()),
    };
    let (serial, _time, button, pressed) = (call.uint()?, call.uint()?, call.uint()?, call.uint()?);
    let toplevel = client.toplevels.iter().find_map(|(id, toplevel)| {
        let xdg = client.xdg.get(&toplevel.xdg)?;
        (xdg.surface == surface).then_some(*id)
    });
    match toplevel {
        Some(id) if button == LEFT && pressed == 1 => {
            let up = client.ids.up(id)?;
            let arguments = vec![Arg::Object(pointer.seat), Arg::Uint(serial)];
            client.request(up, Interface::XdgToplevel, "move", arguments)
        }
        _ => Ok(()),
    }
}

/// The wheel, which does nothing on a border.
pub(crate) fn pointer_axis(client: &mut Client, call: Call) -> Result<(), Fault> {
    match client.pointers.get(&call.object).map(|it| it.place) {
        Some(Place::Surface(_)) => client.forward_event(call),
        _ => Ok(()),
    }
}

/// `wl_touch.down`.
pub(crate) fn touch_down(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (serial, time, surface) = (call.uint()?, call.uint()?, call.id()?);
    let (finger, x, y) = (call.int()?, call.int()?, call.int()?);
    let place = client.place_of(surface);
    let fingers = client.touches.entry(call.object).or_default();
    // The compositor is not known for more fingers than that.
    if fingers.len() < limits::OFFERS {
        fingers.insert(finger, place);
    }
    let Place::Surface(id) = place else { return Ok(()) };
    let (x, y) = client.uncut(id, x, y);
    let arguments = vec![
        Arg::Uint(serial),
        Arg::Uint(time),
        Arg::Object(id),
        Arg::Int(finger),
        Arg::Fixed(x),
        Arg::Fixed(y),
    ];
    client.event(call.object, Interface::Touch, "down", arguments)
}

/// `wl_touch.up`.
pub(crate) fn touch_up(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (serial, time, finger) = (call.uint()?, call.uint()?, call.int()?);
    let fingers = client.touches.entry(call.object).or_default();
    let Some(Place::Surface(_)) = fingers.remove(&finger) else { return Ok(()) };
    let arguments = vec![Arg::Uint(serial), Arg::Uint(time), Arg::Int(finger)];
    client.event(call.object, Interface::Touch, "up", arguments)
}

/// `wl_touch.motion`.
pub(crate) fn touch_motion(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (time, finger, x, y) = (call.uint()?, call.int()?, call.int()?, call.int()?);
    let Some(Place::Surface(id)) = client.finger(call.object, finger) else { return Ok(()) };
    let (x, y) = client.uncut(id, x, y);
    let arguments = vec![Arg::Uint(time), Arg::Int(finger), Arg::Fixed(x), Arg::Fixed(y)];
    client.event(call.object, Interface::Touch, "motion", arguments)
}

/// `wl_touch.shape` and `orientation`.
pub(crate) fn touch_shape(client: &mut Client, call: Call) -> Result<(), Fault> {
    let finger = match call.arguments.as_slice().first() {
        Some(Arg::Int(finger)) => *finger,
        _ => return Err(Fault::Bug("a handler expects a finger")),
    };
    match client.finger(call.object, finger) {
        Some(Place::Surface(_)) => client.forward_event(call),
        _ => Ok(()),
    }
}

/// `wl_touch.cancel`.
pub(crate) fn touch_cancel(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.touches.remove(&call.object);
    client.forward_event(call)
}

/// `zwp_text_input_v3.enter`.
pub(crate) fn text_input_enter(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(Arg::Object(up)) = call.arguments.as_slice().first()
        && let Some(surface) = client.ids.client_of(*up)
    {
        client.text_inputs.insert(call.object, surface);
    }
    client.forward_event(call)
}

/// `zwp_text_input_v3.leave`.
pub(crate) fn text_input_leave(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.text_inputs.remove(&call.object);
    client.forward_event(call)
}

/// `zwp_text_input_v3.destroy`.
pub(crate) fn destroy_text_input(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.text_inputs.remove(&call.object);
    client.end(&call)
}

/// `zwp_text_input_v3.set_cursor_rectangle`, in the surface's coordinates.
pub(crate) fn set_cursor_rectangle(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let [x, y, width, height] = [call.int()?, call.int()?, call.int()?, call.int()?];
    let surface = client.text_inputs.get(&call.object).copied();
    let shown = surface.and_then(|it| client.surfaces.get(&it)?.shown).unwrap_or_default();
    let (x, y) = (x.saturating_sub(shown.x), y.saturating_sub(shown.y));
    let up = client.ids.up(call.object)?;
    let arguments = [x, y, width, height].map(Arg::Int).into();
    client.request(up, Interface::TextInput, "set_cursor_rectangle", arguments)
}

/// `zwp_pointer_constraints_v1.lock_pointer` and `confine_pointer`: to the whole of a surface.
pub(crate) fn constrain_pointer(client: &mut Client, call: Call) -> Result<(), Fault> {
    let message = &call.interface.definition().requests[usize::from(call.opcode)];
    let region = message
        .arguments
        .iter()
        .position(|kind| *kind == crate::protocol::Kind::ObjectOrNull(Interface::Region));
    let mut arguments: Vec<Arg> = call.arguments.collect();
    if let Some(region) = region {
        arguments[region] = Arg::Object(0);
    }
    client.forward_request(Call { arguments: arguments.into_iter(), ..call })
}

/// Regions and hints of constraints: the whole surface it is, and the pointer stays where it was.
pub(crate) fn ignore(_: &mut Client, _: Call) -> Result<(), Fault> {
    Ok(())
}

impl Client {
    fn place_of(&self, up: u32) -> Place {
        match self.ids.owner(up) {
            Some(Owner::Ours { role: Role::Frame(surface), .. }) => Place::Frame(surface),
            _ => self.ids.client_of(up).map_or(Place::Nowhere, Place::Surface),
        }
    }

    fn finger(&self, touch: u32, finger: i32) -> Option<Place> {
        self.touches.get(&touch)?.get(&finger).copied()
    }

    /// A point of the part that is shown, in 1/256, as a point of the whole surface.
    pub(crate) fn uncut(&self, surface: u32, x: i32, y: i32) -> (i32, i32) {
        let shown = self.surfaces.get(&surface).and_then(|it| it.shown).unwrap_or_default();
        (x.saturating_add(fixed(shown.x)), y.saturating_add(fixed(shown.y)))
    }
}
