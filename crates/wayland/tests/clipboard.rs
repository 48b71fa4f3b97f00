//! Selections stay in their compartment; the broker takes and offers.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use casemate_wayland::protocol::Interface;
use casemate_wayland::wire::Arg;
use common::client::Client;
use common::desktop::{Desktop, Proxy, find};
use common::pointer::Pointer;
use common::until;
use common::window::{BLUE, Bound, GREEN, PINK, Window};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde_json::{Value, json};

const TEXT: &str = "text/plain;charset=utf-8";

/// A client with a window, a device and perhaps a source.
struct Copier<'a> {
    desktop: &'a Desktop,
    client: Client,
    manager: u32,
    device: u32,
    bound: Bound,
    window: Window,
    id: String,
}

/// Names windows.
static LAST: AtomicU32 = AtomicU32::new(0);

impl<'a> Copier<'a> {
    fn new(desktop: &'a Desktop, display: &Path) -> Self {
        Self::colored(desktop, display, BLUE.0)
    }

    fn colored(desktop: &'a Desktop, display: &Path, color: u32) -> Self {
        let mut client = Client::connect(display);
        let bound = Bound::new(&mut client);
        let seat = bound.seat;
        let manager = client.bind(Interface::DataDeviceManager);
        let arguments = vec![Arg::Object(seat)];
        let device = client.make(manager, "get_data_device", Interface::DataDevice, arguments);
        let window = Window::empty(&mut client, bound);
        let id = format!("copier{}", LAST.fetch_add(1, Ordering::Relaxed));
        client.say(window.toplevel, "set_app_id", vec![Arg::String(Some(id.clone()))]);
        bound.paint(&mut client, window.surface, (200, 200), color);
        window.commit(&mut client);
        Self { desktop, client, manager, device, bound, window, id }
    }

    /// Gives its window the focus.
    fn focus(&mut self) {
        self.desktop.sway(&format!("[app_id={}$] focus", self.id));
        let toplevel = self.window.toplevel;
        let activated = |client: &Client| {
            let states = &client.last(toplevel, "configure")?.arguments[2];
            let Arg::Array(bytes) = states else { return None };
            bytes.as_chunks::<4>().0.contains(&4_u32.to_ne_bytes()).then_some(())
        };
        self.client.wait(activated).expect("the focus");
        self.client.sync().expect("alive");
    }

    /// Offers something.
    fn copy(&mut self, kinds: &[&str]) -> u32 {
        let source =
            self.client.make(self.manager, "create_data_source", Interface::DataSource, vec![]);
        for kind in kinds {
            self.client.say(source, "offer", vec![Arg::String(Some((*kind).into()))]);
        }
        let arguments = vec![Arg::Object(source), Arg::Uint(0)];
        self.client.say(self.device, "set_selection", arguments);
        self.client.sync().expect("alive");
        source
    }

    /// The offer that is the selection when it has the focus; 0 for none.
    fn selection(&mut self) -> u32 {
        self.focus();
        self.client.last(self.device, "selection").expect("told").uint(0)
    }

    fn kinds(&self, offer: u32) -> Vec<&str> {
        let events = self.client.events.iter();
        let offers = events.filter(|event| event.object == offer && event.name == "offer");
        offers.map(|event| event.text(0)).collect()
    }

    /// Asks for data.
    fn paste(&mut self, offer: u32, kind: &str) -> File {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        let arguments = vec![Arg::String(Some(kind.into())), Arg::Fd(write)];
        self.client.say(offer, "receive", arguments);
        self.client.sync().expect("alive");
        File::from(read)
    }

    /// Answers who asks for data.
    fn answer(&mut self, source: u32, text: &str) {
        let fd = self.client.wait(|client| client.last(source, "send").map(|_| ()));
        fd.expect("asked");
        let at = self.client.events.iter().rposition(|event| event.name == "send").expect("asked");
        let event = self.client.events.remove(at);
        for argument in event.arguments {
            if let Arg::Fd(fd) = argument {
                File::from(fd).write_all(text.as_bytes()).expect("written");
            }
        }
    }
}

fn read(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).expect("text");
    text
}

#[test]
fn a_selection_is_for_the_compartment_and_nobody_else() {
    let desktop = desktop!();
    let (work, home) = (desktop.proxy("work", &[]), desktop.proxy("home", &[]));
    let mut outside = Copier::new(&desktop, &desktop.wayland());
    let mut other = Copier::new(&desktop, &home.socket);
    let (mut first, mut second) =
        (Copier::new(&desktop, &work.socket), Copier::new(&desktop, &work.socket));
    let source = first.copy(&[TEXT, "text/html"]);
    let offer = second.selection();
    assert_eq!(second.kinds(offer), [TEXT, "text/html"]);
    let pipe = second.paste(offer, TEXT);
    first.answer(source, "secret");
    assert_eq!(read(pipe), "secret");
    let unknown = second.paste(offer, "image/png");
    assert_eq!(read(unknown), "", "what is not offered is closed");
    for copier in [&mut outside, &mut other] {
        copier.focus();
        assert!(copier.client.events.iter().all(|event| event.name != "data_offer"));
    }
    // Replaced: the first hears of it, the old offer gives nothing.
    second.copy(&["text/plain"]);
    first.client.wait(|client| client.last(source, "cancelled").map(|_| ())).expect("cancelled");
    assert_eq!(read(second.paste(offer, TEXT)), "");
    let newest = first.selection();
    assert_eq!(first.kinds(newest), ["text/plain"]);
    drop(second);
    until("the selection is gone with its client", || (first.selection() == 0).then_some(()));
}

#[test]
fn the_primary_selection_is_one_of_its_own() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut clients = [Client::connect(&proxy.socket), Client::connect(&proxy.socket)];
    let [(manager, device), (_, other)] = clients.each_mut().map(|client| {
        let bound = Bound::new(client);
        let manager = client.bind(Interface::PrimarySelectionDeviceManager);
        let kind = Interface::PrimarySelectionDevice;
        let seat = vec![Arg::Object(bound.seat)];
        let device = client.make(manager, "get_device", kind, seat);
        // The last has the focus.
        Window::show(client, bound, (100, 100), BLUE.0);
        (manager, device)
    });
    let [first, second] = &mut clients;
    second.sync().expect("alive");
    let source = first.make(manager, "create_source", Interface::PrimarySelectionSource, vec![]);
    first.say(source, "offer", vec![Arg::String(Some(TEXT.into()))]);
    first.say(device, "set_selection", vec![Arg::Object(source), Arg::Uint(0)]);
    first.sync().expect("alive");
    let offer = second.wait(|client| {
        client.last(other, "selection").map(|event| event.uint(0)).filter(|id| *id != 0)
    });
    let offer = offer.expect("told");
    let (read_end, write) = rustix::pipe::pipe().expect("a pipe");
    second.say(offer, "receive", vec![Arg::String(Some(TEXT.into())), Arg::Fd(write)]);
    second.sync().expect("alive");
    first.wait(|client| client.last(source, "send").map(|_| ())).expect("asked");
    first.events.clear();
    assert_eq!(read(File::from(read_end)), "");
    let mut copier = Copier::new(&desktop, &proxy.socket);
    assert_eq!(copier.selection(), 0, "the clipboard is empty");
}

#[test]
fn real_programs_copy_and_paste_within_a_compartment_only() {
    let desktop = desktop!();
    if find("wl-copy").is_none() || find("wtype").is_none() {
        println!("skipped: wl-clipboard or wtype is not installed");
        return;
    }
    // A keyboard, so that there is a focus: the compositor's own clipboard needs one.
    let mut keyboard = desktop.command("wtype", &desktop.wayland());
    let mut keyboard = keyboard.args(["-s", "60000"]).spawn().expect("wtype starts");
    let (work, home) = (desktop.proxy("work", &[]), desktop.proxy("home", &[]));
    let copy = |display: &Path, text: &str| {
        let mut command = desktop.command("wl-copy", display);
        let mut copy =
            command.arg("--foreground").stdin(Stdio::piped()).spawn().expect("it starts");
        copy.stdin.take().expect("input").write_all(text.as_bytes()).expect("written");
        copy
    };
    let paste = |display: &Path| {
        let mut command = desktop.command("timeout", display);
        let output = command.args(["5", "wl-paste", "--no-newline"]).output().expect("it starts");
        String::from_utf8(output.stdout).expect("text")
    };
    let mut outside = copy(&desktop.wayland(), "of the host");
    let mut inside = copy(&work.socket, "of work");
    until("what was copied in work", || (paste(&work.socket) == "of work").then_some(()));
    until("what was copied outside", || (paste(&desktop.wayland()) == "of the host").then_some(()));
    assert_eq!(paste(&home.socket), "");
    for child in [&mut outside, &mut inside, &mut keyboard] {
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
}

/// The broker's end.
struct Broker {
    socket: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Broker {
    fn connect(path: &Path) -> Self {
        let socket = until("the control socket", || UnixStream::connect(path).ok());
        socket.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
        let lines = BufReader::new(socket.try_clone().expect("duplicated"));
        Self { socket, lines }
    }

    fn say(&mut self, line: Value, file: Option<OwnedFd>) {
        let text = format!("{line}\n");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::empty()).expect("sent");
    }

    /// The next line.
    fn hear_all(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The next line that is not about the focus.
    fn hear(&mut self) -> Value {
        loop {
            let line = self.hear_all();
            if line["focus"].is_null() {
                return line;
            }
        }
    }

    /// The next line with its descriptor.
    fn hear_with_fd(&mut self) -> (Value, Option<File>) {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .expect("read");
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let line = serde_json::from_slice(&bytes[..received.bytes]).expect("one line of JSON");
        (line, fd.map(File::from))
    }
}

fn with_broker(desktop: &Desktop, name: &str) -> (Proxy, Broker) {
    let control = desktop.path(&format!("{name}.control"));
    let proxy = desktop.proxy(name, &["--control", &control.to_string_lossy()]);
    (proxy, Broker::connect(&control))
}

#[test]
fn the_broker_takes_the_clipboard() {
    let desktop = desktop!();
    let (proxy, mut broker) = with_broker(&desktop, "work");
    broker.say(json!({"take": {"types": [TEXT]}}), None);
    assert_eq!(broker.hear(), json!({"taken": null}));
    let mut copier = Copier::new(&desktop, &proxy.socket);
    let source = copier.copy(&["text/html", TEXT]);
    broker.say(json!({"status": {}}), None);
    let status = json!({"focused": true, "clipboard": ["text/html", TEXT]});
    assert_eq!(broker.hear(), json!({"status": status}));
    broker.say(json!({"take": {"types": ["image/png", TEXT, "text/html"]}}), None);
    let (line, pipe) = broker.hear_with_fd();
    assert_eq!(line, json!({"taken": {"type": TEXT}}));
    copier.answer(source, "for the broker");
    assert_eq!(read(pipe.expect("a pipe")), "for the broker");
}

#[test]
fn what_the_broker_offers_is_pasted_once() {
    let desktop = desktop!();
    let (proxy, mut broker) = with_broker(&desktop, "work");
    let mut copier = Copier::new(&desktop, &proxy.socket);
    let before = copier.copy(&["text/html"]);
    // More than a pipe holds.
    let text = "0123456789abcdef".repeat(20_000);
    let offer = json!({"offer": {"types": [TEXT, "text/plain"], "seconds": 60}});
    broker.say(offer, Some(Client::memory(text.as_bytes())));
    assert_eq!(broker.hear(), json!({"offered": {}}));
    copier.client.wait(|client| client.last(before, "cancelled").map(|_| ())).expect("cancelled");
    let offer = copier.selection();
    assert_eq!(copier.kinds(offer), [TEXT, "text/plain"]);
    let pipe = copier.paste(offer, "text/plain");
    assert_eq!(read(pipe), text);
    assert_eq!(broker.hear(), json!({"used": {"type": "text/plain"}}));
    assert_eq!(read(copier.paste(offer, TEXT)), "", "once");
    // A program that is slow to read its data does not hear of the end before it.
    assert_ne!(copier.selection(), 0);
    common::until("it is withdrawn", || (copier.selection() == 0).then_some(()));
}

#[test]
fn an_offer_expires_is_withdrawn_or_replaced() {
    let desktop = desktop!();
    let (proxy, mut broker) = with_broker(&desktop, "work");
    let mut copier = Copier::new(&desktop, &proxy.socket);
    let offer = |seconds: u64| json!({"offer": {"types": [TEXT], "seconds": seconds}});
    broker.say(offer(1), Some(Client::memory(b"x")));
    assert_eq!(broker.hear(), json!({"offered": {}}));
    assert_eq!(broker.hear(), json!({"expired": {}}));
    assert_eq!(copier.selection(), 0);
    broker.say(offer(60), Some(Client::memory(b"x")));
    assert_eq!(broker.hear(), json!({"offered": {}}));
    assert_ne!(copier.selection(), 0);
    broker.say(json!({"clear": {}}), None);
    assert_eq!(broker.hear(), json!({"cleared": {}}));
    assert_eq!(copier.selection(), 0);
    broker.say(offer(60), Some(Client::memory(b"x")));
    assert_eq!(broker.hear(), json!({"offered": {}}));
    copier.copy(&[TEXT]);
    assert_eq!(broker.hear(), json!({"replaced": {}}));
    // A pipe that nobody reads holds nothing up.
    broker.say(offer(60), Some(Client::memory(&vec![0; 2 << 20])));
    assert_eq!(broker.hear(), json!({"offered": {}}));
    let id = copier.selection();
    let _full = copier.paste(id, TEXT);
    copier.client.sync().expect("alive");
    broker.say(json!({"nonsense": 1}), None);
    assert!(broker.hear()["error"].as_str().is_some());
    broker.say(json!({"offer": {"types": [TEXT], "seconds": 1}}), None);
    assert_eq!(broker.hear(), json!({"error": "there is no file with the offer"}));
}

#[test]
fn the_broker_hears_of_the_focus() {
    let desktop = desktop!();
    let (proxy, mut broker) = with_broker(&desktop, "work");
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = Window::show(&mut client, bound, (100, 100), BLUE.0);
    assert_eq!(broker.hear_all(), json!({"focus": true}));
    let mut outside = Client::connect(&desktop.wayland());
    let other = Bound::new(&mut outside);
    Window::show(&mut outside, other, (100, 100), PINK.0);
    client.wait(|client| client.last(window.toplevel, "configure").map(|_| ())).expect("told");
    assert_eq!(broker.hear_all(), json!({"focus": false}));
    drop(outside);
    client.sync().expect("alive");
    assert_eq!(broker.hear_all(), json!({"focus": true}));
    drop(client);
    assert_eq!(broker.hear_all(), json!({"focus": false}));
}

/// A window at a place of the desktop, and its pointer.
fn draggable<'a>(
    desktop: &'a Desktop,
    display: &Path,
    at: (i32, i32),
    color: u32,
) -> (Copier<'a>, u32) {
    let mut copier = Copier::colored(desktop, display, color);
    let seat = copier.bound.seat;
    let pointer = copier.client.make(seat, "get_pointer", Interface::Pointer, vec![]);
    copier.focus();
    desktop.sway(&format!("[app_id={}$] move position {} {}", copier.id, at.0, at.1));
    copier.client.sync().expect("alive");
    desktop.picture();
    (copier, pointer)
}

/// Drags from the one window to a point, and lets go there.
fn drag(
    from: &mut Copier<'_>,
    wl_pointer: u32,
    pointer: &mut Pointer,
    path: [(i32, i32); 2],
) -> u32 {
    let (bound, window) = (from.bound, from.window);
    pointer.to(path[0].0, path[0].1);
    pointer.press(true);
    let client = &mut from.client;
    let serial = client.wait(|client| Some(client.last(wl_pointer, "button")?.uint(0)));
    let source = client.make(from.manager, "create_data_source", Interface::DataSource, vec![]);
    client.say(source, "offer", vec![Arg::String(Some(TEXT.into()))]);
    client.say(source, "set_actions", vec![Arg::Uint(1)]);
    let icon = bound.surface(client);
    let arguments = vec![
        Arg::Object(source),
        Arg::Object(window.surface),
        Arg::Object(icon),
        Arg::Uint(serial.expect("pressed")),
    ];
    client.say(from.device, "start_drag", arguments);
    bound.paint(client, icon, (900, 600), GREEN.0);
    client.say(icon, "commit", vec![]);
    client.sync().expect("alive");
    for step in 1..=10 {
        let part = |a: i32, b: i32| a + (b - a) * step / 10;
        pointer.to(part(path[0].0, path[1].0), part(path[0].1, path[1].1));
        client.sync().expect("alive");
    }
    source
}

#[test]
fn things_are_dragged_between_windows_of_a_compartment() {
    let desktop = desktop!();
    let mut pointer = Pointer::new(&desktop);
    let proxy = desktop.proxy("work", &[]);
    let (mut from, wl_pointer) = draggable(&desktop, &proxy.socket, (10, 10), BLUE.0);
    let (mut to, _) = draggable(&desktop, &proxy.socket, (600, 300), PINK.0);
    let path = [(100, 100), (700, 400)];
    let source = drag(&mut from, wl_pointer, &mut pointer, path);
    let picture = desktop.picture();
    let (left, top, right, bottom) = picture.bounds(GREEN.1).expect("an icon");
    assert!(right - left <= 256 && bottom - top <= 256, "the icon is cut");
    to.client.wait(|client| client.last(to.device, "enter").map(|_| ())).expect("entered");
    let enter = to.client.last(to.device, "enter").expect("entered");
    let (serial, offer) = (enter.uint(0), enter.uint(4));
    assert_eq!(to.kinds(offer), [TEXT]);
    let accept = vec![Arg::Uint(serial), Arg::String(Some(TEXT.into()))];
    to.client.say(offer, "accept", accept);
    to.client.say(offer, "set_actions", vec![Arg::Uint(1), Arg::Uint(1)]);
    to.client.sync().expect("alive");
    from.client
        .wait(|client| {
            let target = client.last(source, "target")?;
            matches!(&target.arguments[0], Arg::String(Some(kind)) if kind == TEXT).then_some(())
        })
        .expect("accepted");
    pointer.press(false);
    to.client.wait(|client| client.last(to.device, "drop").map(|_| ())).expect("dropped");
    let pipe = to.paste(offer, TEXT);
    from.answer(source, "dragged");
    assert_eq!(read(pipe), "dragged");
    to.client.say(offer, "finish", vec![]);
    to.client.say(offer, "destroy", vec![]);
    to.client.sync().expect("alive");
    from.client.wait(|client| client.last(source, "dnd_finished").map(|_| ())).expect("finished");
}

#[test]
fn nothing_is_dragged_out_of_a_compartment_or_into_it() {
    let desktop = desktop!();
    let mut pointer = Pointer::new(&desktop);
    let (work, home) = (desktop.proxy("work", &[]), desktop.proxy("home", &[]));
    for display in [desktop.wayland(), home.socket.clone()] {
        let (mut inside, wl_pointer) = draggable(&desktop, &work.socket, (10, 10), BLUE.0);
        let (mut outside, outer_pointer) = draggable(&desktop, &display, (600, 300), PINK.0);
        let out = [(100, 100), (700, 400)];
        drag(&mut inside, wl_pointer, &mut pointer, out);
        outside.client.sync().expect("alive");
        match outside.client.last(outside.device, "enter").map(|event| event.uint(4)) {
            // Another compartment hears nothing at all.
            None => assert_eq!(display, home.socket),
            // The host sees a type that means nothing, and gets nothing for it.
            Some(offer) => {
                assert_ne!(display, home.socket);
                let kinds = outside.kinds(offer).join(" ");
                assert!(kinds.starts_with("application/x-casemate-drag-"), "{kinds}");
                let pipe = outside.paste(offer, &kinds);
                assert_eq!(read(pipe), "");
            }
        }
        pointer.press(false);
        let mut back = out;
        back.reverse();
        inside.client.events.retain(|event| event.object != inside.device);
        drag(&mut outside, outer_pointer, &mut pointer, back);
        inside.client.sync().expect("alive");
        let heard = inside.client.events.iter().filter(|event| event.object == inside.device);
        assert_eq!(heard.count(), 0);
        pointer.press(false);
    }
}

#[test]
fn a_paste_into_what_is_no_pipe_gives_nothing_and_holds_nobody_up() {
    let desktop = desktop!();
    let (mut proxy, mut broker) = with_broker(&desktop, "work");
    let mut copier = Copier::new(&desktop, &proxy.socket);
    let text = "x".repeat(1 << 20);
    let file = Some(Client::memory(text.as_bytes()));
    broker.say(json!({"offer": {"types": [TEXT], "seconds": 60}}), file);
    assert_eq!(broker.hear(), json!({"offered": {}}));
    let offer = copier.selection();
    // A socket that blocks, and a file.
    let (own, theirs) = UnixStream::pair().expect("a pair");
    for fd in [OwnedFd::from(theirs), Client::memory(b"")] {
        let arguments = vec![Arg::String(Some(TEXT.into())), Arg::Fd(fd)];
        copier.client.say(offer, "receive", arguments);
        copier.client.sync().expect("served");
    }
    own.set_nonblocking(true).expect("set");
    until("it is closed", || ((&own).read(&mut [0; 16]).ok()? == 0).then_some(()));
    // It is there still, for a pipe.
    let pipe = copier.paste(offer, TEXT);
    assert_eq!(read(pipe), text);
    proxy.assert_alive();
}

#[test]
fn selections_that_change_all_the_time_do_not_end_who_hears_of_them() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let mut focused = Copier::new(&desktop, &proxy.socket);
    focused.focus();
    let mut other = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut other);
    let manager = other.bind(Interface::DataDeviceManager);
    let seat = vec![Arg::Object(bound.seat)];
    let device = other.make(manager, "get_data_device", Interface::DataDevice, seat);
    for round in 0..20 {
        let sources: Vec<u32> = (0..50)
            .map(|_| {
                let source =
                    other.make(manager, "create_data_source", Interface::DataSource, vec![]);
                for _ in 0..30 {
                    let kind = Arg::String(Some(format!("{round}{}", "x".repeat(250))));
                    other.say(source, "offer", vec![kind]);
                }
                other.say(device, "set_selection", vec![Arg::Object(source), Arg::Uint(0)]);
                source
            })
            .collect();
        for source in sources {
            other.say(source, "destroy", vec![]);
        }
        other.sync().expect("alive");
    }
    let last = other.make(manager, "create_data_source", Interface::DataSource, vec![]);
    other.say(last, "offer", vec![Arg::String(Some("last".into()))]);
    other.say(device, "set_selection", vec![Arg::Object(last), Arg::Uint(0)]);
    other.sync().expect("alive");
    // It destroys what it was told of, as programs do, and hears of the last one.
    until("the last selection", || {
        focused.client.sync().expect("alive");
        let id = focused.client.last(focused.device, "selection")?.uint(0);
        if focused.kinds(id) == ["last"] {
            return Some(());
        }
        let offers: Vec<u32> = focused
            .client
            .events
            .iter()
            .filter(|it| it.object == focused.device && it.name == "data_offer")
            .map(|it| it.uint(0))
            .collect();
        for offer in offers {
            focused.client.say(offer, "destroy", vec![]);
        }
        let device = focused.device;
        focused.client.events.retain(|it| it.object != device);
        None
    });
    proxy.assert_alive();
}
