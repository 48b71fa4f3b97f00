//! A test's own world: a configuration, compartments nobody else has, and, for an ordinary user,
//! directories of its own. Everything started in it is ended with it.
//!
//! Only the image store is shared, because an image takes minutes to build. Root has fixed places
//! that tests share too, so no two worlds that are there at one time have the same number, and
//! compartments are named by it. Few numbers are used, as each name that was ever seen is kept
//! with its id.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::Deref;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::call::{Call, Done};
use crate::processes::{self, Process};
use crate::{BOOT, is_root, programs, until};

/// The worlds that several tests share; they end with the process.
static SHARED: Mutex<Vec<&'static World>> = Mutex::new(Vec::new());

/// A world.
#[derive(Debug)]
pub struct World {
    test: &'static str,
    number: Number,
    directory: TempDir,
    names: Vec<(&'static str, String)>,
    environment: Vec<(&'static str, OsString)>,
}

/// A number that no other world has while this one is there, of whatever process or user: an
/// abstract socket, unix(7), which goes with its process.
#[derive(Debug)]
struct Number {
    number: u32,
    _claim: UnixDatagram,
}

impl Number {
    /// The lowest that is free.
    fn take() -> Self {
        for number in 1..10_000 {
            let name = format!("casemate-systemtest-{number}");
            let address = SocketAddr::from_abstract_name(name).expect("it is short");
            if let Ok(claim) = UnixDatagram::bind_addr(&address) {
                return Self { number, _claim: claim };
            }
        }
        panic!("every number is taken");
    }
}

/// A world that several tests share, as one of them sees it.
#[derive(Debug)]
pub struct Shared {
    test: &'static str,
    world: &'static World,
}

impl World {
    /// A world with one compartment, `main`, with these settings.
    pub fn new(test: &'static str, settings: &str) -> Self {
        Self::with(test, &[("main", settings)])
    }

    /// A world with these compartments and their settings.
    ///
    /// `{world}` in them is the directory of the world, `{net}` a network that nobody else has. They are small, and, so that none survives a test that was killed, end when idle.
    ///
    /// # Panics
    /// When its directory cannot be made.
    pub fn with(test: &'static str, compartments: &[(&'static str, &str)]) -> Self {
        let number = Number::take();
        let directory = tempfile::Builder::new().prefix("casemate-").tempdir().expect("made");
        let mut world =
            Self { test, number, directory, names: Vec::new(), environment: Vec::new() };
        if !is_root() {
            world.own_places();
        }
        let mut text = String::new();
        for (label, settings) in compartments {
            let name = world.unused(label);
            text.push_str(&format!("[compartment.{name}]\n"));
            for (key, setting) in [
                ("memory", "memory = 256\n"),
                ("disposable", "disposable = true\nidle-timeout = 600\n"),
            ] {
                let is_set =
                    settings.lines().any(|line| line.split(['=', ' ']).next() == Some(key));
                if !is_set {
                    text.push_str(setting);
                }
            }
            let settings = settings.replace("{world}", &world.path_text());
            let settings = settings.replace("{net}", &world.network());
            text.push_str(&format!("{settings}\n\n"));
            world.names.push((label, name));
        }
        world.configure(&text);
        world
    }

    /// A world that all tests of one program share, made for the first of them.
    pub fn shared(test: &'static str, cell: &'static OnceLock<World>, settings: &str) -> Shared {
        let world = cell.get_or_init(|| World::new(test, settings));
        let mut shared = SHARED.lock().expect("no panic");
        if !shared.iter().any(|known| std::ptr::eq(*known, world)) {
            if shared.is_empty() {
                at_exit();
            }
            shared.push(world);
        }
        Shared { test, world }
    }

    /// Directories of its own for everything but the images.
    fn own_places(&mut self) {
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let data = data.or_else(|| Some(home?.join(".local/share"))).expect("HOME is set");
        self.environment.push(("XDG_DATA_HOME", data.into()));
        for (variable, name) in [
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            let path = self.path(name);
            fs::create_dir(&path).expect("made");
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("set");
            self.environment.push((variable, path.into()));
        }
    }

    /// The network that `{net}` is.
    pub fn network(&self) -> String {
        format!("systemtest-{}", self.number.number)
    }

    /// Sets a variable for whatever is called in this world.
    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    fn unused(&self, label: &str) -> String {
        format!("systemtest-{}-{label}", self.number.number)
    }

    /// Writes the configuration.
    pub fn configure(&self, text: &str) {
        fs::write(self.config(), text).expect("written");
    }

    /// Appends to the configuration.
    pub fn configure_more(&self, text: &str) {
        let before = fs::read_to_string(self.config()).expect("read");
        self.configure(&format!("{before}\n{text}\n"));
    }

    /// The configuration's file.
    pub fn config(&self) -> PathBuf {
        self.path("casemate.toml")
    }

    fn path_text(&self) -> String {
        self.directory.path().display().to_string()
    }

    /// A path in the directory of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The name of the compartment `main`.
    pub fn name(&self) -> &str {
        self.named("main")
    }

    /// The name of a compartment.
    ///
    /// # Panics
    /// When it was not declared with this label.
    pub fn named(&self, label: &str) -> &str {
        let found = self.names.iter().find(|(known, _)| *known == label);
        &found.expect("it was declared").1
    }

    /// A call of `casemate` in this world.
    pub fn casemate<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Call {
        self.program("casemate").arg("--config").arg(self.config()).args(arguments)
    }

    /// A call of one of the programs in this world, without arguments.
    pub fn program(&self, name: &str) -> Call {
        self.call(programs::program(name))
    }

    /// A call of a line of shell on the host, in this world.
    pub fn host_shell(&self, line: &str) -> Call {
        self.call("sh").args(["-c", line])
    }

    /// A call of any program in this world.
    pub fn call(&self, program: impl AsRef<OsStr>) -> Call {
        let call = Call::new(program);
        self.environment.iter().fold(call, |call, (name, value)| call.env(name, value))
    }

    /// `casemate run` of a command in `main`.
    pub fn run<A: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = A>) -> Call {
        self.run_with([], command)
    }

    /// `casemate run` with options of a command in `main`.
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        options: impl IntoIterator<Item = &'static str>,
        command: impl IntoIterator<Item = A>,
    ) -> Call {
        self.casemate(["run"]).args(options).arg(self.name()).arg("--").args(command)
    }

    /// `casemate run` of a line for the guest's shell in `main`.
    pub fn shell(&self, line: &str) -> Call {
        self.run(["sh", "-c", line])
    }

    /// Starts `main` and waits until it is ready.
    #[track_caller]
    pub fn start(&self) -> Done {
        self.casemate(["start", self.name()]).done().ok()
    }

    /// Stops `main` at once.
    #[track_caller]
    pub fn stop_force(&self) -> Done {
        self.casemate(["stop", "--force", self.name()]).within(crate::SHORT).done()
    }

    /// What `casemate status --json` says of a compartment.
    #[track_caller]
    pub fn status(&self, name: &str) -> Value {
        self.casemate(["status", name, "--json"]).done().ok().json()
    }

    /// The state of a compartment in one word.
    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.status(name)["state"].as_str().expect("a state").to_owned()
    }

    /// Waits until `main` is in this state.
    #[track_caller]
    pub fn await_state(&self, state: &str) {
        until(&format!("state {state}"), BOOT, || (self.state(self.name()) == state).then_some(()));
    }

    /// Process id of the supervisor of `main`.
    #[track_caller]
    pub fn supervisor(&self) -> i32 {
        let status = self.status(self.name());
        status["supervisorPid"].as_i64().expect("it runs") as i32
    }

    /// The processes of a compartment.
    pub fn crew(&self, name: &str) -> BTreeSet<Process> {
        processes::of_compartment(name)
    }

    /// The process of `main` whose short name begins so.
    #[track_caller]
    pub fn member(&self, prefix: &str) -> Process {
        let mut crew = self.crew(self.name()).into_iter();
        // The client has the same name as others; it is a child of this process.
        crew.rfind(|process| process.name.starts_with(prefix)).expect("it runs")
    }

    /// Where the run directories are.
    pub fn runtime(&self) -> PathBuf {
        if is_root() { "/run/casemate".into() } else { self.path("run/casemate") }
    }

    /// Where logs and the memory of ends are.
    pub fn state_directory(&self) -> PathBuf {
        if is_root() { "/var/lib/casemate".into() } else { self.path("state/casemate") }
    }

    /// The folder of a compartment's logs.
    pub fn logs(&self, name: &str) -> PathBuf {
        self.state_directory().join("logs").join(name)
    }

    /// What is left of a compartment: processes, files, mounts, sockets; a line for each.
    pub fn leftovers(&self, name: &str) -> Vec<String> {
        let mut found: Vec<String> = self
            .crew(name)
            .iter()
            .map(|process| format!("process {} {:?}", process.pid, process.arguments))
            .collect();
        for entry in fs::read_dir(self.runtime()).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file == name || file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) {
                found.push(format!("file {}", entry.path().display()));
            }
        }
        let place = self.runtime().join(name).display().to_string();
        for table in ["/proc/self/mountinfo", "/proc/net/unix"] {
            let text = fs::read_to_string(table).unwrap_or_default();
            let lines = text.lines().filter(|line| line.contains(&place));
            found.extend(lines.map(|line| format!("{table}: {line}")));
        }
        found
    }

    /// Nothing must be left of a compartment, soon.
    #[track_caller]
    pub fn assert_gone(&self, name: &str) {
        self.assert_gone_with(name, &BTreeSet::new());
    }

    /// Nothing must be left of a compartment, nor any of these processes, soon.
    #[track_caller]
    pub fn assert_gone_with(&self, name: &str, crew: &BTreeSet<Process>) {
        let mut left = Vec::new();
        for _ in 0..500 {
            left = self.leftovers(name);
            let running = crew.iter().filter(|process| process.runs());
            left.extend(running.map(|p| format!("process {} {:?}", p.pid, p.arguments)));
            if left.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("left of `{name}`:\n  {}", left.join("\n  "));
    }

    /// Names of all compartments of this world, fresh disposables too.
    fn every_name(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.iter().map(|(_, name)| name.clone()).collect();
        for entry in fs::read_dir(self.runtime()).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let own = |(_, name): &(_, String)| file.starts_with(&format!("{name}-d"));
            if self.names.iter().any(own) && entry.path().is_dir() {
                names.push(file);
            }
        }
        names
    }

    /// Ends everything that was started here. What does not obey is killed.
    fn end(&self) {
        for name in self.every_name() {
            if self.leftovers(&name).is_empty() {
                continue;
            }
            self.casemate(["stop", "--force", name.as_str()]).attempt(Duration::from_secs(10));
            for process in self.crew(&name) {
                let pid = nix::unistd::Pid::from_raw(process.pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = fs::remove_dir_all(self.runtime().join(&name));
            let _ = fs::remove_file(self.runtime().join(format!("{name}.sock")));
        }
        for kind in ["sock", "lock"] {
            let name = format!(".networks/{}.{kind}", self.network());
            let _ = fs::remove_file(self.runtime().join(name));
        }
        for (_, name) in &self.names {
            // Its successor of the same name begins anew.
            let _ = fs::remove_dir_all(self.logs(name));
            let last = self.state_directory().join("last").join(format!("{name}.json"));
            let _ = fs::remove_file(last);
        }
    }

    /// Keeps what tells why a test failed.
    fn keep(&self, test: &str) {
        let folder = programs::kept().join(test.replace("::", "-"));
        let _ = fs::remove_dir_all(&folder);
        let _ = fs::create_dir_all(&folder);
        let _ = fs::copy(self.config(), folder.join("casemate.toml"));
        for name in self.every_name() {
            for logs in [self.logs(&name), self.runtime().join(&name)] {
                copy_logs(&logs, &folder.join(&name));
            }
            let last = self.state_directory().join("last").join(format!("{name}.json"));
            let _ = fs::copy(last, folder.join(format!("{name}-last.json")));
        }
        eprintln!("logs of {test}: {}", folder.display());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep(self.test);
        }
        self.end();
    }
}

impl Deref for Shared {
    type Target = World;

    fn deref(&self) -> &World {
        self.world
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.world.keep(self.test);
        }
    }
}

fn copy_logs(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        if entry.path().is_file() {
            let _ = fs::create_dir_all(to);
            let _ = fs::copy(entry.path(), to.join(entry.file_name()));
        }
    }
}

/// Ends the shared worlds when the process ends: the test harness has no such hook.
#[expect(unsafe_code, reason = "atexit(3) has no safe wrapper")]
fn at_exit() {
    extern "C" fn end() {
        let shared = SHARED.lock().map(|mut shared| std::mem::take(&mut *shared));
        for world in shared.unwrap_or_default() {
            world.end();
            let _ = fs::remove_dir_all(world.directory.path());
        }
    }
    // SAFETY: `end` is a plain function that lives as long as the program.
    unsafe { nix::libc::atexit(end) };
}
