//! Committing: a client's changes take effect here, then the compositor is told about the whole
//! tree, the deepest surface first. All subsurfaces are synchronized there, so the root's commit
//! shows everything at once, cut for one another.

use super::Client;
use super::layout::Layout;
use super::state::{Attached, State};
use super::surface::{Role, Sub};
use crate::fault::Fault;
use crate::geometry::{Rect, fixed};
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

impl Client {
    /// A client's commit of a surface.
    pub(crate) fn commit(&mut self, id: u32, changes: State) -> Result<(), Fault> {
        if self.is_synced(id) {
            let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(()) };
            let unused = surface.cached.get_or_insert_default().merge(changes);
            return unused.map_or(Ok(()), |buffer| self.release_unused(buffer));
        }
        self.apply(id, changes)?;
        self.emit_tree_of(id)
    }

    /// What waits of this surface takes effect.
    pub(crate) fn apply_waiting(&mut self, id: u32) -> Result<(), Fault> {
        self.apply(id, State::default())?;
        self.emit_tree_of(id)
    }

    /// Whether this surface's state waits for its parent's.
    pub(crate) fn is_synced(&self, id: u32) -> bool {
        match self.surfaces.get(&id).map(|surface| surface.role) {
            Some(Role::Sub(Sub { sync: true, .. })) => true,
            Some(Role::Sub(Sub { parent: Some(parent), .. })) => self.is_synced(parent),
            _ => false,
        }
    }

    fn apply(&mut self, id: u32, changes: State) -> Result<(), Fault> {
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(()) };
        let mut all = surface.cached.take().unwrap_or_default();
        let mut unused = [all.merge(changes), None];
        let now = &mut surface.now;
        now.buffer = all.buffer.unwrap_or(now.buffer);
        now.transform = all.transform.unwrap_or(now.transform);
        now.scale = all.scale.unwrap_or(now.scale);
        now.source = all.source.unwrap_or(now.source);
        now.destination = all.destination.unwrap_or(now.destination);
        now.geometry = all.geometry.or(now.geometry);
        if all.input.is_some() || all.opaque.is_some() {
            surface.told.regions = None;
        }
        if let Some(area) = all.input.take() {
            now.input = area;
        }
        if let Some(area) = all.opaque.take() {
            now.opaque = area;
        }
        unused[1] = surface.unsent.merge(all);
        surface.order.clone_from(&surface.next_order);
        let children: Vec<u32> = surface.order.iter().copied().filter(|it| *it != id).collect();
        if let Some(size) = surface.buffer_size()
            && let Some([x, y, width, height]) = surface.now.source
            && (x.saturating_add(width) > fixed(size.0) || y.saturating_add(height) > fixed(size.1))
        {
            return Err(Fault::protocol(1, "a viewport's source is outside of its buffer"));
        }
        for buffer in unused.into_iter().flatten() {
            self.release_unused(buffer)?;
        }
        for child in children {
            let Some(surface) = self.surfaces.get_mut(&child) else { continue };
            let waits = surface.cached.is_some();
            if let Role::Sub(sub) = &mut surface.role
                && let Some(next) = sub.next.take()
            {
                sub.at = next;
            }
            if waits && self.is_synced(child) {
                self.apply(child, State::default())?;
            }
        }
        Ok(())
    }

    /// Tells the compositor about the tree that this surface is in, when it is one to show.
    fn emit_tree_of(&mut self, id: u32) -> Result<(), Fault> {
        let mut root = id;
        while let Some(parent) = self.parent(root) {
            root = parent;
        }
        let Some(surface) = self.surfaces.get(&root) else { return Ok(()) };
        let shows = match surface.role {
            // Before the first content only the client's own commits count.
            Role::Xdg(_) | Role::Cursor | Role::DragIcon => root == id || surface.told.mapped,
            Role::None | Role::Sub(_) => false,
        };
        if shows { self.emit(root) } else { self.bury_buffers() }
    }

    /// Tells the compositor about a tree.
    pub(crate) fn emit(&mut self, root: u32) -> Result<(), Fault> {
        let layout = self.layout(root);
        self.emit_surface(root, &layout, root)?;
        self.bury_buffers()
    }

    /// Tells about a surface and all on top of it. True when it was committed.
    fn emit_surface(&mut self, id: u32, layout: &Layout, root: u32) -> Result<bool, Fault> {
        let Some(surface) = self.surfaces.get(&id) else { return Ok(false) };
        let Some(&place) = layout.placed.get(&id) else { return Ok(false) };
        let order = surface.order.clone();
        let up = surface.up;
        let mut dirty = false;
        for child in order.iter().copied().filter(|child| *child != id) {
            dirty |= self.emit_surface(child, layout, root)?;
            dirty |= self.emit_position(child, layout, id)?;
        }
        dirty |= self.emit_order(id, &order, root)?;
        let window = self.take_window(id);
        dirty |= self.emit_state(id, place.shown)?;
        if id == root {
            dirty |= self.emit_role(id, layout, window)?;
        }
        if dirty {
            self.request(up, Interface::Surface, "commit", Vec::new())?;
        }
        self.check_upstream()?;
        Ok(dirty)
    }

    /// Where a subsurface is, both cut.
    fn emit_position(&mut self, child: u32, layout: &Layout, parent: u32) -> Result<bool, Fault> {
        let (Some(own), Some(above)) = (layout.placed.get(&child), layout.placed.get(&parent))
        else {
            return Ok(false);
        };
        let corner = |shown: Option<Rect>| shown.map_or((0, 0), |it| (it.x, it.y));
        let (inner, outer) = (corner(own.shown), corner(above.shown));
        let at =
            (own.at.0 + inner.0 - above.at.0 - outer.0, own.at.1 + inner.1 - above.at.1 - outer.1);
        let Some(surface) = self.surfaces.get_mut(&child) else { return Ok(false) };
        let Role::Sub(sub) = surface.role else { return Ok(false) };
        if surface.told.at.replace(at) == Some(at) {
            return Ok(false);
        }
        let up = self.ids.up(sub.id)?;
        let position = vec![Arg::Int(at.0), Arg::Int(at.1)];
        self.request(up, Interface::Subsurface, "set_position", position)?;
        Ok(true)
    }

    /// What is on top of what; the frame is above all that is the client's.
    fn emit_order(&mut self, id: u32, order: &[u32], root: u32) -> Result<bool, Fault> {
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(false) };
        if surface.told.order == order {
            return Ok(false);
        }
        surface.told.order = order.to_vec();
        // From below the own surface downwards, then from above it upwards.
        let own = order.iter().position(|it| *it == id).unwrap_or(0);
        let below = order[..own].iter().rev().map(|it| (*it, "place_below"));
        let above = order[own..].iter().skip(1).map(|it| (*it, "place_above"));
        let (mut last, mut side) = (id, "place_below");
        for (child, verb) in below.chain(above) {
            if verb != side {
                (last, side) = (id, verb);
            }
            let Some(Role::Sub(sub)) = self.surfaces.get(&child).map(|it| it.role) else {
                continue;
            };
            let (sub, sibling) = (self.ids.up(sub.id)?, self.ids.up(last)?);
            self.request(sub, Interface::Subsurface, verb, vec![Arg::Object(sibling)])?;
            last = child;
        }
        if id == root {
            self.raise_frame(id, order)?;
        }
        Ok(true)
    }

    /// Content, cut, regions and callbacks of one surface.
    fn emit_state(&mut self, id: u32, shown: Option<Rect>) -> Result<bool, Fault> {
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(false) };
        let changes = std::mem::take(&mut surface.unsent);
        let (up, is_drag) = (surface.up, surface.role == Role::DragIcon);
        let mut dirty = changes.committed;
        if let Some(transform) = changes.transform {
            let value = vec![Arg::Int(transform)];
            self.request(up, Interface::Surface, "set_buffer_transform", value)?;
            dirty = true;
        }
        if let Some(scale) = changes.scale {
            let value = vec![Arg::Int(scale)];
            self.request(up, Interface::Surface, "set_buffer_scale", value)?;
            dirty = true;
        }
        let offset = if is_drag { changes.offset } else { (0, 0) };
        dirty |= self.emit_content(id, shown, changes.buffer, offset)?;
        if let Some(shown) = shown {
            for rect in changes.damage {
                self.damage(up, "damage", rect.shifted(-shown.x, -shown.y))?;
            }
            for rect in changes.damage_buffer {
                self.damage(up, "damage_buffer", rect)?;
            }
            dirty |= self.emit_regions(id, shown)?;
        }
        for frame in changes.frames {
            let new = self.ids.raise(frame)?;
            self.request(up, Interface::Surface, "frame", vec![Arg::New(new)])?;
        }
        for feedback in changes.feedbacks {
            let new = self.ids.raise(feedback)?;
            let arguments = vec![Arg::Object(up), Arg::New(new)];
            let presentation = self.own.presentation;
            self.request(presentation, Interface::Presentation, "feedback", arguments)?;
        }
        Ok(dirty)
    }

    /// The buffer and the part of it that is shown. A surface of which nothing is shown has none.
    fn emit_content(
        &mut self,
        id: u32,
        shown: Option<Rect>,
        new: Option<Option<Attached>>,
        offset: (i32, i32),
    ) -> Result<bool, Fault> {
        let Some(surface) = self.surfaces.get(&id) else { return Ok(false) };
        let (up, mapped, viewport) = (surface.up, surface.told.mapped, surface.viewport);
        let own_version = surface.version;
        let cut = shown.and_then(|shown| cut(surface, shown));
        let content = surface.now.buffer.filter(|it| shown.is_some() && self.is_there(*it));
        // Old content of what was hidden comes back as it is.
        let attach = match (content, new.flatten()) {
            (Some(_), Some(new)) => Some(new),
            (Some(content), None) if !mapped => Some(content),
            _ => None,
        };
        let mut dirty = false;
        let arguments =
            |buffer: u32, (x, y): (i32, i32)| vec![Arg::Object(buffer), Arg::Int(x), Arg::Int(y)];
        let stays = shown.is_some() && mapped && surface.now.buffer.is_some() && new.is_none();
        if let Some(buffer) = attach {
            let offset = self.drag_offset(id, offset);
            let version = self.own.compositor_version.min(own_version);
            match version >= 5 {
                true if offset != (0, 0) => {
                    let numbers = vec![Arg::Int(offset.0), Arg::Int(offset.1)];
                    self.request(up, Interface::Surface, "attach", arguments(buffer.up, (0, 0)))?;
                    self.request(up, Interface::Surface, "offset", numbers)?;
                }
                true => {
                    self.request(up, Interface::Surface, "attach", arguments(buffer.up, (0, 0)))?;
                }
                false => {
                    self.request(up, Interface::Surface, "attach", arguments(buffer.up, offset))?;
                }
            }
            if let Some(kept) = self.buffers.get_mut(&buffer.id) {
                kept.busy = true;
            }
            if !mapped {
                self.damage(up, "damage", Rect::new(0, 0, i32::MAX, i32::MAX))?;
            }
            dirty = true;
        } else if content.is_none() && mapped && !stays {
            self.request(up, Interface::Surface, "attach", arguments(0, (0, 0)))?;
            dirty = true;
        }
        if let Some(unused) = new.flatten().filter(|_| content.is_none()) {
            self.release_unused(unused)?;
        }
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(dirty) };
        surface.told.mapped = attach.is_some() || (mapped && (content.is_some() || stays));
        surface.shown = shown;
        if surface.told.cut != cut {
            surface.told.cut = cut;
            let (source, size) = cut.unwrap_or(([-256; 4], (-1, -1)));
            let source = source.map(Arg::Fixed).into();
            self.request(viewport, Interface::Viewport, "set_source", source)?;
            let size = vec![Arg::Int(size.0), Arg::Int(size.1)];
            self.request(viewport, Interface::Viewport, "set_destination", size)?;
            dirty = true;
        }
        Ok(dirty)
    }

    /// How far what is dragged may move against the pointer: in sum, not beyond its own size.
    fn drag_offset(&mut self, id: u32, (x, y): (i32, i32)) -> (i32, i32) {
        let Some(surface) = self.surfaces.get_mut(&id) else { return (0, 0) };
        let side = limits::DRAG_ICON_SIDE;
        let from = surface.told.offset;
        let within = |from: i32, by: i32| from.saturating_add(by).clamp(-side, side);
        surface.told.offset = (within(from.0, x), within(from.1, y));
        (surface.told.offset.0 - from.0, surface.told.offset.1 - from.1)
    }

    fn emit_regions(&mut self, id: u32, shown: Rect) -> Result<bool, Fault> {
        let Some(surface) = self.surfaces.get_mut(&id) else { return Ok(false) };
        if surface.told.regions == Some(shown) {
            return Ok(false);
        }
        let first = surface.told.regions.replace(shown).is_none();
        let up = surface.up;
        let (input, opaque) = (surface.now.input.clone(), surface.now.opaque.clone());
        if first || input.is_some() || opaque.is_some() {
            let input = input.as_ref().map(|parts| &parts[..]);
            self.send_region(up, "set_input_region", input, shown)?;
            let opaque = opaque.as_ref().map(|parts| &parts[..]);
            self.send_region(up, "set_opaque_region", opaque, shown)?;
        }
        Ok(true)
    }

    fn damage(&mut self, up: u32, name: &str, rect: Rect) -> Result<(), Fault> {
        let numbers = [rect.x, rect.y, rect.width, rect.height].map(Arg::Int).into();
        self.request(up, Interface::Surface, name, numbers)
    }
}

/// Source in 1/256 and size of the part that is shown; none when it is the whole buffer as it is.
fn cut(surface: &super::surface::Surface, shown: Rect) -> Option<([i32; 4], (i32, i32))> {
    let buffer = surface.buffer_size()?;
    let size = surface.size()?;
    let plain = surface.now.source.is_none() && surface.now.destination.is_none();
    if plain && shown == Rect::of(size) {
        // Its size is said all the same: the compositor shows no other, whatever the buffer is.
        return Some(([-256; 4], size));
    }
    let [x, y, width, height] =
        surface.now.source.unwrap_or([0, 0, fixed(buffer.0), fixed(buffer.1)]);
    let part = |begin: i32, length: i32, from: i32, count: i32, of: i32| {
        let scaled = |value: i32| i64::from(length) * i64::from(value) / i64::from(of.max(1));
        let from = i64::from(begin) + scaled(from);
        let end = i64::from(begin) + i64::from(length);
        // Never nothing, and never beyond.
        let from = from.min(end - 1).max(0);
        let count = scaled(count).clamp(1, (end - from).max(1));
        (i32::try_from(from).unwrap_or(0), i32::try_from(count).unwrap_or(1))
    };
    let (left, wide) = part(x, width, shown.x, shown.width, size.0);
    let (top, high) = part(y, height, shown.y, shown.height, size.1);
    Some(([left, top, wide, high], (shown.width, shown.height)))
}
