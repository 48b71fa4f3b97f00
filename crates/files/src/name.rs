//! Which names a file may have when it goes from one compartment to another, and what it is called where
//! its name is taken.
//!
//! A rule of what is allowed, not of what is forbidden: letters, marks, numbers, punctuation and symbols
//! of any script, and the plain space inside. Not allowed is everything a person cannot see or a terminal
//! acts on: control and format characters (those that turn the direction of a line around among them),
//! other spaces, characters that are not assigned or private, and letters without a shape.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::limits::{MAX_NAME, MAX_NUMBER};
use crate::place::STAGING;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or a folder's own names.
    #[error("a name is empty, `.` or `..`")]
    Nothing,
    /// More than [`MAX_NAME`] bytes.
    #[error("a name is longer than {MAX_NAME} bytes")]
    Long,
    /// Not UTF-8.
    #[error("a name is not UTF-8")]
    Encoding,
    /// A character that no name may have.
    #[error("the character U+{0:04X} is not allowed in the name of a file")]
    Character(u32),
    /// A space at the end hides what an ending is, a dash in front makes an option of a name.
    #[error("a name begins with `-` or a space, or ends with a space")]
    Edge,
    /// Names of this casemate's own.
    #[error("a name begins with `{STAGING}`")]
    Reserved,
}

/// Checks a name.
///
/// # Errors
/// See [`NameError`].
pub fn check(bytes: &[u8]) -> Result<&str, NameError> {
    if bytes.len() > MAX_NAME {
        return Err(NameError::Long);
    }
    let name = std::str::from_utf8(bytes).map_err(|_| NameError::Encoding)?;
    if matches!(name, "" | "." | "..") {
        return Err(NameError::Nothing);
    }
    if let Some(wrong) = name.chars().find(|character| !is_allowed(*character)) {
        return Err(NameError::Character(wrong.into()));
    }
    if name.starts_with(['-', ' ']) || name.ends_with(' ') {
        return Err(NameError::Edge);
    }
    if name.starts_with(STAGING) {
        return Err(NameError::Reserved);
    }
    Ok(name)
}

fn is_allowed(character: char) -> bool {
    character != '/' && is_shown(character)
}

/// Whether a person sees a character and no terminal acts on it: letters, marks, numbers, punctuation and
/// symbols of any script that have a shape, and the plain space.
pub fn is_shown(character: char) -> bool {
    use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
    match character {
        ' '..='~' => true,
        _ if is_shapeless(character) => false,
        _ => matches!(
            character.general_category_group(),
            Letter | Mark | Number | Punctuation | Symbol
        ),
    }
}

/// Whether it is put over or under the one before it.
pub fn is_mark(character: char) -> bool {
    character.general_category_group() == GeneralCategoryGroup::Mark
}

/// Letters, marks and symbols that show nothing: of `Default_Ignorable_Code_Point`, what is not in the
/// categories that are refused anyway, and the empty pattern of Braille.
fn is_shapeless(character: char) -> bool {
    matches!(character,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
        | '\u{e0100}'..='\u{e01ef}')
}

/// The name with a number before its ending: `report (2).pdf`. The first is the name itself; none when
/// the numbers have run out.
pub fn numbered(name: &str, number: u32) -> Option<String> {
    match number {
        1 => return Some(name.to_owned()),
        2..=MAX_NUMBER => {}
        _ => return None,
    }
    let (mut stem, ending) = match name.rfind('.') {
        // What begins with a full stop has no ending, and a long one is none.
        Some(at) if at > 0 && name.len() - at <= 16 => name.split_at(at),
        _ => (name, ""),
    };
    let number = format!(" ({number})");
    while stem.len() + number.len() + ending.len() > MAX_NAME {
        let (last, _) = stem.char_indices().next_back()?;
        stem = &stem[..last];
    }
    Some([stem.trim_end(), &number, ending].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_are_allowed() {
        for name in [
            "report.pdf",
            ".profile",
            "a b",
            "~x",
            "Müller & Söhne (2).txt",
            "u\u{308}ber",
            "отчёт",
            "報告書。",
            "تقرير",
            "हिन्दी",
            "🙂.png",
            "100 €",
            "50%",
            "a:b",
            "a\\b",
            "#",
            "a'b\"c",
        ] {
            assert_eq!(check(name.as_bytes()), Ok(name));
        }
    }

    #[test]
    fn what_leads_elsewhere_hides_or_acts_is_refused() {
        for name in ["", ".", ".."] {
            assert_eq!(check(name.as_bytes()), Err(NameError::Nothing));
        }
        for wrong in [
            '/',
            '\0',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{a0}',
            '\u{ad}',
            '\u{61c}',
            '\u{115f}',
            '\u{200b}',
            '\u{200d}',
            '\u{202e}',
            '\u{2028}',
            '\u{2066}',
            '\u{2800}',
            '\u{3000}',
            '\u{e000}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{e0041}',
            '\u{10ffff}',
            '\u{378}',
        ] {
            let name = format!("a{wrong}b");
            assert_eq!(check(name.as_bytes()), Err(NameError::Character(wrong.into())));
        }
        for name in ["-rf", " a", "a "] {
            assert_eq!(check(name.as_bytes()), Err(NameError::Edge));
        }
        assert_eq!(check(b"a\xff"), Err(NameError::Encoding));
        assert_eq!(check(&[b'a'; 256]), Err(NameError::Long));
        assert_eq!(check(b".incoming-1"), Err(NameError::Reserved));
    }

    #[test]
    fn a_number_stands_before_the_ending() {
        let third = |name| numbered(name, 3).expect("there is one");
        assert_eq!(numbered("a.pdf", 1).as_deref(), Some("a.pdf"));
        assert_eq!(third("a.pdf"), "a (3).pdf");
        assert_eq!(third(".profile"), ".profile (3)");
        assert_eq!(third("a.tar.gz"), "a.tar (3).gz");
        assert_eq!(third("folder"), "folder (3)");
        assert_eq!(numbered("a", MAX_NUMBER + 1), None);
        let long = "ü".repeat(125) + ".pdf";
        let name = third(&long);
        assert!(name.len() <= MAX_NAME && name.ends_with(" (3).pdf"), "{name}");
        assert!(check(name.as_bytes()).is_ok());
    }
}
