//! What the host runs to learn which applications there are: their desktop files and pictures, as they
//! are, on standard output. What becomes of them is the host's to decide.
//!
//! Desktop files of the folders themselves are told, which are those that `casemate.StartApp` finds.
//! Pictures are PNG files of the theme that all others fall back to, or of the folder from before themes
//! (Icon Theme Specification 0.13); drawings (SVG) would have to be rendered, which nothing here can.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use casemate_menu::Writer;
use casemate_menu::limits::{MAX_FILE, MAX_ICON};

use super::{ToolError, desktop, finish};

/// Sizes of pictures, in pixels, the best first: that of the host's, the next larger, the next smaller.
const SIZES: [u32; 9] = [128, 256, 192, 96, 72, 64, 512, 48, 32];

/// What the host runs.
pub fn send_to_host() -> ExitCode {
    finish("casemate-menu", send())
}

fn send() -> Result<(), ToolError> {
    let out = BufWriter::new(io::stdout().lock());
    tell(&desktop::data_folders(), out)
        .map_err(|error| ToolError::failed("could not tell the applications", &error))
}

/// Tells the applications of these folders of data. Of the same id the first counts, also to hide those
/// behind it.
fn tell(folders: &[PathBuf], out: impl io::Write) -> io::Result<()> {
    let mut writer = Writer::new(out)?;
    let mut told = BTreeSet::new();
    for folder in folders {
        let applications = folder.join("applications");
        let entries = fs::read_dir(&applications).into_iter().flatten().flatten();
        let mut ids: Vec<String> = entries
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".desktop")?.into()))
            .collect();
        ids.sort();
        for id in ids {
            if told.contains(&id) {
                continue;
            }
            let file = applications.join(format!("{id}.desktop"));
            let content = read(&file, MAX_FILE);
            told.insert(id.clone());
            let Some(content) = content else {
                writer.leave_out();
                continue;
            };
            // What cannot be started is for no menu.
            let Ok(entry) = desktop::parse(&String::from_utf8_lossy(&content), file) else {
                continue;
            };
            if !entry.try_exec().is_none_or(is_there) {
                continue;
            }
            let icon = find_icon(folders, entry.icon());
            writer.application(&id, &content, icon.as_deref())?;
        }
    }
    writer.end()
}

/// A regular file of at most so many bytes.
fn read(path: &Path, most: usize) -> Option<Vec<u8>> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut content = Vec::new();
    File::open(path).ok()?.take(most as u64 + 1).read_to_end(&mut content).ok()?;
    (content.len() <= most).then_some(content)
}

/// `TryExec`: a program by its path, or in `PATH`.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_program = |path: PathBuf| {
        path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    // A path that is absolute takes the place of the folder before it.
    std::env::split_paths(&path).any(|folder| is_program(folder.join(program)))
}

/// The picture of this name or path.
fn find_icon(folders: &[PathBuf], name: &str) -> Option<Vec<u8>> {
    if name.is_empty() {
        return None;
    }
    if Path::new(name).is_absolute() {
        return read(Path::new(name), MAX_ICON);
    }
    // Some say the ending, too.
    let file = format!("{}.png", name.strip_suffix(".png").unwrap_or(name));
    let sized = SIZES.iter().flat_map(|size| {
        let inside = format!("icons/hicolor/{size}x{size}/apps");
        folders.iter().map(move |folder| folder.join(&inside))
    });
    let before_themes = folders.iter().map(|folder| folder.join("pixmaps"));
    sized.chain(before_themes).find_map(|folder| read(&folder.join(&file), MAX_ICON))
}

#[cfg(test)]
mod tests {
    use casemate_menu::{Reader, Record};

    use super::*;

    /// A folder of data of the test's own.
    struct Data(PathBuf);

    impl Data {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("casemate-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn put(&self, path: &str, content: impl AsRef<[u8]>) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, content).expect("written");
        }

        fn application(&self, folder: &str, id: &str, lines: &str) {
            let text =
                format!("[Desktop Entry]\nType=Application\nExec=x\nName={folder}\n{lines}\n");
            self.put(&format!("{folder}/applications/{id}.desktop"), text);
        }
    }

    impl Drop for Data {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Each id with the folder it is of and its picture, and how many were left out.
    fn told(data: &Data) -> (Vec<(String, String)>, u32) {
        let mut out = Vec::new();
        tell(&["own", "shared"].map(|it| data.0.join(it)), &mut out).expect("told");
        let mut reader = Reader::new(&out[..]);
        let mut found = Vec::new();
        loop {
            match reader.next_record().expect("a stream") {
                Some(Record::Application { id, content }) => {
                    let text = String::from_utf8(content).expect("text");
                    let name = text.lines().find_map(|line| line.strip_prefix("Name="));
                    found.push((
                        String::from_utf8(id).expect("text"),
                        name.expect("one").to_owned(),
                    ));
                }
                Some(Record::Icon(icon)) => {
                    let (_, last) = found.last_mut().expect("an application before");
                    last.push_str(&format!(" {}", String::from_utf8_lossy(&icon)));
                }
                Some(Record::End(left_out)) => return (found, left_out),
                None => panic!("no end"),
            }
        }
    }

    #[test]
    fn applications_are_told_once_with_the_best_picture() {
        let data = Data::new("menu-told");
        data.application("own", "edit", "Icon=edit");
        data.application("shared", "edit", "Icon=edit");
        data.application("shared", "draw", "Icon=draw.png\nTryExec=sh");
        data.application("shared", "plain", "Icon=drawn");
        data.application("shared", "gone", "TryExec=/nonexistent/x");
        data.application("own", "hidden", "Hidden=true");
        data.application("shared", "hidden", "");
        data.put("shared/applications/large.desktop", vec![b'#'; MAX_FILE + 1]);
        data.put("shared/applications/mimeinfo.cache", "");
        data.put("shared/icons/hicolor/48x48/apps/edit.png", "small");
        data.put("own/icons/hicolor/256x256/apps/edit.png", "large");
        data.put("shared/icons/hicolor/scalable/apps/drawn.svg", "svg");
        data.put("shared/pixmaps/draw.png", "old");
        let expected = [("edit", "own large"), ("draw", "shared old"), ("plain", "shared")];
        let expected = expected.map(|(id, what)| (id.to_owned(), what.to_owned())).to_vec();
        assert_eq!(told(&data), (expected, 1));
    }
}
