//! Colours of window borders.

use crate::flaw::Flaw;
use crate::suggest;
use crate::value::css_colors::NAMED;
use crate::value::hash::stable_hash;
use crate::value::text::{quoted, textual};

/// An opaque sRGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Color {
    /// Red.
    pub red: u8,
    /// Green.
    pub green: u8,
    /// Blue.
    pub blue: u8,
}

/// What undeclared colours are chosen from: twelve hues that are told apart at a glance and on
/// which white text can be read.
const PALETTE: [u32; 12] = [
    0x00c6_2828,
    0x00ad_1457,
    0x006a_1b9a,
    0x0045_27a0,
    0x0028_3593,
    0x0015_65c0,
    0x0000_697c,
    0x0000_695c,
    0x002e_7d32,
    0x0055_6b2f,
    0x00a8_4500,
    0x006d_4c41,
];

impl Color {
    pub(crate) const fn from_rgb(rgb: u32) -> Self {
        let [_, red, green, blue] = rgb.to_be_bytes();
        Self { red, green, blue }
    }

    /// The colour of a compartment that declares none.
    pub(crate) fn of_name(name: &str) -> Self {
        let at = stable_hash(&["color", name]) % PALETTE.len() as u64;
        Self::from_rgb(PALETTE[at as usize])
    }
}

impl std::str::FromStr for Color {
    type Err = Flaw;

    /// `#rgb`, `#rrggbb`, or a colour name of CSS Color Module Level 4, in any case.
    fn from_str(text: &str) -> Result<Self, Flaw> {
        if let Some(digits) = text.strip_prefix('#') {
            let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let value = u32::from_str_radix(digits, 16).ok().filter(|_| plain);
            return match (digits.len(), value) {
                (6, Some(rgb)) => Ok(Self::from_rgb(rgb)),
                (3, Some(rgb)) => {
                    let wide = |nibble: u32| ((nibble & 0xf) * 0x11) as u8;
                    Ok(Self { red: wide(rgb >> 8), green: wide(rgb >> 4), blue: wide(rgb) })
                }
                _ => Err(Flaw::new(format!("{} is not a colour", quoted(text))).hint(
                    "three or six hexadecimal digits after the `#`, for example \"#c62828\"",
                )),
            };
        }
        let lower = text.to_ascii_lowercase();
        if let Ok(at) = NAMED.binary_search_by_key(&lower.as_str(), |(name, _)| name) {
            return Ok(Self::from_rgb(NAMED[at].1));
        }
        let flaw = Flaw::new(format!("{} is not a colour", quoted(text)));
        Err(match suggest::nearest(&lower, NAMED.iter().map(|(name, _)| *name)) {
            Some(near) => flaw.hint(format!("did you mean \"{near}\"?")),
            None => flaw.hint("a CSS colour name such as \"steelblue\", or \"#4682b4\""),
        })
    }
}

impl std::fmt::Display for Color {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

textual!(Color, "a CSS colour", Some("^(#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})|[A-Za-z]+)$"), "#c62828");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_readable() {
        assert!(NAMED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!("SteelBlue".parse::<Color>().unwrap().to_string(), "#4682b4");
        assert_eq!("#fa0".parse::<Color>().unwrap().to_string(), "#ffaa00");
    }
}
