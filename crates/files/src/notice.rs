//! A notice for the person at the desktop: a headline and a few lines, as another compartment has
//! worded them.

use crate::limits::MAX_NOTICE;

/// A notice whose text acts on nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its first line.
    pub headline: String,
    /// The rest; may be empty.
    pub text: String,
}

impl Notice {
    /// Takes a notice: its first line is the headline. What is no plain text becomes a visible mark, and
    /// what a desktop would take for markup is written so that it does not.
    pub fn parse(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(MAX_NOTICE)];
        let text = String::from_utf8_lossy(bytes);
        let (headline, text) = text.split_once('\n').unwrap_or((&text, ""));
        let text = plain(text.trim_end(), true);
        // A headline has no markup, by the desktop's specification.
        Self { headline: plain(headline.trim(), false), text }
    }
}

fn plain(text: &str, markup: bool) -> String {
    use unicode_properties::{GeneralCategoryGroup::Other, UnicodeGeneralCategory};
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' if markup => out.push_str("&amp;"),
            '<' if markup => out.push_str("&lt;"),
            '>' if markup => out.push_str("&gt;"),
            '\n' => out.push('\n'),
            '\t' => out.push(' '),
            '\u{2028}' | '\u{2029}' => out.push('\u{fffd}'),
            _ if character.general_category_group() == Other => out.push('\u{fffd}'),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_acts_on_nothing() {
        let notice = Notice::parse(b"Done <now>\nall <b>well</b> & \x1b[2J\xff\n");
        assert_eq!(notice.headline, "Done <now>");
        assert_eq!(notice.text, "all &lt;b&gt;well&lt;/b&gt; &amp; \u{fffd}[2J\u{fffd}");
        let turned = Notice::parse("a\u{202e}b".as_bytes());
        assert_eq!(turned.headline, "a\u{fffd}b");
        assert!(Notice::parse(&[b'x'; 9999]).headline.len() <= MAX_NOTICE);
    }
}
