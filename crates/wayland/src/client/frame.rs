//! Border and label: subsurfaces of the proxy's around each window and popup. They lie outside of
//! everything the client may show, and above it all the same.
//!
//! Below the client's surfaces lies a ground of the same color: what is transparent shows that, and
//! never another window inside this border.
//!
//! Bars are a tile of one color, stretched by a viewport, so they are exact at every scale of an
//! output.

use super::Client;
use super::ids::Role;
use crate::fault::Fault;
use crate::geometry::{Rect, fixed};
use crate::protocol::Interface;
use crate::wire::Arg;

/// How thick a border is: on top, where the label is, and elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edges {
    pub(crate) side: i32,
    pub(crate) top: i32,
}

/// Of a window.
pub(crate) const WINDOW: Edges = Edges { side: 4, top: 20 };

/// Of a popup.
pub(crate) const POPUP: Edges = Edges { side: 2, top: 14 };

impl Edges {
    /// What a border adds to a size.
    pub(crate) fn around(self, (width, height): (i32, i32)) -> (i32, i32) {
        let add = |length: i32, more: i32| length.saturating_add(more);
        (add(width, 2 * self.side), add(height, self.top + self.side))
    }

    /// What a size leaves for the client. 0 stays 0: the client chooses.
    pub(crate) fn within(self, (width, height): (i32, i32)) -> (i32, i32) {
        let less = |length: i32, less: i32| match length {
            ..=0 => 0,
            _ => length.saturating_sub(less).max(1),
        };
        (less(width, 2 * self.side), less(height, self.top + self.side))
    }
}

/// Width and height of the tile that bars are stretched from.
pub(crate) const TILE: i32 = 32;

/// The part of the tile that is stretched. Around it is as much again: a renderer that computes with
/// too few digits (pixman has 16 behind the point) then still finds color at the far end of a bar.
const MIDDLE: [i32; 4] = [8, 8, 16, 16];

/// One of the surfaces.
#[derive(Clone, Copy, Debug)]
struct Bar {
    surface: u32,
    subsurface: u32,
    viewport: u32,
    told: Option<Rect>,
}

/// Four bars, the label, and the ground below everything, in this order.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    bars: [Bar; PARTS],
    pub(crate) edges: Edges,
    /// The window it was last put around.
    told: Option<Rect>,
}

const PARTS: usize = 6;
const LABEL: usize = 4;
const GROUND: usize = 5;

impl Client {
    /// Makes the frame of a client's surface.
    pub(crate) fn make_frame(&mut self, id: u32, edges: Edges) -> Result<(), Fault> {
        let parent = self.ids.up(id)?;
        let mut bars = Vec::new();
        for number in 0..PARTS {
            // Input on the ground, where the client wants none, is nobody's.
            let role = if number == GROUND { Role::Silent } else { Role::Frame(id) };
            let surface = self.ids.ours(Interface::Surface, role)?;
            let compositor = self.own.compositor;
            let new = vec![Arg::New(surface)];
            self.request(compositor, Interface::Compositor, "create_surface", new)?;
            let viewport = self.make_viewport(surface)?;
            let subsurface = self.ids.ours(Interface::Subsurface, Role::Silent)?;
            let arguments = vec![Arg::New(subsurface), Arg::Object(surface), Arg::Object(parent)];
            let subcompositor = self.own.subcompositor;
            self.request(subcompositor, Interface::Subcompositor, "get_subsurface", arguments)?;
            if number == GROUND {
                let below = vec![Arg::Object(parent)];
                self.request(subsurface, Interface::Subsurface, "place_below", below)?;
            }
            bars.push(Bar { surface, subsurface, viewport, told: None });
        }
        let bars = bars.try_into().map_err(|_| Fault::Bug("a frame has six parts"))?;
        if let Some(surface) = self.surfaces.get_mut(&id) {
            surface.frame = Some(Frame { bars, edges, told: None });
            // Below and above the client's subsurfaces, which may be there already.
            surface.told.order.clear();
        }
        Ok(())
    }

    /// Takes a frame away.
    pub(crate) fn remove_frame(&mut self, frame: &Frame) -> Result<(), Fault> {
        for bar in &frame.bars {
            self.request(bar.viewport, Interface::Viewport, "destroy", Vec::new())?;
            self.request(bar.subsurface, Interface::Subsurface, "destroy", Vec::new())?;
            self.request(bar.surface, Interface::Surface, "destroy", Vec::new())?;
        }
        Ok(())
    }

    /// Puts border and label around `window`, given in the compositor's coordinates of the surface.
    pub(crate) fn emit_frame(&mut self, id: u32, window: Rect) -> Result<bool, Fault> {
        let Some(frame) = self.surfaces.get_mut(&id).and_then(|it| it.frame.as_mut()) else {
            return Ok(false);
        };
        if frame.told.replace(window) == Some(window) {
            return Ok(false);
        }
        let frame = frame.clone();
        let Edges { side, top } = frame.edges;
        let Rect { x, y, width, height } = window;
        let label = &self.settings.label;
        // A label that were cut would be another compartment's name: there is none where the window is
        // narrower.
        let inner = top - 4;
        let wide = label.width * inner / label.height.max(1);
        let fits = wide <= width;
        let wide = wide.min(width);
        let places = [
            Rect::new(x - side, y - top, width + 2 * side, top),
            Rect::new(x - side, y, side, height),
            Rect::new(x + width, y, side, height),
            Rect::new(x - side, y + height, width + 2 * side, side),
            Rect::new(x, y - top + 2, wide, inner),
            window,
        ];
        let label = [0, 0, label.width, label.height];
        let mut dirty = false;
        for (number, (bar, place)) in frame.bars.iter().zip(places).enumerate() {
            if bar.told == Some(place) {
                continue;
            }
            dirty = true;
            let at = vec![Arg::Int(place.x), Arg::Int(place.y)];
            self.request(bar.subsurface, Interface::Subsurface, "set_position", at)?;
            let size = vec![Arg::Int(place.width.max(1)), Arg::Int(place.height.max(1))];
            self.request(bar.viewport, Interface::Viewport, "set_destination", size)?;
            let (buffer, source) = match number {
                LABEL if fits => (self.own.label, label),
                _ => (self.own.tile, MIDDLE),
            };
            let source = source.map(|it| Arg::Fixed(fixed(it))).into();
            self.request(bar.viewport, Interface::Viewport, "set_source", source)?;
            let attach = vec![Arg::Object(buffer), Arg::Int(0), Arg::Int(0)];
            self.request(bar.surface, Interface::Surface, "attach", attach)?;
            let all = [0, 0, i32::MAX, i32::MAX].map(Arg::Int).into();
            self.request(bar.surface, Interface::Surface, "damage", all)?;
            self.request(bar.surface, Interface::Surface, "commit", Vec::new())?;
            if let Some(frame) = self.surfaces.get_mut(&id).and_then(|it| it.frame.as_mut()) {
                frame.bars[number].told = Some(place);
            }
        }
        Ok(dirty)
    }

    /// Puts the frame on top of everything again, and the ground below.
    pub(crate) fn raise_frame(&mut self, id: u32, order: &[u32]) -> Result<(), Fault> {
        let Some(frame) = self.surfaces.get(&id).and_then(|it| it.frame.clone()) else {
            return Ok(());
        };
        let top = order.last().copied().unwrap_or(id);
        let mut last = self.ids.up(top)?;
        let lowest = self.ids.up(order.first().copied().unwrap_or(id))?;
        let below = vec![Arg::Object(lowest)];
        let ground = frame.bars[GROUND].subsurface;
        self.request(ground, Interface::Subsurface, "place_below", below)?;
        for bar in &frame.bars[..GROUND] {
            let sibling = vec![Arg::Object(last)];
            self.request(bar.subsurface, Interface::Subsurface, "place_above", sibling)?;
            last = bar.surface;
        }
        Ok(())
    }
}
