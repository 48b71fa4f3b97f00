//! Windows of the guest on the user's desktop: what shows them is started for the first, and again
//! when it has ended.
//!
//! ```text
//! Open ─▶ compositor answers? ─▶ proxy runs? ─▶ waypipe runs? ─▶ connect to waypipe ─▶ WindowsOpened
//!             no: WindowsOpened(Err)  start it      start it        as soon as it listens
//! ```
//!
//! [`Transport`] is what carries windows between guest and proxy; waypipe is the only one so far.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use casemate_host::facts::find_program;
use casemate_host::launch::{Launched, launch};
use casemate_host::sockets;
use casemate_link::orders::Order;
use casemate_plan::process::{Channel, Role};
use casemate_plan::windows;
use nix::fcntl::OFlag;

use super::{Runtime, log};
use crate::compositor::{self, Connector, Display};
use crate::control::ProcessStatus;
use crate::keeper::{clipboard_socket, compositor_socket};
use crate::life::{Event, WindowTrouble};

/// How long waypipe may take to listen. Under emulation of nothing it takes 0.1 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries to connect to it.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the windows of one compartment go.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// The compositor's socket, as the last client had it.
    display: Display,
    proxy: Option<Proxy>,
    transport: Option<Box<dyn Transport>>,
    /// Transports started so far, by which their sockets are named.
    started: u32,
    /// Sockets for connections that are about to be told to the link.
    connected: Rc<RefCell<HashMap<u32, OwnedFd>>>,
}

/// The proxy and the sockets that outlive it.
#[derive(Debug)]
struct Proxy {
    process: Launched,
    display: OwnedFd,
    clipboard: OwnedFd,
}

/// What takes the windows of the guest out of a stream of bytes and is a client of the proxy.
trait Transport: std::fmt::Debug {
    /// It runs still.
    fn is_running(&mut self) -> bool;
    /// Where a connection for each program of the guest is made to.
    fn socket(&self) -> &Path;
    /// Process id of its monitor.
    fn pid(&self) -> u32;
}

/// waypipe.
#[derive(Debug)]
struct Waypipe {
    process: Launched,
    socket: PathBuf,
}

impl Transport for Waypipe {
    fn is_running(&mut self) -> bool {
        runs(&mut self.process)
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Windows {
    /// Process ids, by role.
    pub(super) fn status(&self) -> impl Iterator<Item = ProcessStatus> {
        let proxy = self.proxy.as_ref().map(|proxy| (Role::Windows, proxy.process.pid()));
        let transport = self.transport.as_ref().map(|carrier| (Role::Waypipe, carrier.pid()));
        let status = |(role, pid): (Role, u32)| ProcessStatus { role: role.name().into(), pid };
        proxy.into_iter().chain(transport).map(status)
    }
}

fn runs(process: &mut Launched) -> bool {
    matches!(process.try_wait(), Ok(None))
}

impl Runtime<'_> {
    /// A client has this compositor.
    pub(super) fn use_display(&mut self, display: PathBuf) {
        let mut known = self.windows.display.borrow_mut();
        // One that is there keeps the windows; they cannot move.
        if known.as_ref().is_none_or(|known| *known != display && !answers(known)) {
            *known = Some(display);
        }
    }

    /// Opens the way for a program of the guest; [`Event::WindowsOpened`] follows.
    pub(super) fn open_windows(&mut self, window: u32) {
        match self.ready_for_windows() {
            Ok(socket) => self.connect_windows(window, socket),
            Err(trouble) => self.windows_opened(window, Err(trouble)),
        }
    }

    fn windows_opened(&self, window: u32, result: Result<(), WindowTrouble>) {
        // Not `tell`: the effects of this round come first.
        let _ = self.events.send((self.launches, Event::WindowsOpened { window, result }));
    }

    /// Has everything running. Returns where to connect to.
    fn ready_for_windows(&mut self) -> Result<PathBuf, WindowTrouble> {
        let display = self.windows.display.borrow().clone().ok_or(WindowTrouble::NoCompositor)?;
        if let Err(error) = sockets::connect_at_once(&display) {
            let reason = error.to_string();
            return Err(WindowTrouble::CompositorGone { display, reason });
        }
        let failed = |error: io::Error| WindowTrouble::Failed(error.to_string());
        let folder = self.windows_folder().map_err(failed)?;
        self.start_proxy(&folder)?;
        if let Some(transport) = &mut self.windows.transport
            && transport.is_running()
        {
            return Ok(transport.socket().to_owned());
        }
        self.start_waypipe(&folder)
    }

    /// The folder that waypipe sees: in the run directory, where no other user gets.
    fn windows_folder(&self) -> io::Result<PathBuf> {
        let folder = self.assignment.request.run_directory.join("windows");
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // waypipe is another user.
        fs::set_permissions(&folder, Permissions::from_mode(0o777))?;
        Ok(folder)
    }

    fn windows_log(&self) -> io::Result<OwnedFd> {
        log::bounded(&self.assignment.log_directory.join("windows.log"))
    }

    fn start_proxy(&mut self, folder: &Path) -> Result<(), WindowTrouble> {
        if self.windows.proxy.as_mut().is_some_and(|proxy| runs(&mut proxy.process)) {
            return Ok(());
        }
        let (display, clipboard) = match self.windows.proxy.take() {
            Some(proxy) => {
                tracing::warn!("the proxy of its windows has ended; starting another");
                (proxy.display, proxy.clipboard)
            }
            None => self.proxy_sockets(folder).map_err(|e| WindowTrouble::Failed(e.to_string()))?,
        };
        let assignment = &self.assignment;
        let process = windows::proxy(&assignment.request, &assignment.facts)
            .map_err(|error| WindowTrouble::Failed(crate::chain(&error)))?;
        let launched = (|| -> Result<Launched, Box<dyn std::error::Error>> {
            let (ours, theirs) = sockets::channel_pair(Channel::Compositor)?;
            let mut ends = BTreeMap::from([
                (Channel::Display, display.try_clone()?),
                (Channel::Clipboard, clipboard.try_clone()?),
                (Channel::Compositor, theirs),
            ]);
            let mut handed = Vec::new();
            for descriptor in &process.descriptors {
                let end = descriptor.what.channel().and_then(|channel| ends.remove(&channel));
                handed.push((
                    descriptor.number,
                    end.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?,
                ));
            }
            let jail = &assignment.facts.programs.jail;
            let launched = launch(&process, jail, handed, self.windows_log()?)?;
            let connector = Connector {
                display: self.windows.display.clone(),
                compartment: assignment.request.instance.name.clone(),
                socket: compositor_socket(&assignment.request.run_directory),
            };
            compositor::serve(ours, connector)?;
            Ok(launched)
        })();
        let launched = launched.map_err(|error| WindowTrouble::Failed(error.to_string()))?;
        self.windows.proxy = Some(Proxy { process: launched, display, clipboard });
        Ok(())
    }

    /// Where waypipe connects to the proxy, and where the clipboard's commands do.
    fn proxy_sockets(&self, folder: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
        let path = folder.join(windows::DISPLAY_NAME);
        let display = sockets::listen(&path)?;
        // waypipe is another user; the folder above lets nobody in.
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        let clipboard = sockets::listen(&clipboard_socket(&self.assignment.request.run_directory))?;
        Ok((display.into(), clipboard.into()))
    }

    fn start_waypipe(&mut self, folder: &Path) -> Result<PathBuf, WindowTrouble> {
        let program = find_program("waypipe").ok_or(WindowTrouble::NoWaypipe)?;
        if self.windows.transport.take().is_some() {
            tracing::warn!("waypipe has ended; starting another");
        }
        self.windows.started += 1;
        let name = format!("waypipe-{}", self.windows.started);
        let assignment = &self.assignment;
        let process =
            windows::waypipe(&assignment.request, &assignment.facts, &program, folder, &name)
                .map_err(|error| WindowTrouble::Failed(crate::chain(&error)))?;
        let failed = |error: &dyn std::error::Error| WindowTrouble::Failed(crate::chain(error));
        let log = self.windows_log().map_err(|error| failed(&error))?;
        let process = launch(&process, &assignment.facts.programs.jail, vec![], log)
            .map_err(|error| failed(&error))?;
        let socket = folder.join(name);
        self.windows.transport = Some(Box::new(Waypipe { process, socket: socket.clone() }));
        Ok(socket)
    }

    /// Connects as soon as somebody listens there.
    fn connect_windows(&self, window: u32, socket: PathBuf) {
        let (events, launch, sockets) =
            (self.events.clone(), self.launches, self.windows.connected.clone());
        tokio::task::spawn_local(async move {
            let begin = Instant::now();
            let result = loop {
                match connect(&socket) {
                    Ok(stream) => {
                        sockets.borrow_mut().insert(window, stream.into());
                        break Ok(());
                    }
                    Err(error) if begin.elapsed() > PATIENCE => {
                        let reason = format!("waypipe does not listen: {error}");
                        break Err(WindowTrouble::Failed(reason));
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            };
            // Nobody listens when the life has ended meanwhile.
            let _ = events.send((launch, Event::WindowsOpened { window, result }));
        });
    }

    /// The link gets what leads to waypipe.
    pub(super) fn show_windows(&mut self, stream: u32, window: u32) {
        let socket = self.windows.connected.borrow_mut().remove(&window);
        if let Some(socket) = socket {
            self.order(Order::ShowWindows { stream, window }, Some(socket));
        }
    }

    /// The guest is gone, and its windows with it.
    pub(super) fn close_windows(&mut self) {
        self.windows.transport = None;
        self.windows.proxy = None;
        self.windows.connected.borrow_mut().clear();
        let run_directory = &self.assignment.request.run_directory;
        // What cannot be removed now is removed with the directory.
        let _ = fs::remove_dir_all(run_directory.join("windows"));
        let _ = fs::remove_file(clipboard_socket(run_directory));
        let _ = fs::remove_file(compositor_socket(run_directory));
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    // What is there was made by a process that may have been taken over, and may be something else a
    // moment later: what is looked at is what is connected to.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let found = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if !found.metadata()?.file_type().is_socket() {
        return Err(io::ErrorKind::NotConnected.into());
    }
    sockets::connect_at_once(Path::new(&format!("/proc/self/fd/{}", found.as_raw_fd())))
}

/// Somebody listens there.
fn answers(display: &Path) -> bool {
    sockets::connect_at_once(display).is_ok()
}
