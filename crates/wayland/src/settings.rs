//! What a proxy is told about its compartment.

use crate::label::Label;

/// Settings of one compartment's proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The compartment's name, before each title and in each `app_id`.
    pub name: String,
    /// Red, green and blue of the border.
    pub color: [u8; 3],
    /// What stands in the border.
    pub label: Label,
    /// Fullscreen, inside the border.
    pub allow_fullscreen: bool,
    /// `xdg_activation_v1`: a window may ask for the focus.
    pub allow_activation: bool,
    /// `zwp_pointer_constraints_v1`: a window may hold the pointer.
    pub allow_constraints: bool,
}

/// `RRGGBB` with or without `#`.
pub fn color(text: &str) -> Option<[u8; 3]> {
    let digits = text.strip_prefix('#').unwrap_or(text);
    if digits.len() != 6 || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    let part = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    Some([part(0)?, part(2)?, part(4)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_color_is_six_digits() {
        assert_eq!(color("#ff8000"), Some([255, 128, 0]));
        assert_eq!(color("0a0B0c"), Some([10, 11, 12]));
        for wrong in ["", "red", "#fff", "#ff80001", "+ff800", "#ff800g", "äöü"] {
            assert_eq!(color(wrong), None, "{wrong}");
        }
    }
}
