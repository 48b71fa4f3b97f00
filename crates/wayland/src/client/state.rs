//! What a client has said about a surface and not committed, or committed and not yet had applied.
//!
//! The proxy keeps it and tells the compositor at the moment it takes effect. So it can commit a
//! surface of its own accord, to cut it anew, and nothing half-said becomes visible.

use std::rc::Rc;

use super::region::Part;
use crate::geometry::Rect;
use crate::limits;

/// A buffer at the time it was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// The client's id.
    pub(crate) id: u32,
    /// Of the buffer ([`super::shm::Buffer`]): ids are used again.
    pub(crate) number: u64,
    /// The compositor's id.
    pub(crate) up: u32,
    pub(crate) width: i32,
    pub(crate) height: i32,
}

/// A region of a surface: none is everything.
pub(crate) type Area = Option<Rc<Vec<Part>>>;

/// Changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) committed: bool,
    pub(crate) buffer: Option<Option<Attached>>,
    /// Movement of what is dragged, against the pointer.
    pub(crate) offset: (i32, i32),
    pub(crate) damage: Vec<Rect>,
    pub(crate) damage_buffer: Vec<Rect>,
    pub(crate) frames: Vec<u32>,
    pub(crate) feedbacks: Vec<u32>,
    pub(crate) opaque: Option<Area>,
    pub(crate) input: Option<Area>,
    pub(crate) transform: Option<i32>,
    pub(crate) scale: Option<i32>,
    /// In 1/256.
    pub(crate) source: Option<Option<[i32; 4]>>,
    pub(crate) destination: Option<Option<(i32, i32)>>,
    pub(crate) geometry: Option<Rect>,
    pub(crate) least: Option<(i32, i32)>,
    pub(crate) most: Option<(i32, i32)>,
    pub(crate) acknowledged: Option<u32>,
}

impl State {
    /// Adds later changes. Returns the buffer that no longer counts.
    pub(crate) fn merge(&mut self, later: Self) -> Option<Attached> {
        self.committed |= later.committed;
        self.offset.0 = self.offset.0.saturating_add(later.offset.0);
        self.offset.1 = self.offset.1.saturating_add(later.offset.1);
        add_damage(&mut self.damage, later.damage);
        add_damage(&mut self.damage_buffer, later.damage_buffer);
        self.frames.extend(later.frames);
        self.feedbacks.extend(later.feedbacks);
        replace(&mut self.opaque, later.opaque);
        replace(&mut self.input, later.input);
        replace(&mut self.transform, later.transform);
        replace(&mut self.scale, later.scale);
        replace(&mut self.source, later.source);
        replace(&mut self.destination, later.destination);
        replace(&mut self.geometry, later.geometry);
        replace(&mut self.least, later.least);
        replace(&mut self.most, later.most);
        replace(&mut self.acknowledged, later.acknowledged);
        let later = later.buffer?;
        let before = self.buffer.replace(later).flatten();
        before.filter(|before| later.is_none_or(|later| later.number != before.number))
    }

    /// Whether this buffer is among the changes.
    pub(crate) fn uses(&self, buffer: u32) -> bool {
        self.buffer.flatten().is_some_and(|it| it.id == buffer)
    }
}

fn replace<T>(old: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *old = new;
    }
}

/// Damage that is too finely told is everything.
pub(crate) fn add_damage(damage: &mut Vec<Rect>, more: Vec<Rect>) {
    damage.extend(more);
    if damage.len() > limits::DAMAGE {
        *damage = vec![Rect::new(0, 0, i32::MAX, i32::MAX)];
    }
}
