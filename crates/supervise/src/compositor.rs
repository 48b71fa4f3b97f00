//! Connections to the user's compositor, for the proxy, which may open none: it asks with a byte, and
//! gets a byte and a connection back (`casemate-wayland --help`, `--upstream-fd`).
//!
//! ```text
//! asked ─ a sandbox of this compositor's ─ connects ──────────────────▶ a connection of the sandbox
//!   └ none, or it has ended ─▶ does it know sandboxes? ─ yes: make one ─▶ the same
//!                                                       └ no ──────────▶ a connection
//! ```
//!
//! **Invariant:** of what the proxy says only that it said something is looked at.

use std::cell::RefCell;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use casemate_host::sockets;
use casemate_wayland::sandbox::{self, SandboxError};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::crew::register;

/// There is a connection, as a descriptor.
const HERE: u8 = b'+';
/// There is none.
const NONE: u8 = b'-';

/// How long a compositor may take to make a sandbox.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections at once, and then each after so long: a proxy that a guest has taken over shall not
/// keep the user's compositor busy. It has 32 clients at a time.
const BURST: u32 = 64;
const PAUSE: Duration = Duration::from_millis(100);

/// Where the compositor is, as far as it is known; it may be another later.
pub(crate) type Display = Rc<RefCell<Option<PathBuf>>>;

/// For whom connections are made.
#[derive(Debug)]
pub(crate) struct Connector {
    /// Where the compositor is.
    pub(crate) display: Display,
    /// The compartment.
    pub(crate) compartment: String,
    /// Where the sandbox's socket lies: in a folder where no other user gets.
    pub(crate) socket: PathBuf,
}

/// How a compositor is reached.
#[derive(Debug)]
enum Way {
    /// By a sandbox that is kept as long as this is open.
    Sandbox { display: PathBuf, _keeps: OwnedFd },
    /// It knows none.
    Plain { display: PathBuf },
}

impl Way {
    fn display(&self) -> &Path {
        match self {
            Self::Sandbox { display, .. } | Self::Plain { display } => display,
        }
    }
}

/// What is known of the compositor from one connection to the next.
#[derive(Debug, Default)]
struct Known {
    way: Option<Way>,
    /// It was said that there is none.
    silent: bool,
}

/// Answers until the proxy has gone.
///
/// # Errors
/// The socket cannot be watched.
pub(crate) fn serve(socket: OwnedFd, connector: Connector) -> io::Result<()> {
    let socket = register(socket, Interest::READABLE)?;
    tokio::task::spawn_local(async move {
        let mut known = Known::default();
        let mut pace = Pace::default();
        while let Ok(true) = answer(&socket, &connector, &mut known, &mut pace).await {}
    });
    Ok(())
}

/// One answer. False at the end.
async fn answer(
    socket: &AsyncFd<OwnedFd>,
    connector: &Connector,
    known: &mut Known,
    pace: &mut Pace,
) -> io::Result<bool> {
    let mut guard = socket.readable().await?;
    let mut byte = [0];
    let raw = socket.get_ref().as_raw_fd();
    match recv(raw, &mut byte, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => {
            guard.clear_ready();
            return Ok(true);
        }
        Err(error) => return Err(error.into()),
    }
    tokio::time::sleep(pace.wait(Instant::now())).await;
    let display = connector.display.borrow().clone();
    let connected = match display {
        Some(display) => match connect(connector, display, &mut known.way).await {
            Ok(connected) => {
                known.silent = false;
                Some(connected)
            }
            Err(error) => {
                if !std::mem::replace(&mut known.silent, true) {
                    tracing::warn!("could not connect to the compositor: {error}");
                }
                None
            }
        },
        None => None,
    };
    let fds: Vec<_> = connected.iter().map(|stream| stream.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let (byte, rights) = if fds.is_empty() { (NONE, &rights[..0]) } else { (HERE, &rights[..]) };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    // A proxy that does not take its answers is given up.
    sendmsg::<()>(raw, &[IoSlice::new(&[byte])], rights, flags, None)?;
    Ok(true)
}

/// A connection to the compositor, by the way that is known, or as one is found.
async fn connect(
    connector: &Connector,
    display: PathBuf,
    way: &mut Option<Way>,
) -> io::Result<UnixStream> {
    let known = match way.as_ref().filter(|way| way.display() == display) {
        Some(Way::Sandbox { .. }) => sockets::connect_at_once(&connector.socket).ok(),
        Some(Way::Plain { .. }) => sockets::connect_at_once(&display).ok(),
        None => None,
    };
    if let Some(connected) = known {
        return Ok(connected);
    }
    // Another compositor, perhaps at the same place.
    *way = None;
    let (from, name, path) =
        (display.clone(), connector.compartment.clone(), connector.socket.clone());
    let made = tokio::task::spawn_blocking(move || make(&from, &name, &path)).await;
    match made.map_err(io::Error::other)?? {
        Some(keeps) => {
            *way = Some(Way::Sandbox { display, _keeps: keeps });
            sockets::connect_at_once(&connector.socket)
        }
        None => {
            let connected = sockets::connect_at_once(&display)?;
            *way = Some(Way::Plain { display });
            Ok(connected)
        }
    }
}

/// Makes a sandbox of this compositor's at `path`; none when it knows none. One that fails at it is used
/// without: the proxy lets through no more either way.
fn make(display: &Path, compartment: &str, path: &Path) -> io::Result<Option<OwnedFd>> {
    let connection = sockets::connect_at_once(display)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = sockets::listen(path)?;
    match sandbox::enter(connection.into(), listener.into(), compartment, PATIENCE) {
        Ok(keeps) => Ok(keeps),
        // It has gone meanwhile, or hangs.
        Err(error @ (SandboxError::Io(_) | SandboxError::Late)) => Err(io::Error::other(error)),
        Err(error) => {
            tracing::warn!("windows are shown without a sandbox of the compositor's: {error}");
            Ok(None)
        }
    }
}

/// How fast connections are made.
#[derive(Debug, Default)]
struct Pace {
    /// Those of the burst that are used up, and until when that counts.
    used: u32,
    since: Option<Instant>,
}

impl Pace {
    /// How long the next one has to wait.
    fn wait(&mut self, now: Instant) -> Duration {
        let since = *self.since.get_or_insert(now);
        let earned = (now.saturating_duration_since(since).as_millis() / PAUSE.as_millis()) as u32;
        if earned > 0 {
            self.used = self.used.saturating_sub(earned);
            self.since = Some(since + PAUSE * earned);
        }
        // The one that waits is counted, too.
        self.used += 1;
        if self.used <= BURST { Duration::ZERO } else { PAUSE * (self.used - BURST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_a_burst_are_made_one_by_one() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        for _ in 0..BURST {
            assert_eq!(pace.wait(now), Duration::ZERO);
        }
        // Each after it has waited.
        let begin = now;
        for _ in 0..100 {
            now += pace.wait(now);
        }
        assert_eq!(now - begin, PAUSE * 100);
        now += Duration::from_secs(3600);
        assert_eq!(pace.wait(now), Duration::ZERO);
        assert_eq!(pace.used, 1);
    }

    #[tokio::test]
    async fn compositor_that_comes_back_is_asked_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let display = folder.path().join("wayland-1");
        let connector = Connector {
            display: Rc::default(),
            compartment: "work".into(),
            socket: folder.path().join("compositor"),
        };
        let mut way = None;
        let error = connect(&connector, display.clone(), &mut way).await.expect_err("nobody");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        for _ in 0..2 {
            let listener = sockets::listen(&display).expect("bound");
            // One that answers every question for globals with none.
            let server = std::thread::spawn(move || {
                let (mut asked, _) = listener.accept().expect("asked");
                let mut request = [0; 24];
                io::Read::read_exact(&mut asked, &mut request).expect("registry and sync");
                let done: Vec<u8> = [3_u32, 12 << 16, 0].map(u32::to_ne_bytes).concat();
                io::Write::write_all(&mut asked, &done).expect("answered");
                let _clients = [listener.accept().expect("one"), listener.accept().expect("two")];
            });
            for _ in 0..2 {
                connect(&connector, display.clone(), &mut way).await.expect("connected");
                assert!(matches!(way, Some(Way::Plain { .. })), "{way:?}");
            }
            server.join().expect("no panic");
            fs::remove_file(&display).expect("removed");
            connect(&connector, display.clone(), &mut way).await.expect_err("gone");
        }
    }
}
