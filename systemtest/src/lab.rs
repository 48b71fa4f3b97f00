//! A network of a test's own: a namespace that stands for the host, and one that is everything
//! outside. The thread that enters it, and whatever it starts, has the first as its network.
//!
//! ```text
//! host  10.9.0.2, 10.77.0.1, fd09::2, loopback ── outside: 203.0.113.7, 203.0.113.8, 2001:db8:7::7
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{has, is_root, skip};

/// The host's address towards the outside.
pub const HOST: &str = "10.9.0.2";
/// Another of its addresses.
pub const OTHER: &str = "10.77.0.1";
/// Its IPv6 address.
pub const HOST6: &str = "fd09::2";
/// A machine outside.
pub const OUTSIDE: &str = "203.0.113.7";
/// Its IPv6 address.
pub const OUTSIDE6: &str = "2001:db8:7::7";
/// Another one.
pub const OUTSIDE_TOO: &str = "203.0.113.8";
/// The host's name server: a service of its own, as systemd-resolved is.
pub const NAME_SERVER: &str = "127.0.0.53";

/// A network of its own. The thread that entered it is back in its former one when this is dropped.
#[derive(Debug)]
pub struct Lab {
    names: [String; 2],
    spaces: [File; 2],
    before: Option<[File; 2]>,
    resolv_conf: tempfile::NamedTempFile,
    /// What its name server answers.
    answer: Arc<Mutex<Ipv4Addr>>,
}

/// Which part of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The host.
    Host,
    /// Everything else.
    Outside,
}

/// Datagrams that a server got.
pub type Received = Arc<Mutex<Vec<String>>>;

/// What compartments with a network need is installed.
pub fn has_network(test: &str) -> bool {
    has(test, "pasta") && has(test, "nft")
}

impl Lab {
    /// Makes one, where that is possible.
    pub fn new(test: &str) -> Option<Self> {
        if !has_network(test) {
            return None;
        }
        if !is_root() {
            skip(test, "it needs root to make networks");
            return None;
        }
        if !has(test, "ip") {
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("casemate-{}-{number}-{side}", std::process::id());
        let names = [name("host"), name("outside")];
        let [host, outside] = &names;
        for name in &names {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        for (device, peer) in [("up0", "down0"), ("up1", "down1")] {
            let words =
                ["link", "add", device, "netns", host, "type", "veth", "peer", "name", peer];
            ip(&[&words[..], &["netns", outside]].concat());
            ip(&["-n", host, "link", "set", device, "up"]);
            ip(&["-n", outside, "link", "set", peer, "up"]);
        }
        for (space, address, device) in [
            (host, "10.9.0.2/24", "up0"),
            (host, "fd09::2/64", "up0"),
            (host, "10.77.0.1/24", "up1"),
            (outside, "10.9.0.1/24", "down0"),
            (outside, "fd09::1/64", "down0"),
            (outside, "2001:db8:7::7/128", "lo"),
            (outside, "203.0.113.7/32", "lo"),
            (outside, "203.0.113.8/32", "lo"),
        ] {
            let at_once: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            ip(&[&["-n", space, "address", "add", address, "dev", device], at_once].concat());
        }
        let spaces = [host, outside]
            .map(|name| File::open(format!("/run/netns/{name}")).expect("ip made it"));
        let mut resolv_conf = tempfile::NamedTempFile::new().expect("made");
        writeln!(resolv_conf, "nameserver {NAME_SERVER}").expect("written");
        // Everybody reads it, as the system's own.
        let everybody = fs::Permissions::from_mode(0o644);
        fs::set_permissions(resolv_conf.path(), everybody).expect("set");
        let answer = Arc::new(Mutex::new(Ipv4Addr::UNSPECIFIED));
        let lab = Self { names, spaces, before: None, resolv_conf, answer };
        lab.on_host(&["route", "add", "default", "via", "10.9.0.1"]);
        lab.on_host(&["-6", "route", "add", "default", "via", "fd09::1"]);
        Some(lab)
    }

    /// Makes the host of the lab this thread's network, with the lab's name server.
    pub fn enter(&mut self) {
        let of_thread = |kind: &str| {
            File::open(format!("/proc/thread-self/ns/{kind}")).expect("every thread has it")
        };
        self.before = Some([of_thread("net"), of_thread("mnt")]);
        setns(&self.spaces[0], CloneFlags::CLONE_NEWNET).expect("root may");
        unshare(CloneFlags::CLONE_NEWNS).expect("root may");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("root may");
        let place = fs::canonicalize("/etc/resolv.conf").expect("it is there");
        mount(Some(self.resolv_conf.path()), &place, none, MsFlags::MS_BIND, none)
            .expect("root may");
    }

    /// `ip` with these words, for the host of the lab.
    pub fn on_host(&self, words: &[&str]) {
        ip(&[&["-n", &self.names[0]], words].concat());
    }

    /// Lets its host forward packets, as one that is a router does.
    pub fn forward(&self) {
        let words = ["netns", "exec", &self.names[0], "sysctl", "-qw", "net.ipv4.ip_forward=1"];
        ip(&words);
    }

    /// A TCP server that greets whoever comes with this text and his address.
    pub fn greet(&self, side: Side, address: &str, port: u16, text: &'static str) {
        let address = SocketAddr::new(address.parse().expect("an address"), port);
        self.server(side, move |ready| {
            let listener = TcpListener::bind(address).expect("the address is the side's");
            ready.send(()).expect("somebody waits");
            for mut client in listener.incoming().flatten() {
                let peer = client.peer_addr().map(|peer| peer.ip().to_string());
                let _ = writeln!(client, "{text} {}", peer.unwrap_or_default());
            }
        });
    }

    /// A UDP server that remembers what it gets and answers with the sender's address.
    pub fn collect(&self, side: Side, address: &str, port: u16) -> Received {
        let address = SocketAddr::new(address.parse().expect("an address"), port);
        let received = Received::default();
        let kept = received.clone();
        self.server(side, move |ready| {
            let socket = UdpSocket::bind(address).expect("the address is the side's");
            ready.send(()).expect("somebody waits");
            let mut buffer = [0; 2048];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                kept.lock().expect("no panic").push(text);
                let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
        received
    }

    /// A name server of the host that knows one address for every name.
    pub fn answer_names(&self, answer: Ipv4Addr) {
        *self.answer.lock().expect("no panic") = answer;
        let answer = self.answer.clone();
        let address: IpAddr = NAME_SERVER.parse().expect("an address");
        self.server(Side::Host, move |ready| {
            let socket = UdpSocket::bind((address, 53)).expect("it is loopback");
            ready.send(()).expect("somebody waits");
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let address = *answer.lock().expect("no panic");
                if let Some(reply) = reply(&buffer[..length], address) {
                    let _ = socket.send_to(&reply, peer);
                }
            }
        });
    }

    /// What the name server says from now on.
    pub fn answer_names_with(&self, answer: Ipv4Addr) {
        *self.answer.lock().expect("no panic") = answer;
    }

    /// Runs a server until the end of the process; returns when it listens.
    fn server(&self, side: Side, run: impl FnOnce(mpsc::Sender<()>) + Send + 'static) {
        let space = self.spaces[usize::from(side == Side::Outside)].try_clone().expect("cloned");
        let (ready, listens) = mpsc::channel();
        std::thread::spawn(move || {
            setns(space, CloneFlags::CLONE_NEWNET).expect("root may");
            run(ready);
        });
        listens.recv().expect("it listens");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some([net, mnt]) = self.before.take() {
            setns(net, CloneFlags::CLONE_NEWNET).expect("root may");
            // Threads that were started meanwhile share the working directory.
            unshare(CloneFlags::CLONE_FS).expect("anybody may");
            setns(mnt, CloneFlags::CLONE_NEWNS).expect("root may");
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

/// An answer to a question of the DNS (RFC 1035, 4.1): the address for type A, nothing for others.
fn reply(question: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let mut end = 12;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    let question_end = end + 5;
    let is_address = question.get(end + 1..question_end)? == [0, 1, 0, 1];
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    reply.extend(&question[12..question_end]);
    if is_address {
        // The name of the question, type A, class IN, 60 s, 4 bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

#[track_caller]
fn ip(words: &[&str]) {
    let done = Command::new("ip").args(words).output().expect("ip starts");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {}: {said}", words.join(" "));
}
