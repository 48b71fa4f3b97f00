//! Rectangles of surfaces. Coordinates are cut to [`limits::COORDINATE`], so that sums of a tree of
//! surfaces stay within 32 bits.

use crate::limits;

/// A rectangle: left, top, width, height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) x: i32,
    pub(crate) y: i32,
    pub(crate) width: i32,
    pub(crate) height: i32,
}

impl Rect {
    pub(crate) fn new(x: i32, y: i32, width: i32, height: i32) -> Self {
        Self { x, y, width, height }
    }

    /// From (0, 0).
    pub(crate) fn of(size: (i32, i32)) -> Self {
        Self::new(0, 0, size.0, size.1)
    }

    /// With coordinates and lengths that can be summed up.
    pub(crate) fn bounded(self) -> Self {
        let length = |value: i32| value.clamp(0, limits::COORDINATE);
        Self::new(bounded(self.x), bounded(self.y), length(self.width), length(self.height))
    }

    /// What both cover.
    pub(crate) fn intersection(self, other: Self) -> Option<Self> {
        let x = self.x.max(other.x);
        let y = self.y.max(other.y);
        let right = (self.x.saturating_add(self.width)).min(other.x.saturating_add(other.width));
        let bottom = (self.y.saturating_add(self.height)).min(other.y.saturating_add(other.height));
        let (width, height) = (right.saturating_sub(x), bottom.saturating_sub(y));
        (width > 0 && height > 0).then_some(Self { x, y, width, height })
    }

    /// The smallest that covers both.
    pub(crate) fn union(self, other: Self) -> Self {
        let x = self.x.min(other.x);
        let y = self.y.min(other.y);
        let right = (self.x.saturating_add(self.width)).max(other.x.saturating_add(other.width));
        let bottom = (self.y.saturating_add(self.height)).max(other.y.saturating_add(other.height));
        Self { x, y, width: right.saturating_sub(x), height: bottom.saturating_sub(y) }
    }

    /// Moved.
    pub(crate) fn shifted(self, x: i32, y: i32) -> Self {
        Self { x: self.x.saturating_add(x), y: self.y.saturating_add(y), ..self }
    }
}

/// A coordinate that can be summed up.
pub(crate) fn bounded(value: i32) -> i32 {
    value.clamp(-limits::COORDINATE, limits::COORDINATE)
}

/// A whole number as one of 1/256; as far as that goes.
pub(crate) fn fixed(value: i32) -> i32 {
    value.saturating_mul(256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_touch_has_no_intersection() {
        let a = Rect::new(0, 0, 10, 10);
        assert_eq!(a.intersection(Rect::new(10, 0, 5, 5)), None);
        assert_eq!(a.intersection(Rect::new(-5, -5, 6, 20)), Some(Rect::new(0, 0, 1, 10)));
        assert_eq!(a.union(Rect::new(-5, 2, 1, 20)), Rect::new(-5, 0, 15, 22));
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let all = Rect::new(i32::MIN, i32::MIN, i32::MAX, i32::MAX);
        let end = Rect::new(i32::MAX, i32::MAX, i32::MAX, i32::MAX);
        assert_eq!(all.intersection(end), None);
        let _ = all.union(end).shifted(i32::MIN, i32::MIN).bounded();
    }
}
