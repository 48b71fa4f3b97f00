//! The desktop file that is written on the host: its words are ours, its texts are those that
//! [`crate::parse`] let through, each behind the compartment's name.

use std::fmt::Write;
use std::path::Path;

use crate::application::{Application, Localized};

/// Key that says whose an entry is; a file without it is somebody else's.
const MARK: &str = "X-Casemate-Compartment";

/// Characters of an `app_id` that the proxy keeps behind the compartment's name.
const APP_ID: usize = 64;

/// One entry.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Whose.
    pub compartment: &'a str,
    /// What.
    pub application: &'a Application,
    /// What starts it: a program and its words, none of them the guest's but the id.
    pub command: &'a [String],
    /// Its picture.
    pub icon: &'a Path,
    /// Its windows have a name that is known before: not those of a fresh disposable.
    pub known_windows: bool,
}

impl Entry<'_> {
    /// Whether an entry can have such a command and picture.
    pub fn can_have(command: &[String], icon: &Path) -> bool {
        command.iter().all(|word| quoted(word).is_some()) && icon.to_str().is_some_and(is_one_line)
    }

    /// The file's content. None when a word of the command or the path of the icon has characters that no
    /// desktop file can have.
    pub fn text(&self) -> Option<String> {
        let Self { compartment, application, .. } = self;
        let mut out = String::from("[Desktop Entry]\nVersion=1.0\nType=Application\n");
        let named = format!("{compartment}: ");
        texts(&mut out, "Name", &named, &application.names);
        texts(&mut out, "GenericName", &named, &application.generic_names);
        texts(&mut out, "Comment", "", &application.comments);
        let words: Option<Vec<String>> = self.command.iter().map(|word| quoted(word)).collect();
        line(&mut out, "Exec", &words?.join(" "));
        line(&mut out, "Icon", self.icon.to_str().filter(|path| is_one_line(path))?);
        line(&mut out, "Terminal", "false");
        if self.known_windows {
            line(&mut out, "StartupWMClass", &app_id(compartment, &application.class));
        }
        line(&mut out, "Categories", &categories(application));
        line(&mut out, MARK, compartment);
        Some(out)
    }
}

fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// A key and its value; what is special in a value is escaped.
fn line(out: &mut String, key: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{key}={}", value.replace('\\', "\\\\"));
}

fn texts(out: &mut String, key: &str, before: &str, texts: &[Localized]) {
    for Localized { locale, text } in texts {
        let key = match locale.as_str() {
            "" => key.to_owned(),
            locale => format!("{key}[{locale}]"),
        };
        line(out, &key, &format!("{before}{text}"));
    }
}

/// A word of a command line, by the rules of the `Exec` key.
fn quoted(word: &str) -> Option<String> {
    if !is_one_line(word) {
        return None;
    }
    let word = word.replace('%', "%%");
    // More than the specification wants: desktops have rules of their own for `[`, `{` or `=`.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+@:,-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Some(word);
    }
    let mut out = String::from("\"");
    for character in word.chars() {
        if matches!(character, '"' | '`' | '$' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
    Some(out)
}

/// The guest's, and one of ours by which desktops may make a menu of their own. Sound and video belong to
/// a category that must be there too.
fn categories(application: &Application) -> String {
    let has = |name: &str| application.categories.iter().any(|one| one == name);
    let mut out = String::new();
    if (has("Audio") || has("Video")) && !has("AudioVideo") {
        out.push_str("AudioVideo;");
    }
    for category in &application.categories {
        out.push_str(category);
        out.push(';');
    }
    out.push_str("X-casemate;");
    out
}

/// What the proxy makes of an `app_id` of a compartment's program.
pub fn app_id(compartment: &str, class: &str) -> String {
    let class: String = class.chars().take(APP_ID).collect();
    match class.trim_matches('.') {
        "" => format!("casemate.{compartment}.unnamed"),
        class => format!("casemate.{compartment}.{class}"),
    }
}

/// Name of an entry's file. Names of compartments have no full stop, so no two have the same.
pub fn file_name(compartment: &str, id: &str) -> String {
    format!("casemate.{compartment}.{id}.desktop")
}

/// Whose entry a file on the host is; none when it is not one of ours.
pub fn compartment_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix(MARK)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn entry(file: &str, command: &[&str], known_windows: bool) -> String {
        let application = parse("org.example.Edit", file.as_bytes()).expect("an application");
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let icon = Path::new("/home/a/.local/share/casemate/menus/bank/org.example.Edit.png");
        let (application, command) = (&application, &command[..]);
        let entry = Entry { compartment: "work", application, command, icon, known_windows };
        entry.text().expect("an entry")
    }

    #[test]
    fn an_entry_has_the_guests_texts_and_our_words() {
        let file = "[Desktop Entry]\nType=Application\nName=Edit\nName[de]=Bearbeiten \\\\ mehr\n\
             GenericName=Editor\nComment=Edits text\nExec=rm -rf ~\nIcon=../../x\nMimeType=text/plain\n\
             Categories=Audio;Evil;TextEditor;\nKeywords=bank;\nPath=/tmp\nDBusActivatable=true\n\
             Actions=x;\nStartupWMClass=Edit or\n\n[Desktop Action x]\nName=X\nExec=x\n";
        let call = ["/usr/bin/casemate", "--config", "/etc/a b%.toml", "call", "work", "x+Edit"];
        assert_eq!(
            entry(file, &call, true),
            "[Desktop Entry]\nVersion=1.0\nType=Application\nName=work: Edit\n\
             Name[de]=work: Bearbeiten \\\\ mehr\nGenericName=work: Editor\nComment=Edits text\n\
             Exec=/usr/bin/casemate --config \"/etc/a b%%.toml\" call work x+Edit\n\
             Icon=/home/a/.local/share/casemate/menus/bank/org.example.Edit.png\nTerminal=false\n\
             StartupWMClass=casemate.work.Editor\nCategories=AudioVideo;Audio;TextEditor;X-casemate;\n\
             X-Casemate-Compartment=work\n"
        );
        let disposable = entry("[Desktop Entry]\nType=Application\nName=E\n", &call, false);
        assert!(!disposable.contains("StartupWMClass"), "{disposable}");
        assert_eq!(compartment_of(&disposable), Some("work"));
        assert_eq!(compartment_of("[Desktop Entry]\nName=X-Casemate-Compartment=work\n"), None);
    }

    #[test]
    fn words_of_a_command_stay_words() {
        for (word, expected) in [
            ("a+b@c:d,e", Some("a+b@c:d,e")),
            ("a=b", Some("\"a=b\"")),
            ("", Some("\"\"")),
            ("100%", Some("\"100%%\"")),
            ("it's", Some("\"it's\"")),
            (r#"a"b`c$d\e"#, Some(r#""a\"b\`c\$d\\e""#)),
            ("a\nExec=b", None),
            ("a\u{85}b", None),
        ] {
            assert_eq!(quoted(word).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn the_class_is_what_the_proxy_calls_the_windows() {
        for id in ["foot", "org.mozilla.firefox", "..x..", "a-b_c", &"y".repeat(100)] {
            assert_eq!(app_id("work", id), casemate_wayland::name::app_id("work", id), "{id}");
        }
        let file = b"[Desktop Entry]\nType=Application\nName=E\nStartupWMClass=../a b\\n;c\n";
        let class = parse("x", file).expect("an application").class;
        let at_the_proxy = casemate_wayland::name::app_id("work", "../a b\\n;c");
        assert_eq!(app_id("work", &class), at_the_proxy);
    }
}
