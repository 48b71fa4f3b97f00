//! Which text of a guest is shown in a menu: a rule of what is allowed, as for names of files, so that
//! nothing in it is invisible, turns the line around, or covers what stands beside it.

use casemate_files::{is_mark, is_shown};

/// Marks that may follow one another. Scripts of India need three; more pile up over other lines.
const MAX_MARKS: u32 = 3;

/// The text without spaces around it, cut to `most` characters. None when there is nothing, or a
/// character in it that no text may have.
pub(crate) fn plain(text: &str, most: usize) -> Option<String> {
    let text = text.trim_matches(' ');
    if !is_plain(text) {
        return None;
    }
    let cut: String = text.chars().take(most).collect();
    let cut = cut.trim_end_matches(' ');
    (!cut.is_empty()).then(|| cut.to_owned())
}

/// Whether a text is as [`plain`] makes it.
pub(crate) fn is_cut(text: &str, most: usize) -> bool {
    plain(text, most).as_deref() == Some(text)
}

fn is_plain(text: &str) -> bool {
    let mut marks = 0;
    text.chars().all(|character| {
        marks = if is_mark(character) { marks + 1 } else { 0 };
        is_shown(character) && marks <= MAX_MARKS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_script_is_shown() {
        for text in
            ["Firefox ESR", "Küche & Co.", "Веб", "متصفح", "हिन्दी", "ブラウザ", "C++ (2)", "50 %"]
        {
            assert_eq!(plain(text, 64).as_deref(), Some(text));
        }
        assert_eq!(plain("  a b ", 64).as_deref(), Some("a b"));
        assert_eq!(plain("a bcd", 2).as_deref(), Some("a"));
        assert_eq!(plain(&"ü".repeat(99), 64).map(|text| text.chars().count()), Some(64));
    }

    #[test]
    fn text_that_hides_turns_or_piles_up_is_not() {
        // The rest of them are tested as names of files, by the same rule.
        for wrong in ['\n', '\u{1b}', '\u{200b}', '\u{202e}', '\u{2800}', '\u{e000}'] {
            assert_eq!(plain(&format!("a{wrong}b"), 64), None, "U+{:04X}", u32::from(wrong));
        }
        assert_eq!(plain(&format!("a{}", "\u{301}".repeat(4)), 64), None);
        assert_eq!(plain("", 64), None);
        assert_eq!(plain("   ", 64), None);
    }
}
