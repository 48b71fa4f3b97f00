//! sway without a screen, as somebody who is not root, and proxies in front of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::picture::Picture;
use super::until;

/// Of the desktop's background.
pub const GROUND: [u8; 3] = [0x20, 0x50, 0x20];

/// Width and height of the one output.
pub const SIZE: (i32, i32) = (1000, 700);

const NOBODY: u32 = 65_534;

const CONFIG: &str = "\
output HEADLESS-1 resolution 1000x700 position 0 0
output * bg #205020 solid_color
default_border none
for_window [app_id=\".*\"] floating enable, border none
focus_follows_mouse no
xwayland disable
";

/// A running compositor.
pub struct Desktop {
    folder: TempDir,
    sway: Child,
}

impl Desktop {
    /// Starts it with some more lines of configuration. An error is the reason why it cannot be.
    pub fn start(more: &str) -> Result<Self, String> {
        for program in ["sway", "grim", "setpriv"] {
            if find(program).is_none() {
                return Err(format!("{program} is not installed"));
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config");
        fs::write(&config, format!("{CONFIG}{more}")).expect("a configuration");
        let root = rustix::process::geteuid().is_root();
        let mut command = if root {
            // sway refuses root.
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            command.args(["--pdeathsig", "KILL", "--", "sway"]);
            command
        } else {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--", "sway"]);
            command
        };
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).expect("a mode");
        let sway = command
            .arg("-c")
            .arg(&config)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("HOME", folder.path())
            .env("WLR_BACKENDS", "headless")
            .env("WLR_RENDERER", "pixman")
            .env("WLR_LIBINPUT_NO_DEVICES", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("sway.log")).expect("a log"))
            .spawn()
            .expect("sway starts");
        let desktop = Self { folder, sway };
        until("sway answers", || {
            UnixStream::connect(desktop.wayland()).ok()?;
            // The background is there.
            let picture = desktop.try_picture()?;
            (picture.at(1, 1) == GROUND).then_some(())
        });
        Ok(desktop)
    }

    /// A path in the runtime directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The compositor's own socket.
    pub fn wayland(&self) -> PathBuf {
        self.path("wayland-1")
    }

    /// A program of this desktop, a client of `display`.
    pub fn command(&self, program: &str, display: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C.UTF-8")
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("WAYLAND_DISPLAY", display)
            .stdin(Stdio::null());
        command
    }

    /// What can be seen once nothing moves any more: sway waits 200 ms for a window that does not
    /// answer.
    pub fn picture(&self) -> Picture {
        let mut last = self.try_picture().expect("grim takes a picture");
        let mut equal = 0;
        until("nothing moves", || {
            std::thread::sleep(Duration::from_millis(50));
            let next = self.try_picture().expect("grim takes a picture");
            equal = if next == last { equal + 1 } else { 0 };
            last = next;
            (equal >= 6).then_some(())
        });
        last
    }

    fn try_picture(&self) -> Option<Picture> {
        let mut grim = self.command("grim", &self.wayland());
        let output = grim.args(["-t", "ppm", "-"]).output().expect("grim starts");
        output.status.success().then(|| Picture::read(&output.stdout))
    }

    /// Keeps a picture for people to look at, where `CASEMATE_ARTEFACTS` names a folder.
    pub fn keep(&self, name: &str) {
        if let Some(folder) = std::env::var_os("CASEMATE_ARTEFACTS") {
            let file = Path::new(&folder).join(format!("{name}.png"));
            let mut grim = self.command("grim", &self.wayland());
            assert!(grim.arg(file).status().expect("grim starts").success());
        }
    }

    /// A command to sway.
    pub fn sway(&self, words: &str) -> Value {
        let socket = fs::read_dir(self.folder.path()).expect("a folder").flatten();
        let socket = socket.map(|it| it.path()).find(|path| {
            path.extension().is_some_and(|it| it == "sock")
                && path.to_string_lossy().contains("ipc")
        });
        let mut command = self.command("swaymsg", &self.wayland());
        command.env("SWAYSOCK", socket.expect("sway's socket")).args(["-r"]);
        command.args(words.split(' '));
        let output: Output = command.output().expect("swaymsg starts");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Title and `app_id` of all windows.
    pub fn windows(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        collect(&self.sway("-t get_tree"), &mut found);
        found
    }

    /// Whether the window of this `app_id` is fullscreen.
    pub fn is_fullscreen(&self, id: &str) -> bool {
        fn find(node: &Value, id: &str) -> bool {
            let lists = ["nodes", "floating_nodes"].map(|list| node[list].as_array());
            (node["app_id"] == id && node["fullscreen_mode"] != 0)
                || lists.into_iter().flatten().flatten().any(|it| find(it, id))
        }
        find(&self.sway("-t get_tree"), id)
    }

    /// A proxy in front of this desktop.
    pub fn proxy(&self, name: &str, more: &[&str]) -> Proxy {
        self.proxy_of(name, more, &self.wayland())
    }

    pub fn proxy_of(&self, name: &str, more: &[&str], upstream: &Path) -> Proxy {
        let socket = self.path(&format!("casemate-{name}"));
        let log = self.path(&format!("{name}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_casemate-wayland"))
            .args(["--compartment", name, "--color", "#cc2222", "--listen"])
            .arg(&socket)
            .arg("--upstream")
            .arg(upstream)
            .args(more)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("the proxy starts");
        let proxy = Proxy { child, socket, log };
        until("the proxy listens", || UnixStream::connect(&proxy.socket).ok());
        proxy
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        let _ = self.sway.kill();
        let _ = self.sway.wait();
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

/// A running proxy.
pub struct Proxy {
    child: Child,
    pub socket: PathBuf,
    log: PathBuf,
}

impl Proxy {
    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    /// Waits for a line of its log.
    pub fn logs(&self, words: &str) {
        until(words, || self.log().contains(words).then_some(()));
    }

    /// It lives.
    pub fn assert_alive(&mut self) {
        let status = self.child.try_wait().expect("a child");
        assert!(status.is_none(), "{status:?}\n{}", self.log());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it has had, in KiB.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// A number of its status.
    pub fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
        line.split_whitespace().next().and_then(|it| it.parse().ok()).expect("a number")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the proxy:\n{}", self.log());
        }
    }
}

/// Where a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|it| it.join(program)).find(|it| it.exists())
}
