//! Pictures of the desktop and questions about them.

use std::collections::BTreeMap;

/// A picture, pixel by pixel.
#[derive(PartialEq, Eq)]
pub struct Picture {
    pub width: i32,
    pub height: i32,
    pixels: Vec<[u8; 3]>,
}

/// Left, top, right, bottom; right and bottom lie outside.
pub type Bounds = (i32, i32, i32, i32);

impl Picture {
    /// Reads a binary PPM.
    pub fn read(bytes: &[u8]) -> Self {
        let mut parts = bytes.splitn(4, |byte| byte.is_ascii_whitespace());
        assert_eq!(parts.next(), Some(&b"P6"[..]));
        let mut number = || {
            let text = std::str::from_utf8(parts.next().expect("a number")).expect("text");
            text.parse::<i32>().expect("a number")
        };
        let (width, height) = (number(), number());
        let rest = parts.next().expect("pixels");
        let rest = rest.strip_prefix(b"255\n").expect("eight bits");
        let pixels = rest.as_chunks::<3>().0.to_vec();
        assert_eq!(pixels.len(), (width * height) as usize);
        Self { width, height, pixels }
    }

    pub fn at(&self, x: i32, y: i32) -> [u8; 3] {
        self.pixels[(y * self.width + x) as usize]
    }

    /// Pixels of a color.
    pub fn count(&self, color: [u8; 3]) -> usize {
        self.pixels.iter().filter(|it| **it == color).count()
    }

    /// The smallest rectangle with all pixels of a color in it.
    pub fn bounds(&self, color: [u8; 3]) -> Option<Bounds> {
        self.bounds_where(|it| it == color)
    }

    /// The smallest rectangle with all pixels in it that are not of a color.
    pub fn bounds_without(&self, color: [u8; 3]) -> Option<Bounds> {
        self.bounds_where(|it| it != color)
    }

    fn bounds_where(&self, wanted: impl Fn([u8; 3]) -> bool) -> Option<Bounds> {
        let mut found: Option<Bounds> = None;
        for y in 0..self.height {
            for x in 0..self.width {
                if wanted(self.at(x, y)) {
                    let (left, top, right, bottom) = found.unwrap_or((x, y, x, y));
                    found = Some((left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)));
                }
            }
        }
        found
    }

    /// Whether all of a rectangle is of a color.
    pub fn is_filled(&self, (left, top, right, bottom): Bounds, color: [u8; 3]) -> bool {
        (top..bottom).all(|y| (left..right).all(|x| self.at(x, y) == color))
    }

    /// Colors and how often, for messages.
    pub fn colors(&self) -> BTreeMap<[u8; 3], usize> {
        let mut colors = BTreeMap::new();
        for pixel in &self.pixels {
            *colors.entry(*pixel).or_default() += 1;
        }
        colors
    }
}
