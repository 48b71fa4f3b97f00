//! What of a tree of surfaces is shown, and where: everything of a window lies in its geometry, of a
//! cursor in 128×128.

use std::collections::BTreeMap;

use super::Client;
use super::frame::WINDOW;
use super::surface::{Role, Surface};
use crate::geometry::Rect;
use crate::limits;

/// Where a surface is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Its origin in the root's coordinates.
    pub(crate) at: (i32, i32),
    /// What is shown of it, in its own coordinates.
    pub(crate) shown: Option<Rect>,
}

/// A tree of surfaces.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) placed: BTreeMap<u32, Placed>,
    /// The window, in the root's coordinates.
    pub(crate) window: Rect,
}

impl Surface {
    /// Width and height, when it has content.
    pub(crate) fn size(&self) -> Option<(i32, i32)> {
        let (width, height) = self.buffer_size()?;
        match (self.now.destination, self.now.source) {
            (Some(size), _) => Some(size),
            // Whole numbers of 1/256, else the client would be told off; up is safe: it is cut.
            (None, Some([_, _, w, h])) => Some(((w + 255) / 256, (h + 255) / 256)),
            (None, None) => Some((width, height)),
        }
    }

    /// Width and height of its buffer, turned and scaled.
    pub(crate) fn buffer_size(&self) -> Option<(i32, i32)> {
        let buffer = self.now.buffer?;
        // 1, 3, 5 and 7 turn by a quarter.
        let (width, height) = match self.now.transform % 2 {
            0 => (buffer.width, buffer.height),
            _ => (buffer.height, buffer.width),
        };
        Some(((width / self.now.scale).max(1), (height / self.now.scale).max(1)))
    }
}

impl Client {
    /// Lays out the tree of `root`.
    pub(crate) fn layout(&self, root: u32) -> Layout {
        let mut placed = BTreeMap::new();
        self.place(root, (0, 0), &mut placed);
        let Some(surface) = self.surfaces.get(&root) else { return Layout::default() };
        let Some(own) = surface.size().map(Rect::of) else {
            return Layout { placed, window: Rect::default() };
        };
        let window = match surface.role {
            Role::Xdg(xdg) => self.window(root, xdg, own, &placed),
            Role::Cursor => square(own, limits::CURSOR_SIDE),
            Role::DragIcon => square(own, limits::DRAG_ICON_SIDE),
            Role::None | Role::Sub(_) => own,
        };
        for (id, place) in &mut placed {
            let size = self.surfaces.get(id).and_then(Surface::size);
            let window = window.shifted(-place.at.0, -place.at.1);
            place.shown = size.and_then(|size| Rect::of(size).intersection(window));
        }
        Layout { placed, window }
    }

    /// Coordinates are bounded and trees are of limited depth: sums fit.
    fn place(&self, id: u32, at: (i32, i32), placed: &mut BTreeMap<u32, Placed>) {
        let Some(surface) = self.surfaces.get(&id) else { return };
        placed.insert(id, Placed { at, shown: None });
        for child in surface.order.iter().filter(|child| **child != id) {
            if let Some(Role::Sub(sub)) = self.surfaces.get(child).map(|it| it.role) {
                self.place(*child, (at.0 + sub.at.0, at.1 + sub.at.1), placed);
            }
        }
    }

    /// The geometry that counts: what was declared, as far as there are surfaces, and no larger than
    /// the screen, or than the compositor wants it where that is not the client's to choose.
    fn window(&self, root: u32, xdg: u32, own: Rect, placed: &BTreeMap<u32, Placed>) -> Rect {
        let most = self.xdg.get(&xdg).and_then(|it| it.most);
        let largest = self.largest(root, self.edges(xdg).unwrap_or(WINDOW), most.is_some());
        let declared = self.surfaces.get(&root).and_then(|it| it.now.geometry);
        let extents = placed.iter().filter_map(|(id, place)| {
            let size = self.surfaces.get(id)?.size()?;
            Some(Rect::of(size).shifted(place.at.0, place.at.1))
        });
        let all = extents.fold(own, Rect::union);
        let window = declared.and_then(|it| it.bounded().intersection(all)).unwrap_or(own);
        let cut = |window: Rect| {
            let (width, height) = most.unwrap_or(largest);
            let (width, height) = (width.min(largest.0), height.min(largest.1));
            let (width, height) = (window.width.min(width), window.height.min(height));
            Rect { width, height, ..window }
        };
        let window = cut(window);
        // The root has to show something, or nothing of the window is shown.
        if window.intersection(own).is_some() { window } else { cut(own) }
    }
}

fn square(own: Rect, side: i32) -> Rect {
    own.intersection(Rect::new(0, 0, side, side)).unwrap_or(own)
}
