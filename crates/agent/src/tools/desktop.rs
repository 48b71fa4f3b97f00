//! Desktop files: finding an application by its id, and its command line, by the desktop entry
//! specification (1.5). No shell is involved.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ToolError;

/// Longest desktop file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Longest id, in bytes.
const MAX_ID: usize = 128;

/// What is used of a desktop file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    file: PathBuf,
    exec: String,
    name: String,
    icon: String,
    folder: Option<String>,
    terminal: bool,
    try_exec: Option<String>,
}

/// Folders of data, the user's own first.
pub(super) fn data_folders() -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".local/share")));
    let shared = std::env::var("XDG_DATA_DIRS").unwrap_or_default();
    let shared = match shared.is_empty() {
        true => "/usr/local/share:/usr/share:/var/lib/flatpak/exports/share",
        false => &shared,
    };
    let shared = shared.split(':').map(PathBuf::from);
    let flatpak = own.as_ref().map(|own| own.join("flatpak/exports/share"));
    let own = own.into_iter().chain(flatpak);
    own.chain(shared).filter(|path| path.is_absolute()).collect()
}

/// The application with this id: the name of its file without `.desktop`.
pub(super) fn find(id: &str) -> Result<Entry, ToolError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    if id.is_empty() || id.len() > MAX_ID || id.starts_with('.') || !id.bytes().all(allowed) {
        return Err(ToolError::Failed(format!("{id:?} is no name of an application")));
    }
    for folder in data_folders() {
        let file = folder.join("applications").join(format!("{id}.desktop"));
        let Ok(opened) = fs::File::open(&file) else { continue };
        let mut text = String::new();
        if opened.take(MAX_FILE).read_to_string(&mut text).is_ok() {
            // The first that is there counts, also to hide those behind it.
            return parse(&text, file);
        }
    }
    Err(ToolError::Failed(format!("there is no application {id}")))
}

pub(super) fn parse(text: &str, file: PathBuf) -> Result<Entry, ToolError> {
    let mut entry = Entry { file, ..Entry::default() };
    let (mut inside, mut hidden, mut kind) = (false, false, String::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[Desktop Entry]";
        } else if inside && let Some((key, value)) = line.split_once('=') {
            let value = unescape(value.trim_start());
            match key.trim_end() {
                "Type" => kind = value,
                "Exec" => entry.exec = value,
                "Name" => entry.name = value,
                "Icon" => entry.icon = value,
                "Path" if !value.is_empty() => entry.folder = Some(value),
                "TryExec" if !value.is_empty() => entry.try_exec = Some(value),
                "Terminal" => entry.terminal = value == "true",
                "Hidden" => hidden = value == "true",
                _ => {}
            }
        }
    }
    if kind != "Application" || hidden || entry.exec.is_empty() {
        let file = entry.file.display();
        return Err(ToolError::Failed(format!("{file} is of no application that can be started")));
    }
    Ok(entry)
}

/// `\s`, `\n`, `\t`, `\r` and `\\` in a value.
fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('s') => out.push(' '),
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('\\') => out.push('\\'),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            (other, false) => out.push(other),
        }
    }
    out
}

/// Splits a command line: words between blanks, or in double quotes, where a backslash stands before
/// `"`, `` ` ``, `$` and itself.
fn split(exec: &str) -> Option<Vec<(String, bool)>> {
    let mut words = Vec::new();
    let mut characters = exec.chars().peekable();
    loop {
        while characters.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        let Some(&first) = characters.peek() else { return Some(words) };
        let mut word = String::new();
        if first == '"' {
            characters.next();
            loop {
                match characters.next()? {
                    '"' => break,
                    '\\' => word.push(characters.next().filter(|c| "\"`$\\".contains(*c))?),
                    other => word.push(other),
                }
            }
        } else {
            while let Some(character) = characters.next_if(|c| *c != ' ' && *c != '\t') {
                if "\"'\\<>~|&;$*?#()`".contains(character) && !word.is_empty() && character == '"'
                {
                    return None;
                }
                word.push(character);
            }
        }
        words.push((word, first == '"'));
    }
}

impl Entry {
    /// What has to be there for it to be shown.
    pub(super) fn try_exec(&self) -> Option<&str> {
        self.try_exec.as_deref()
    }

    /// Name or path of its picture; may be empty.
    pub(super) fn icon(&self) -> &str {
        &self.icon
    }

    /// The command line, for a file or an address if there is one. One that takes none gets it as its
    /// last word.
    pub(super) fn command(&self, argument: Option<&str>) -> Result<Command, ToolError> {
        let wrong = || ToolError::Failed(format!("{} has no sound Exec", self.file.display()));
        if self.terminal {
            let file = self.file.display();
            return Err(ToolError::Failed(format!("{file} wants a terminal; there is none")));
        }
        let words = self.words(argument).ok_or_else(wrong)?;
        let (program, arguments) = words.split_first().ok_or_else(wrong)?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        Ok(command)
    }

    fn words(&self, argument: Option<&str>) -> Option<Vec<String>> {
        let mut out = Vec::new();
        let mut given = argument.is_none();
        for (word, quoted) in split(&self.exec)? {
            match word.as_str() {
                "%f" | "%F" | "%u" | "%U" if !quoted => {
                    out.extend(argument.filter(|_| !given).map(str::to_owned));
                    given = true;
                }
                "%i" if !quoted => {
                    if !self.icon.is_empty() {
                        out.extend(["--icon".to_owned(), self.icon.clone()]);
                    }
                }
                // Out of use for long.
                "%d" | "%D" | "%n" | "%N" | "%v" | "%m" if !quoted => {}
                _ => out.push(self.expand(&word, argument, &mut given)?),
            }
        }
        if out.is_empty() {
            return None;
        }
        out.extend(argument.filter(|_| !given).map(str::to_owned));
        Some(out)
    }

    /// Field codes within a word.
    fn expand(&self, word: &str, argument: Option<&str>, given: &mut bool) -> Option<String> {
        let mut out = String::new();
        let mut characters = word.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            match characters.next()? {
                '%' => out.push('%'),
                'c' => out.push_str(&self.name),
                'k' => out.push_str(&self.file.to_string_lossy()),
                'f' | 'u' => {
                    out.push_str(argument.unwrap_or(""));
                    *given = true;
                }
                _ => return None,
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(exec: &str, argument: Option<&str>) -> Option<Vec<String>> {
        let text = format!(
            "[Desktop Entry]\nType=Application\nName=Edi tor\nIcon=e\nExec={exec}\n\
             [Desktop Action x]\nExec=other\n"
        );
        parse(&text, "/x.desktop".into()).ok()?.words(argument)
    }

    #[test]
    fn a_command_line_is_split_as_the_specification_says() {
        let file = Some("/tmp/a b.txt");
        for (exec, expected) in [
            ("edit %f", vec!["edit", "/tmp/a b.txt"]),
            ("edit --new %U --x", vec!["edit", "--new", "/tmp/a b.txt", "--x"]),
            ("edit", vec!["edit", "/tmp/a b.txt"]),
            ("edit --at=%f", vec!["edit", "--at=/tmp/a b.txt"]),
            (
                r#""/opt/my edit" %i "%c" 100%%"#,
                vec!["/opt/my edit", "--icon", "e", "Edi tor", "100%", "/tmp/a b.txt"],
            ),
            (
                r#"sh -c "echo \\$HOME; \\"x\\"" %f"#,
                vec!["sh", "-c", "echo $HOME; \"x\"", "/tmp/a b.txt"],
            ),
            ("env A=b  edit %F %F", vec!["env", "A=b", "edit", "/tmp/a b.txt"]),
        ] {
            let found = words(exec, file);
            assert_eq!(found.as_deref(), Some(&expected.map_owned()[..]), "{exec}");
        }
        assert_eq!(words("edit %f", None), Some(vec!["edit".into()]));
        for wrong in ["edit \"open", "edit %z", "edit %", r#""a\\x""#] {
            assert_eq!(words(wrong, file), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_application_is_not_started() {
        for text in [
            "[Desktop Entry]\nType=Link\nExec=x\n",
            "[Desktop Entry]\nType=Application\nExec=x\nHidden=true\n",
            "[Desktop Entry]\nType=Application\n",
            "Type=Application\nExec=x\n",
        ] {
            assert!(parse(text, "/x".into()).is_err(), "{text}");
        }
        for id in ["", "../x", "a/b", ".hidden", "a b", &"a".repeat(200)] {
            assert!(find(id).is_err(), "{id}");
        }
        let terminal = "[Desktop Entry]\nType=Application\nExec=x\nTerminal=true\n";
        assert!(parse(terminal, "/x".into()).expect("an entry").command(None).is_err());
    }

    /// Words as owned strings.
    trait Owned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl Owned for Vec<&str> {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|word| (*word).to_owned()).collect()
        }
    }
}
