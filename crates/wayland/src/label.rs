//! The label as pixels: text on the border's color, drawn once.
//!
//! It is drawn at twice the size it is usually shown at and scaled by the compositor, so it is sharp
//! on an output of scale 2 and even on one of 1.5. Nothing is read to draw it: the font is compiled
//! in.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// Characters of a label.
pub const LONGEST: usize = 40;

/// Pixels left and right of the text.
const MARGIN: usize = 8;

const WEIGHT: FontWeight = FontWeight::Bold;
const HEIGHT: RasterHeight = RasterHeight::Size32;

/// Pixels as `wl_shm` has them: four bytes each, ARGB in the machine's order.
#[derive(Clone, Debug)]
pub struct Label {
    /// In pixels.
    pub width: i32,
    /// In pixels.
    pub height: i32,
    /// Line by line from the top.
    pub pixels: Vec<u8>,
}

impl Label {
    /// Draws `text` on `color`, black or white, whichever can be read on it. What the font does not
    /// have, and what is no character to see, is a question mark.
    pub fn draw(text: &str, color: [u8; 3]) -> Self {
        let text: Vec<char> = text.chars().take(LONGEST).collect();
        let (advance, height) = (get_raster_width(WEIGHT, HEIGHT), HEIGHT.val());
        let width = text.len() * advance + 2 * MARGIN;
        let ink = ink(color);
        let mut pixels = vec![pixel(color, ink, 0); width * height];
        for (number, &c) in text.iter().enumerate() {
            let glyph = get_raster(c, WEIGHT, HEIGHT).or_else(|| get_raster('?', WEIGHT, HEIGHT));
            let Some(glyph) = glyph else { continue };
            let left = MARGIN + number * advance;
            for (y, line) in glyph.rows().enumerate().take(height) {
                for (x, &strength) in line.iter().enumerate().take(advance) {
                    pixels[y * width + left + x] = pixel(color, ink, strength);
                }
            }
        }
        let pixels = pixels.iter().flat_map(|it| it.to_ne_bytes()).collect();
        // At most 40 characters of 32 pixels.
        Self { width: width as i32, height: height as i32, pixels }
    }
}

/// Black or white: by the brightness of the color (ITU-R BT.601).
fn ink([r, g, b]: [u8; 3]) -> u8 {
    let brightness = 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b);
    if brightness > 140_000 { 0 } else { 255 }
}

fn pixel(color: [u8; 3], ink: u8, strength: u8) -> u32 {
    let [r, g, b] = color.map(|channel| {
        let strength = u32::from(strength);
        let mixed = u32::from(channel) * (255 - strength) + u32::from(ink) * strength;
        (mixed / 255) as u8
    });
    u32::from_be_bytes([0xff, r, g, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_text_on_the_border_s_color() {
        let label = Label::draw("banking", [0xcc, 0, 0]);
        assert_eq!(label.pixels.len(), (label.width * label.height * 4) as usize);
        let (pixels, _) = label.pixels.as_chunks::<4>();
        let colors: Vec<u32> = pixels.iter().map(|it| u32::from_ne_bytes(*it)).collect();
        assert_eq!(colors[0], 0xffcc_0000, "the corner");
        assert!(colors.contains(&0xffff_ffff), "white on dark red");
        let other = Label::draw("bankinG", [0xcc, 0, 0]);
        assert_ne!(label.pixels, other.pixels);
    }

    #[test]
    fn what_cannot_be_drawn_is_a_question_mark() {
        let color = [255; 3];
        assert_eq!(Label::draw("a\u{202e}世", color).pixels, Label::draw("a??", color).pixels);
        let long = Label::draw(&"x".repeat(1000), color);
        assert_eq!(long.pixels, Label::draw(&"x".repeat(LONGEST), color).pixels);
    }
}
