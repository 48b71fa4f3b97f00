//! Surfaces: what a client says of them, until it commits.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::region::{Part, Region};
use super::state::{Area, Attached, State, add_damage};
use super::{Call, Client};
use crate::fault::Fault;
use crate::geometry::{Rect, bounded};
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// What a surface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing yet.
    None,
    /// The surface of this `xdg_surface`.
    Xdg(u32),
    /// The image of a pointer.
    Cursor,
    /// What hangs at the pointer while something is dragged.
    DragIcon,
    /// Part of another.
    Sub(Sub),
}

/// A subsurface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sub {
    /// The `wl_subsurface`.
    pub(crate) id: u32,
    /// None once the parent is destroyed.
    pub(crate) parent: Option<u32>,
    pub(crate) sync: bool,
    pub(crate) at: (i32, i32),
    /// Until the parent's state is applied.
    pub(crate) next: Option<(i32, i32)>,
}

/// What applies.
#[derive(Debug)]
pub(crate) struct Now {
    pub(crate) buffer: Option<Attached>,
    pub(crate) transform: i32,
    pub(crate) scale: i32,
    pub(crate) source: Option<[i32; 4]>,
    pub(crate) destination: Option<(i32, i32)>,
    pub(crate) geometry: Option<Rect>,
    pub(crate) input: Area,
    pub(crate) opaque: Area,
}

/// What the compositor was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) mapped: bool,
    /// Part of the surface, source in 1/256 (-1 for all of it), and size.
    pub(crate) cut: Option<([i32; 4], (i32, i32))>,
    pub(crate) at: Option<(i32, i32)>,
    pub(crate) order: Vec<u32>,
    pub(crate) geometry: Option<Rect>,
    /// How far a drag icon has moved against the pointer since it is one.
    pub(crate) offset: (i32, i32),
    /// The part for which regions were sent.
    pub(crate) regions: Option<Rect>,
}

/// A surface.
#[derive(Debug)]
pub(crate) struct Surface {
    pub(crate) up: u32,
    /// The proxy's viewport at the compositor.
    pub(crate) viewport: u32,
    pub(crate) version: u32,
    pub(crate) role: Role,
    /// Said, not committed.
    pub(crate) pending: State,
    /// Committed, waiting for the parent.
    pub(crate) cached: Option<State>,
    /// Applied, not yet told to the compositor.
    pub(crate) unsent: State,
    pub(crate) now: Now,
    /// Subsurfaces from the lowest; the surface's own id stands for itself.
    pub(crate) order: Vec<u32>,
    /// The same, until the surface's state is applied.
    pub(crate) next_order: Vec<u32>,
    pub(crate) client_viewport: Option<u32>,
    /// The part that is shown.
    pub(crate) shown: Option<Rect>,
    pub(crate) told: Told,
    pub(crate) frame: Option<super::frame::Frame>,
    /// The scale of the output that it is on, in 1/120, where the compositor says it.
    pub(crate) fraction: Option<i64>,
    /// Outputs of the proxy's own that it is on.
    pub(crate) on: BTreeSet<u32>,
}

impl Surface {
    /// What its regions are made of, those that wait too.
    fn areas(&self) -> impl Iterator<Item = &Rc<Vec<Part>>> {
        let states = [Some(&self.pending), self.cached.as_ref(), Some(&self.unsent)];
        let waiting = states.into_iter().flatten().flat_map(|state| [&state.input, &state.opaque]);
        let now = [&self.now.input, &self.now.opaque];
        waiting.flatten().chain(now).flatten()
    }
}

/// `wl_compositor.create_surface`.
pub(crate) fn create(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    if client.surfaces.len() >= limits::SURFACES {
        return Err(Fault::limit("surfaces", limits::SURFACES));
    }
    let id = call.id()?;
    client.ids.add(id, Interface::Surface, call.version)?;
    let up = client.ids.raise(id)?;
    let compositor = client.ids.up(call.object)?;
    client.request(compositor, Interface::Compositor, "create_surface", vec![Arg::New(up)])?;
    let viewport = client.make_viewport(up)?;
    let surface = Surface {
        up,
        viewport,
        version: call.version,
        role: Role::None,
        pending: State::default(),
        cached: None,
        unsent: State::default(),
        now: Now {
            buffer: None,
            transform: 0,
            scale: 1,
            source: None,
            destination: None,
            geometry: None,
            input: None,
            opaque: None,
        },
        order: vec![id],
        next_order: vec![id],
        client_viewport: None,
        shown: None,
        told: Told { order: vec![id], ..Told::default() },
        frame: None,
        fraction: None,
        on: BTreeSet::new(),
    };
    client.surfaces.insert(id, surface);
    Ok(())
}

/// `wl_surface.attach`. Where the buffer goes is not the client's to say but for what it drags.
pub(crate) fn attach(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (id, x, y) = (call.id()?, call.int()?, call.int()?);
    let buffer = match id {
        0 => None,
        _ => {
            let up = client.ids.up(id)?;
            let buffer = client.buffers.get(&id).ok_or(Fault::Bug("a buffer without a size"))?;
            let (number, width, height) = (buffer.number, buffer.width, buffer.height);
            Some(Attached { id, number, up, width, height })
        }
    };
    let pending = client.pending(&call)?;
    pending.buffer = Some(buffer);
    if call.version < 5 {
        pending.offset = (bounded(x), bounded(y));
    }
    Ok(())
}

/// `wl_surface.offset`.
pub(crate) fn offset(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let offset = (bounded(call.int()?), bounded(call.int()?));
    client.pending(&call)?.offset = offset;
    Ok(())
}

/// `wl_surface.damage`.
pub(crate) fn damage(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let rect = Rect::new(call.int()?, call.int()?, call.int()?, call.int()?);
    add_damage(&mut client.pending(&call)?.damage, vec![rect]);
    Ok(())
}

/// `wl_surface.damage_buffer`.
pub(crate) fn damage_buffer(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let rect = Rect::new(call.int()?, call.int()?, call.int()?, call.int()?);
    add_damage(&mut client.pending(&call)?.damage_buffer, vec![rect]);
    Ok(())
}

/// `wl_surface.frame`.
pub(crate) fn frame(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.id()?;
    client.ids.add(id, Interface::Callback, 1)?;
    client.check_callbacks(call.object)?;
    client.pending(&call)?.frames.push(id);
    Ok(())
}

/// `wp_presentation.feedback`: it belongs to the surface's next commit.
pub(crate) fn feedback(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (surface, id) = (call.id()?, call.id()?);
    client.ids.add(id, Interface::PresentationFeedback, call.version)?;
    client.check_callbacks(surface)?;
    let surface = client.surfaces.get_mut(&surface).ok_or(Fault::Bug("a surface is not kept"))?;
    surface.pending.feedbacks.push(id);
    Ok(())
}

/// `wl_surface.set_opaque_region`.
pub(crate) fn set_opaque_region(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.id()?;
    let area = client.area(id)?;
    // None is nothing here, unlike with input.
    client.pending(&call)?.opaque = Some(Some(area.unwrap_or_default()));
    Ok(())
}

/// `wl_surface.set_input_region`.
pub(crate) fn set_input_region(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.id()?;
    let area = client.area(id)?;
    client.pending(&call)?.input = Some(area);
    Ok(())
}

/// `wl_surface.set_buffer_transform`.
pub(crate) fn set_buffer_transform(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let transform = call.int()?;
    if !(0..8).contains(&transform) {
        return Err(Fault::protocol(call.object, format!("there is no transform {transform}")));
    }
    client.pending(&call)?.transform = Some(transform);
    Ok(())
}

/// `wl_surface.set_buffer_scale`.
pub(crate) fn set_buffer_scale(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let scale = call.int()?;
    if !(1..=limits::BUFFER_SIDE).contains(&scale) {
        return Err(Fault::protocol(call.object, format!("there is no scale {scale}")));
    }
    client.pending(&call)?.scale = Some(scale);
    Ok(())
}

/// `wl_surface.commit`.
pub(crate) fn commit(client: &mut Client, call: Call) -> Result<(), Fault> {
    let pending = client.pending(&call)?;
    pending.committed = true;
    let changes = std::mem::take(pending);
    client.commit(call.object, changes)
}

/// `wl_surface.destroy`.
pub(crate) fn destroy(client: &mut Client, call: Call) -> Result<(), Fault> {
    let id = call.object;
    let Some(mut surface) = client.surfaces.remove(&id) else { return client.end(&call) };
    if let Some(frame) = surface.frame.take() {
        client.remove_frame(&frame)?;
    }
    for child in surface.order.iter().chain(&surface.next_order) {
        if let Some(Surface { role: Role::Sub(sub), .. }) = client.surfaces.get_mut(child) {
            sub.parent = None;
        }
    }
    // What belonged to it belongs to nothing now: its id may be another surface's soon, and that
    // one's border is not to be taken away through this one's window.
    match surface.role {
        Role::Sub(sub) => {
            client.subsurfaces.remove(&sub.id);
            if let Some(parent) = sub.parent {
                client.leave_parent(id, parent);
            }
        }
        Role::Xdg(xdg) => {
            if let Some(xdg) = client.xdg.get_mut(&xdg) {
                xdg.surface = 0;
            }
        }
        Role::None | Role::Cursor | Role::DragIcon => {}
    }
    client.viewports.retain(|_, surface| *surface != id);
    client.fractions.retain(|_, surface| *surface != id);
    let states = [Some(surface.pending), surface.cached, Some(surface.unsent)];
    for state in states.into_iter().flatten() {
        client.discard(state)?;
    }
    client.request(surface.viewport, Interface::Viewport, "destroy", Vec::new())?;
    client.end(&call)?;
    client.bury_buffers()
}

impl Client {
    /// A surface is no longer what it was: the compositor has no content of it any more. While it
    /// is nothing, the client's commits do not get there.
    pub(crate) fn take_content(&mut self, id: u32) -> Result<(), Fault> {
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(()) };
        surface.told.mapped = false;
        let up = surface.up;
        let nothing = vec![Arg::Object(0), Arg::Int(0), Arg::Int(0)];
        self.request(up, Interface::Surface, "attach", nothing)?;
        self.request(up, Interface::Surface, "commit", Vec::new())
    }

    fn pending(&mut self, call: &Call) -> Result<&mut State, Fault> {
        let surface = self.surfaces.get_mut(&call.object);
        Ok(&mut surface.ok_or(Fault::Bug("a surface is not kept"))?.pending)
    }

    /// What a region is made of, for a surface to keep. All that are kept are counted.
    fn area(&self, region: u32) -> Result<Area, Fault> {
        let Some(Region { parts }) = self.regions.get(&region) else { return Ok(None) };
        if !parts.is_empty() {
            let of_surfaces = self.surfaces.values().flat_map(Surface::areas);
            let own = self.regions.values().map(|region| &region.parts);
            let all = own.chain(of_surfaces).map(|parts| (Rc::as_ptr(parts), parts.len()));
            let sum: usize = all.collect::<BTreeSet<_>>().into_iter().map(|(_, it)| it).sum();
            if sum > limits::REGION_SUM {
                return Err(Fault::limit("rectangles of regions", limits::REGION_SUM));
            }
        }
        Ok(Some(parts.clone()))
    }

    /// A client that asks without committing, or commits what is never shown, is stopped.
    fn check_callbacks(&self, surface: u32) -> Result<(), Fault> {
        let count = self.surfaces.get(&surface).map_or(0, |surface| {
            let states = [Some(&surface.pending), surface.cached.as_ref(), Some(&surface.unsent)];
            states.into_iter().flatten().map(|it| it.frames.len() + it.feedbacks.len()).sum()
        });
        match count >= limits::CALLBACKS {
            true => Err(Fault::limit("callbacks of a surface", limits::CALLBACKS)),
            false => Ok(()),
        }
    }

    /// Ends what waits in a state that will never apply.
    pub(crate) fn discard(&mut self, state: State) -> Result<(), Fault> {
        for id in state.frames {
            self.free(id)?;
        }
        for id in state.feedbacks {
            self.event(id, Interface::PresentationFeedback, "discarded", Vec::new())?;
            self.free(id)?;
        }
        match state.buffer.flatten() {
            Some(buffer) => self.release_unused(buffer),
            None => Ok(()),
        }
    }
}
