//! Names of windows: the compartment's comes first, and nothing in the rest can hide or turn it.

use crate::limits;

/// `[name] title` without control characters and without what reorders or hides text.
pub fn title(compartment: &str, title: &str) -> String {
    let title: String = title.chars().filter(|c| is_plain(*c)).take(limits::TITLE).collect();
    match title.trim() {
        "" => format!("[{compartment}]"),
        title => format!("[{compartment}] {title}"),
    }
}

/// `casemate.NAME.ID`, for rules of compositors and for entries of menus.
pub fn app_id(compartment: &str, id: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let id: String = id.chars().filter(plain).take(limits::APP_ID).collect();
    let id = id.trim_matches('.');
    match id {
        "" => format!("casemate.{compartment}.unnamed"),
        id => format!("casemate.{compartment}.{id}"),
    }
}

/// Neither a control character nor one that reorders, joins or hides what stands beside it, nor a
/// mark that stacks on others.
fn is_plain(c: char) -> bool {
    let hidden = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}');
    let stacked = matches!(c,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}');
    !c.is_control() && !hidden && !stacked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_cannot_turn_or_hide_the_name_before_it() {
        let hostile = "\u{202e}gniknab\u{202c} \u{8}\u{8}\r\n\u{1b}[2K\u{2066}x\u{200b}";
        assert_eq!(title("work", hostile), "[work] gniknab [2Kx");
        assert_eq!(title("work", " \u{202e} "), "[work]");
        assert_eq!(title("work", &"x".repeat(5000)).len(), "[work] ".len() + limits::TITLE);
    }

    #[test]
    fn an_app_id_is_of_its_compartment() {
        assert_eq!(app_id("work", "org.mozilla.firefox"), "casemate.work.org.mozilla.firefox");
        assert_eq!(app_id("work", "../../casemate banking\n"), "casemate.work.casematebanking");
        assert_eq!(app_id("work", "..."), "casemate.work.unnamed");
    }
}
