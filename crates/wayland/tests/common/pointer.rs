//! A pointer for a desktop that has none: a client of the compositor that moves it
//! (wlr-virtual-pointer-unstable-v1).

use casemate_wayland::protocol::Interface;
use casemate_wayland::wire::Arg;

use super::client::Client;
use super::desktop::{Desktop, SIZE};

const MANAGER: &str = "zwlr_virtual_pointer_manager_v1";

/// Requests of the protocol by number.
const CREATE: u16 = 0;
const MOTION_ABSOLUTE: u16 = 1;
const BUTTON: u16 = 2;
const FRAME: u16 = 4;

/// A pointer.
pub struct Pointer {
    client: Client,
    pointer: u32,
    time: u32,
}

impl Pointer {
    pub fn new(desktop: &Desktop) -> Self {
        let mut client = Client::connect(&desktop.wayland());
        let found = client.globals.iter().find(|(_, name, _)| name == MANAGER).cloned();
        let (name, ..) = found.expect("sway lets clients be pointers");
        // Neither has an event, so the interface that is noted for it is of no account.
        let manager = client.new_id(Interface::Region);
        let bind = vec![
            Arg::Uint(name),
            Arg::String(Some(MANAGER.into())),
            Arg::Uint(1),
            Arg::New(manager),
        ];
        let registry = client.registry;
        client.say(registry, "bind", bind);
        let pointer = client.new_id(Interface::Region);
        client.say_raw(manager, CREATE, vec![Arg::Object(0), Arg::New(pointer)]);
        client.sync().expect("a pointer");
        Self { client, pointer, time: 0 }
    }

    /// Moves it to a point of the desktop.
    pub fn to(&mut self, x: i32, y: i32) {
        self.time += 10;
        let numbers = [self.time, x as u32, y as u32, SIZE.0 as u32, SIZE.1 as u32];
        self.client.say_raw(self.pointer, MOTION_ABSOLUTE, numbers.map(Arg::Uint).into());
        self.frame();
    }

    /// Presses or lets go of the left button.
    pub fn press(&mut self, pressed: bool) {
        self.time += 10;
        let numbers = [self.time, 0x110, u32::from(pressed)];
        self.client.say_raw(self.pointer, BUTTON, numbers.map(Arg::Uint).into());
        self.frame();
    }

    fn frame(&mut self) {
        self.client.say_raw(self.pointer, FRAME, vec![]);
        self.client.sync().expect("moved");
    }
}
