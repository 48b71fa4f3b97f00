//! sway without a screen, as somebody who is not root, for tests of windows.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::call::Call;
use crate::picture::Picture;
use crate::{SHORT, has, is_root, programs, until};

/// Of the desktop's background.
pub const GROUND: [u8; 3] = [0x20, 0x50, 0x20];

/// Somebody who is not root, where the tests are: sway refuses him.
const NOBODY: u32 = 65_534;

const CONFIG: &str = "\
output HEADLESS-1 resolution 1000x700 position 0 0
output * bg #205020 solid_color
default_border none
for_window [app_id=\".*\"] floating enable, border none
focus_follows_mouse no
xwayland disable
";

/// A running compositor. It ends with this.
#[derive(Debug)]
pub struct Desktop {
    folder: TempDir,
    sway: Child,
    /// A keyboard on its seat, without which nothing has the focus.
    keyboard: Option<Child>,
}

impl Desktop {
    /// Starts it. None, with a word about it, where a program is missing.
    ///
    /// # Panics
    /// It does not come up.
    pub fn start(test: &str) -> Option<Self> {
        if !["sway", "grim", "setpriv", "waypipe", "wtype"].iter().all(|name| has(test, name)) {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("casemate-sway-").tempdir().expect("made");
        let config = folder.path().join("config");
        fs::write(&config, CONFIG).expect("written");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).expect("set");
        let log = fs::File::create(folder.path().join("sway.log")).expect("made");
        let mut command = Self::as_user(folder.path());
        command.args(["sway", "-c"]).arg(&config);
        command.env("WLR_BACKENDS", "headless").env("WLR_RENDERER", "pixman");
        command.env("WLR_LIBINPUT_NO_DEVICES", "1").stderr(log);
        let sway = command.spawn().expect("sway starts");
        let mut desktop = Self { folder, sway, keyboard: None };
        until("sway shows its background", SHORT, || {
            UnixStream::connect(desktop.wayland()).ok()?;
            (desktop.try_picture()?.at(1, 1) == GROUND).then_some(())
        });
        let mut keyboard = desktop.command("wtype");
        desktop.keyboard = keyboard.args(["-s", "600000"]).spawn().ok();
        Some(desktop)
    }

    /// A command as the desktop's user, who dies with us.
    fn as_user(folder: &Path) -> Command {
        let mut command = Command::new("setpriv");
        if is_root() {
            chown(folder, Some(NOBODY), Some(NOBODY)).expect("given away");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.args(["--pdeathsig", "KILL", "--"]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", folder);
        command.env("XDG_RUNTIME_DIR", folder).env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// The compositor's socket.
    pub fn wayland(&self) -> PathBuf {
        self.folder.path().join("wayland-1")
    }

    /// The same call as a user of this desktop would make it.
    pub fn user(&self, call: Call) -> Call {
        call.env("WAYLAND_DISPLAY", self.wayland())
    }

    /// What a program of the desktop pastes of this type.
    ///
    /// # Panics
    /// wl-paste does not start.
    pub fn pastes(&self, kind: &str) -> Vec<u8> {
        let mut paste = self.command("wl-paste");
        let output = paste.args(["--type", kind]).stdout(Stdio::piped()).output();
        output.expect("wl-paste starts").stdout
    }

    /// Copies as a program of the desktop does, which serves it until somebody else copies.
    ///
    /// # Panics
    /// wl-copy does not start.
    pub fn copies(&self, kind: &str, bytes: &[u8]) {
        let mut copy = self.command("wl-copy");
        let mut child =
            copy.args(["--type", kind]).stdin(Stdio::piped()).spawn().expect("wl-copy starts");
        child.stdin.take().expect("a pipe").write_all(bytes).expect("written");
        assert!(child.wait().expect("it ends").success());
    }

    /// A program of this desktop.
    fn command(&self, program: &str) -> Command {
        let mut command = Self::as_user(self.folder.path());
        command.arg(program).env("WAYLAND_DISPLAY", self.wayland());
        command
    }

    /// What can be seen once nothing moves any more.
    ///
    /// # Panics
    /// It goes on moving.
    pub fn picture(&self) -> Picture {
        let mut last = self.try_picture().expect("grim takes a picture");
        let mut equal = 0;
        until("nothing moves", SHORT, || {
            std::thread::sleep(Duration::from_millis(50));
            let next = self.try_picture().expect("grim takes a picture");
            equal = if next == last { equal + 1 } else { 0 };
            last = next;
            (equal >= 4).then_some(())
        });
        last
    }

    fn try_picture(&self) -> Option<Picture> {
        let mut grim = self.command("grim");
        let output = grim.args(["-t", "ppm", "-"]).stdout(Stdio::piped()).output().ok()?;
        output.status.success().then(|| Picture::read(&output.stdout))
    }

    /// Keeps a picture for people to look at; returns where.
    pub fn keep(&self, name: &str) -> PathBuf {
        let folder = std::env::var_os("CASEMATE_ARTEFACTS").map(PathBuf::from);
        let file = folder.unwrap_or_else(programs::kept).join(format!("{name}.png"));
        let mut grim = self.command("grim");
        let output = grim.arg("-").stdout(Stdio::piped()).output().expect("grim starts");
        fs::write(&file, output.stdout).expect("written");
        file
    }

    /// A command to sway.
    pub fn sway(&self, words: &[&str]) -> Value {
        let entries = fs::read_dir(self.folder.path()).expect("a folder").flatten();
        let socket = entries.map(|it| it.path()).find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sway-ipc"))
        });
        let mut command = self.command("swaymsg");
        command.env("SWAYSOCK", socket.map_or_else(OsString::new, Into::into)).arg("-r");
        let output = command.args(words).stdout(Stdio::piped()).output().expect("swaymsg starts");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Types into what has the focus.
    pub fn types(&self, words: &[&str]) {
        assert!(self.command("wtype").args(words).status().expect("wtype starts").success());
    }

    /// Title and `app_id` of all windows.
    pub fn windows(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        collect(&self.sway(&["-t", "get_tree"]), &mut found);
        found
    }

    /// Waits until so many windows are there.
    #[track_caller]
    pub fn shows(&self, count: usize) -> Vec<(String, String)> {
        until(&format!("{count} windows"), 2 * SHORT, || {
            Some(self.windows()).filter(|windows| windows.len() == count)
        })
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        for child in self.keyboard.iter_mut().chain([&mut self.sway]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn collect(node: &Value, found: &mut Vec<(String, String)>) {
    if let (Some(name), Some(id)) = (node["name"].as_str(), node["app_id"].as_str()) {
        found.push((name.into(), id.into()));
    }
    for list in ["nodes", "floating_nodes"] {
        for node in node[list].as_array().into_iter().flatten() {
            collect(node, found);
        }
    }
}
