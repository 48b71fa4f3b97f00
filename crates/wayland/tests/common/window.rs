//! Surfaces of test clients: windows, popups, subsurfaces.

use casemate_wayland::protocol::Interface;
use casemate_wayland::wire::Arg;

use super::client::Client;

/// Opaque colors of clients, as buffers and as pictures have them.
pub const BLUE: (u32, [u8; 3]) = (0xff00_00c8, [0, 0, 200]);
pub const PINK: (u32, [u8; 3]) = (0xffff_00ff, [255, 0, 255]);
pub const WHITE: (u32, [u8; 3]) = (0xffff_ffff, [255, 255, 255]);

pub const GREEN: (u32, [u8; 3]) = (0xff00_ff00, [0, 255, 0]);

/// The border of test proxies.
pub const BORDER: [u8; 3] = [0xcc, 0x22, 0x22];

/// Globals of a client.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub compositor: u32,
    pub subcompositor: u32,
    pub shm: u32,
    pub base: u32,
    pub seat: u32,
}

impl Bound {
    pub fn new(client: &mut Client) -> Self {
        Self {
            compositor: client.bind(Interface::Compositor),
            subcompositor: client.bind(Interface::Subcompositor),
            shm: client.bind(Interface::Shm),
            base: client.bind(Interface::XdgWmBase),
            seat: client.bind(Interface::Seat),
        }
    }

    pub fn surface(self, client: &mut Client) -> u32 {
        client.make(self.compositor, "create_surface", Interface::Surface, vec![])
    }

    /// Shows a buffer of one color with the next commit.
    pub fn paint(self, client: &mut Client, surface: u32, size: (i32, i32), color: u32) {
        let buffer = client.buffer(self.shm, size.0, size.1, color);
        let attach = vec![Arg::Object(buffer), Arg::Int(0), Arg::Int(0)];
        client.say(surface, "attach", attach);
        let all = [0, 0, i32::MAX, i32::MAX].map(Arg::Int).into();
        client.say(surface, "damage", all);
    }

    /// A subsurface with content, not committed at its parent.
    pub fn subsurface(
        self,
        client: &mut Client,
        parent: u32,
        at: (i32, i32),
        size: (i32, i32),
        color: u32,
    ) -> (u32, u32) {
        let surface = self.surface(client);
        let objects = vec![Arg::Object(surface), Arg::Object(parent)];
        let sub = client.make(self.subcompositor, "get_subsurface", Interface::Subsurface, objects);
        client.say(sub, "set_position", vec![Arg::Int(at.0), Arg::Int(at.1)]);
        self.paint(client, surface, size, color);
        client.say(surface, "commit", vec![]);
        (surface, sub)
    }

    /// A popup of `parent` (an `xdg_surface`) at a point of it, with content.
    pub fn popup(
        self,
        client: &mut Client,
        parent: u32,
        at: (i32, i32),
        size: (i32, i32),
        color: u32,
    ) -> Popup {
        let positioner =
            client.make(self.base, "create_positioner", Interface::XdgPositioner, vec![]);
        client.say(positioner, "set_size", vec![Arg::Int(size.0), Arg::Int(size.1)]);
        let rect = [at.0, at.1, 1, 1].map(Arg::Int).into();
        client.say(positioner, "set_anchor_rect", rect);
        // Top left, growing to the bottom right.
        client.say(positioner, "set_anchor", vec![Arg::Uint(5)]);
        client.say(positioner, "set_gravity", vec![Arg::Uint(8)]);
        let surface = self.surface(client);
        let xdg = client.make(
            self.base,
            "get_xdg_surface",
            Interface::XdgSurface,
            vec![Arg::Object(surface)],
        );
        let arguments = vec![Arg::Object(parent), Arg::Object(positioner)];
        let popup = client.make(xdg, "get_popup", Interface::XdgPopup, arguments);
        client.say(positioner, "destroy", vec![]);
        client.say(surface, "commit", vec![]);
        acknowledge(client, xdg);
        self.paint(client, surface, size, color);
        client.say(surface, "commit", vec![]);
        client.sync().expect("shown");
        Popup { surface, xdg, popup }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Popup {
    pub surface: u32,
    pub xdg: u32,
    pub popup: u32,
}

/// A window that is shown.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub surface: u32,
    pub xdg: u32,
    pub toplevel: u32,
}

impl Window {
    /// Without content.
    pub fn empty(client: &mut Client, bound: Bound) -> Self {
        let surface = bound.surface(client);
        let object = vec![Arg::Object(surface)];
        let xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
        let toplevel = client.make(xdg, "get_toplevel", Interface::XdgToplevel, vec![]);
        client.say(toplevel, "set_app_id", vec![Arg::String(Some("test".into()))]);
        client.say(toplevel, "set_title", vec![Arg::String(Some("test".into()))]);
        client.say(surface, "commit", vec![]);
        acknowledge(client, xdg);
        Self { surface, xdg, toplevel }
    }

    pub fn show(client: &mut Client, bound: Bound, size: (i32, i32), color: u32) -> Self {
        let window = Self::empty(client, bound);
        bound.paint(client, window.surface, size, color);
        window.commit(client);
        window
    }

    pub fn commit(self, client: &mut Client) {
        client.say(self.surface, "commit", vec![]);
        client.sync().expect("committed");
    }

    pub fn geometry(self, client: &mut Client, geometry: [i32; 4]) {
        client.say(self.xdg, "set_window_geometry", geometry.map(Arg::Int).into());
    }
}

/// Waits for a configure and takes it.
pub fn acknowledge(client: &mut Client, xdg: u32) {
    let serial = client.wait(|client| Some(client.last(xdg, "configure")?.uint(0)));
    let serial = serial.expect("configured");
    client.say(xdg, "ack_configure", vec![Arg::Uint(serial)]);
}

/// Where a window of this size, border included, is in the middle of the desktop.
pub fn middle((width, height): (i32, i32)) -> (i32, i32, i32, i32) {
    let (all, high) = super::desktop::SIZE;
    let (left, top) = ((all - width) / 2, (high - height) / 2);
    (left, top, left + width, top + height)
}
