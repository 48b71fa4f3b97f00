//! Making guest text harmless before a person sees it.
//!
//! A terminal obeys escape sequences, and a reader obeys what bidirectional marks make of a line;
//! so text that a guest wrote is shown with every such character replaced by a visible escape.
//! Only an interactive terminal session passes bytes through untouched.

use std::fmt::Write;

/// `text` with control characters (other than newline and tab), bidirectional and other invisible
/// format characters written as `\u{…}`, cut at `limit` bytes.
pub fn harmless(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        if out.len() >= limit {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\t' => out.push(c),
            _ if c.is_control() || is_invisible(c) => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            _ => out.push(c),
        }
    }
    out
}

/// [`harmless`] on one line: line breaks and tabs are made visible too.
pub fn harmless_line(text: &str, limit: usize) -> String {
    harmless(text, limit).replace('\n', "\\n").replace('\t', "\\t")
}

/// [`harmless`] for bytes of unknown encoding.
pub fn harmless_bytes(bytes: &[u8], limit: usize) -> String {
    harmless(&String::from_utf8_lossy(bytes), limit)
}

/// Format characters (Unicode general category Cf) and the line and paragraph separators: they
/// reorder, join or hide what stands beside them.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}')
}
