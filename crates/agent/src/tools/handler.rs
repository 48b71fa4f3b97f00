//! With what this guest opens a file or an address: what its desktop has set for the type, else
//! `xdg-open`.
//!
//! Of the specifications (shared-mime-info, mime-apps) this is the part that needs no library: a type by
//! the ending of a name, and the first application that is set for it and there.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{ToolError, desktop};

/// Longest of the desktop's own tables that is read, in bytes.
const MAX_TABLE: u64 = 4 * 1024 * 1024;

/// Opens a file and waits until whoever shows it has ended.
pub(super) fn open_file(path: &Path) -> Result<(), ToolError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let tables = desktop::data_folders().into_iter().map(|folder| folder.join("mime/globs2"));
    let kind = tables.filter_map(|table| kind_of(&read(&table)?, name)).next();
    let argument = path.to_str().ok_or(ToolError::Failed("the name is no text".into()))?;
    open(kind.as_deref(), argument)
}

/// Opens an address that was checked. What `$BROWSER` names comes first.
pub(super) fn open_url(address: &str) -> Result<(), ToolError> {
    let browser = std::env::var_os("BROWSER").filter(|name| {
        // Not itself: an address that goes on to the next would go round.
        !name.is_empty() && Path::new(name).file_name().is_some_and(|n| n != "casemate-open-url")
    });
    if let Some(browser) = browser {
        let mut command = Command::new(browser);
        command.arg(address);
        return run(command);
    }
    let scheme = address.split(':').next().unwrap_or("https").to_ascii_lowercase();
    open(Some(&format!("x-scheme-handler/{scheme}")), address)
}

fn open(kind: Option<&str>, argument: &str) -> Result<(), ToolError> {
    for id in kind.map(applications).unwrap_or_default() {
        if let Ok(entry) = desktop::find(&id) {
            return run(entry.command(Some(argument))?);
        }
    }
    let mut command = Command::new("xdg-open");
    command.arg(argument);
    run(command).map_err(|error| match error {
        ToolError::Failed(why) => ToolError::Failed(format!(
            "nothing here opens {}: {why}",
            kind.unwrap_or("files of this kind")
        )),
        other => other,
    })
}

fn run(mut command: Command) -> Result<(), ToolError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match command.status() {
        // How it ended says nothing about the file.
        Ok(_) => Ok(()),
        Err(error) => Err(ToolError::failed(&format!("could not run {program}"), &error)),
    }
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_TABLE).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The type of a file by its name: of lines `50:application/pdf:*.pdf`, the longest ending counts.
fn kind_of(globs: &str, name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let fitting = globs.lines().filter_map(|line| {
        let mut parts = line.split(':');
        let (_, kind, pattern) = (parts.next()?, parts.next()?, parts.next()?);
        let ending = pattern.strip_prefix('*')?;
        let plain = !ending.is_empty() && !ending.contains(['*', '?', '[']);
        (plain && lower.ends_with(&ending.to_lowercase())).then_some((ending.len(), kind))
    });
    fitting.max_by_key(|(length, _)| *length).map(|(_, kind)| kind.to_owned())
}

/// Names of the applications for a type, the preferred first.
fn applications(kind: &str) -> Vec<String> {
    let home = |name: &str, default: &str| {
        let set = std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        set.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(default)))
    };
    let mut lists: Vec<PathBuf> = home("XDG_CONFIG_HOME", ".config").into_iter().collect();
    lists.push("/etc/xdg".into());
    let folders = desktop::data_folders().into_iter().map(|folder| folder.join("applications"));
    let folders: Vec<PathBuf> = folders.collect();
    lists.extend(folders.iter().cloned());
    let mut found = Vec::new();
    for list in lists {
        let text = read(&list.join("mimeapps.list")).unwrap_or_default();
        found.extend(listed(&text, "Default Applications", kind));
        found.extend(listed(&text, "Added Associations", kind));
    }
    for folder in folders {
        let text = read(&folder.join("mimeinfo.cache")).unwrap_or_default();
        found.extend(listed(&text, "MIME Cache", kind));
    }
    found
}

/// What a list has for a type: `[Group]`, `type=a.desktop;b.desktop;`.
fn listed(text: &str, group: &str, kind: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name == group;
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == kind
        {
            let ids = value.split(';').filter_map(|id| id.trim().strip_suffix(".desktop"));
            found.extend(ids.map(str::to_owned));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_ending_says_what_a_file_is() {
        let globs = "# comment\n50:application/gzip:*.gz\n50:application/x-compressed-tar:*.tar.gz\n\
                     50:text/plain:*.txt\n10:text/x-readme:readme*\n";
        let kind = |name| kind_of(globs, name).unwrap_or_default();
        assert_eq!(kind("a.tar.gz"), "application/x-compressed-tar");
        assert_eq!(kind("b.GZ"), "application/gzip");
        assert_eq!(kind("readme.x"), "");
    }

    #[test]
    fn applications_are_those_of_the_group_and_type() {
        let text = "[Added Associations]\ntext/plain=no.desktop\n[Default Applications]\n\
                    text/plain=a.desktop;b.desktop;\ntext/html=c.desktop\n";
        assert_eq!(listed(text, "Default Applications", "text/plain"), ["a", "b"]);
        assert!(listed(text, "MIME Cache", "text/plain").is_empty());
    }
}
