//! The root helper of a lab: started with its listening socket as systemd does it, among the lab's
//! interfaces, and ended with the test.

use std::fs::{self, Permissions};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect,
    listen, recv, sendmsg, socket,
};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{SHORT, World, programs, until};

/// A helper.
#[derive(Debug)]
pub struct Netd {
    folder: TempDir,
    listener: OwnedFd,
    child: Option<Child>,
}

impl Netd {
    /// Starts one in the network of this thread, with this configuration of the system, and makes it
    /// the world's.
    pub fn start(world: &mut World, system: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("casemate-netd-").tempdir().expect("made");
        // Its socket is for everybody; the helper makes the folder its own.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("set");
        let path = folder.path().join("socket");
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("made");
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).expect("short")).expect("bound");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("set");
        listen(&listener, Backlog::new(64).expect("small")).expect("listening");
        world.set("CASEMATE_NETD", &path);
        let mut netd = Self { folder, listener, child: None };
        netd.configure(system);
        netd.begin();
        netd
    }

    /// Rewrites the system's configuration.
    pub fn configure(&self, text: &str) {
        let path = self.config();
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("casemate.toml")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Starts it, and waits until it has looked around.
    pub fn begin(&mut self) {
        let (state, config) = (self.folder.path(), self.config());
        let mapping =
            FdMapping { parent_fd: self.listener.try_clone().expect("cloned"), child_fd: 3 };
        let mut command = Command::new("sh");
        command
            .args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\""])
            .arg(programs::program("casemate-netd"))
            .args(["--user", "nobody", "--state"])
            .arg(state)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .fd_mappings(vec![mapping])
            .expect("one number");
        self.child = Some(command.spawn().expect("sh starts"));
        until("the helper's answer", SHORT, || {
            let client = Client::to(&self.socket())?;
            client.say(b"\"repair\"").then_some(())?;
            client.answer().filter(|answer| answer.contains("repaired")).map(drop)
        });
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().expect("it runs").id() as i32
    }

    /// Kills it, without a warning.
    pub fn kill(&mut self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGKILL).expect("it is ours");
        self.child.take().expect("it runs").wait().expect("it ends");
    }

    /// Asks it to end, and waits for that.
    pub fn end(&mut self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).expect("it is ours");
        let status = self.child.take().expect("it runs").wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Netd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Interfaces, tables of nft and forwarding of this thread's network that a helper made.
pub fn traces() -> Vec<String> {
    let mut found = Vec::new();
    let interfaces = fs::read_to_string("/proc/thread-self/net/dev").expect("it is there");
    let names = interfaces.lines().filter_map(|line| line.split(':').next());
    let names = names.map(str::trim).filter(|name| name.starts_with("cmtap"));
    found.extend(names.map(String::from));
    let tables = Command::new("nft").args(["list", "tables"]).output().expect("nft starts");
    found.extend(String::from_utf8_lossy(&tables.stdout).lines().map(String::from));
    if forwards() {
        found.push("net.ipv4.ip_forward".into());
    }
    found
}

/// Whether this thread's network forwards.
pub fn forwards() -> bool {
    let done = Command::new("cat").arg("/proc/sys/net/ipv4/ip_forward").output();
    String::from_utf8_lossy(&done.expect("cat starts").stdout).trim() == "1"
}

/// A client of the helper that says what it likes.
#[derive(Debug)]
pub struct Client(OwnedFd);

impl Client {
    /// Connects; none when nobody listens.
    pub fn to(path: &Path) -> Option<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let own = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).ok()?;
        connect(own.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
        let patience = TimeVal::new(5, 0);
        use nix::sys::socket::{setsockopt, sockopt};
        setsockopt(&own, sockopt::ReceiveTimeout, &patience).ok()?;
        setsockopt(&own, sockopt::SendTimeout, &patience).ok()?;
        setsockopt(&own, sockopt::SndBuf, &(4 << 20)).ok()?;
        Some(Self(own))
    }

    /// Sends one packet; false when nobody hears it.
    pub fn say(&self, bytes: &[u8]) -> bool {
        self.say_with(bytes, &[])
    }

    /// The same with descriptors.
    pub fn say_with(&self, bytes: &[u8], descriptors: &[i32]) -> bool {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        let parts = [IoSlice::new(bytes)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, flags, None).is_ok()
    }

    /// The next answer; none at the end, or when there is none within 5 s.
    pub fn answer(&self) -> Option<String> {
        let mut buffer = vec![0; 1 << 17];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok()?;
        (length > 0).then(|| String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}
