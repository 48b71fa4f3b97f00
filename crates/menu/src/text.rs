//! Which text of a guest is shown in a menu: a rule of what is allowed, as for names of files, so that
//! nothing in it is invisible, turns the line around, or covers what stands beside it.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

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
        use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
        let group = character.general_category_group();
        marks = if group == Mark { marks + 1 } else { 0 };
        match character {
            ' '..='~' => true,
            _ if is_shapeless(character) => false,
            _ => {
                matches!(group, Letter | Mark | Number | Punctuation | Symbol) && marks <= MAX_MARKS
            }
        }
    })
}

/// Letters, marks and symbols that show nothing: of `Default_Ignorable_Code_Point`, what is not in the
/// categories that are refused anyway, and the empty pattern of Braille.
fn is_shapeless(character: char) -> bool {
    matches!(character,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
        | '\u{e0100}'..='\u{e01ef}')
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
        for wrong in [
            '\0',
            '\n',
            '\r',
            '\t',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{a0}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{200f}',
            '\u{202e}',
            '\u{2028}',
            '\u{2066}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{e000}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            assert_eq!(plain(&format!("a{wrong}b"), 64), None, "U+{:04X}", u32::from(wrong));
        }
        assert_eq!(plain(&format!("a{}", "\u{301}".repeat(4)), 64), None);
        assert_eq!(plain("", 64), None);
        assert_eq!(plain("   ", 64), None);
    }
}
