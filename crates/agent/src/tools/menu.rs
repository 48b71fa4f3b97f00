//! What the host runs to learn which applications there are: their desktop files and pictures, as they
//! are, on standard output. What becomes of them is the host's to decide.
//!
//! Desktop files of the folders themselves are told, which are those that `casemate.StartApp` finds.
//! Pictures are PNG files of the theme that all others fall back to, or of the folder from before themes
//! (Icon Theme Specification 0.13). Where there is only a drawing (SVG), `rsvg-convert` makes a picture of
//! it, if the guest has that.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use casemate_menu::Writer;
use casemate_menu::limits::{MAX_FILE, MAX_ICON};

use super::{ToolError, desktop, finish};

/// Sizes of pictures, in pixels, the best first: that of the host's, the next larger, the next smaller.
const SIZES: [u32; 9] = [128, 256, 192, 96, 72, 64, 512, 48, 32];

/// What makes pictures of drawings (librsvg), and what ends it when it takes longer than so many seconds.
const DRAW: [&str; 7] =
    ["timeout", "3", "rsvg-convert", "--keep-aspect-ratio", "--width=128", "--height=128", "--"];

/// How long all drawings may take. The host waits a minute for everything.
const DRAWING: Duration = Duration::from_secs(20);

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
    let begin = Instant::now();
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
            told.insert(id.clone());
            // A folder, or a link to nowhere, is no application.
            if !file.metadata().is_ok_and(|found| found.is_file()) {
                continue;
            }
            let content = read(&file, MAX_FILE);
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
            let icon = find_icon(folders, entry.icon(), "png", SIZES.map(squared).as_slice())
                .and_then(|path| read(&path, MAX_ICON));
            let icon = icon.or_else(|| {
                let path = find_icon(folders, entry.icon(), "svg", &["scalable".into()])?;
                (begin.elapsed() < DRAWING).then(|| draw(&DRAW, &path))?
            });
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

/// Name of a folder of pictures of this size.
fn squared(size: u32) -> String {
    format!("{size}x{size}")
}

/// The file of the icon with this name or path, of this kind, of the first of these sizes.
fn find_icon(folders: &[PathBuf], name: &str, kind: &str, sizes: &[String]) -> Option<PathBuf> {
    let is_fit = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.len() <= MAX_ICON as u64)
    };
    if name.is_empty() {
        return None;
    }
    let path = Path::new(name);
    if path.is_absolute() {
        let is_kind = path.extension().is_none_or(|ending| ending == kind);
        return Some(path.to_owned()).filter(|path| is_kind && is_fit(path));
    }
    // Some say the ending, too.
    let name = [".png", ".svg", ".xpm"].iter().find_map(|it| name.strip_suffix(it)).unwrap_or(name);
    let sized = sizes.iter().flat_map(|size| {
        let inside = format!("icons/hicolor/{size}/apps");
        folders.iter().map(move |folder| folder.join(&inside))
    });
    let before_themes = folders.iter().map(|folder| folder.join("pixmaps"));
    sized.chain(before_themes).map(|folder| folder.join(format!("{name}.{kind}"))).find(is_fit)
}

/// A picture of a drawing. None without the program, and when it fails.
fn draw(program: &[&str], drawing: &Path) -> Option<Vec<u8>> {
    let (first, rest) = program.split_first()?;
    let mut command = Command::new(first);
    command.args(rest).arg(drawing).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().ok()?;
    let mut picture = Vec::new();
    let read = child.stdout.take()?.take(MAX_ICON as u64 + 1).read_to_end(&mut picture);
    // Its pipe is closed: one that goes on writing ends.
    let done = child.wait().ok()?;
    (read.is_ok() && done.success() && picture.len() <= MAX_ICON).then_some(picture)
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

    #[test]
    fn drawings_are_found_and_drawn_where_there_is_a_program_for_it() {
        let data = Data::new("menu-drawn");
        data.put("shared/icons/hicolor/scalable/apps/org.example.Edit.svg", "svg");
        data.put("shared/icons/hicolor/scalable/apps/large.svg", vec![0; MAX_ICON + 1]);
        let folders = [data.0.join("shared")];
        let find = |name: &str, kind: &str| find_icon(&folders, name, kind, &["scalable".into()]);
        let drawing = find("org.example.Edit", "svg").expect("it is there");
        assert_eq!(find("org.example.Edit.svg", "svg"), Some(drawing.clone()));
        assert_eq!(find(&drawing.display().to_string(), "svg"), Some(drawing.clone()));
        assert_eq!(find(&drawing.display().to_string(), "png"), None);
        for none in ["large", "other", "", "/nonexistent.svg"] {
            assert_eq!(find(none, "svg"), None, "{none}");
        }
        assert_eq!(draw(&["cat"], &drawing).as_deref(), Some(&b"svg"[..]));
        assert_eq!(draw(&["false"], &drawing), None);
        assert_eq!(draw(&["/nonexistent"], &drawing), None);
        assert_eq!(draw(&["sh", "-c", "cat /dev/zero"], &drawing), None);
    }
}
