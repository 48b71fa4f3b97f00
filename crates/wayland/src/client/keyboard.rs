//! Keyboards, for the sake of the focus: programs expect to hear of a selection when they get it, and
//! some fall over when they hear sooner.

use super::{Call, Client};
use crate::compartment::Which;
use crate::fault::Fault;
use crate::wire::Arg;

/// `wl_seat.get_keyboard`.
pub(crate) fn create(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(Arg::New(id)) = call.arguments.as_slice().first() {
        client.keyboards.insert(*id, false);
    }
    client.forward_request(call)
}

/// `wl_keyboard.release`.
pub(crate) fn release(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.keyboards.remove(&call.object);
    client.end(&call)
}

/// `wl_keyboard.enter`: the selections come before it.
pub(crate) fn enter(client: &mut Client, call: Call) -> Result<(), Fault> {
    let before = client.has_focus();
    client.keyboards.insert(call.object, true);
    client.announce_focus(before)?;
    client.forward_event(call)
}

/// `wl_keyboard.leave`.
pub(crate) fn leave(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.keyboards.insert(call.object, false);
    client.forward_event(call)
}

impl Client {
    /// Whether this client has the focus: its keyboards say so, or where it has none, its windows.
    pub(crate) fn has_focus(&self) -> bool {
        match self.keyboards.is_empty() {
            true => self.toplevels.values().any(|it| it.activated),
            false => self.keyboards.values().any(|it| *it),
        }
    }

    /// The focus may have come: then it hears of the selections.
    pub(crate) fn announce_focus(&mut self, before: bool) -> Result<(), Fault> {
        if before || !self.has_focus() {
            return Ok(());
        }
        self.announce(Which::Clipboard)?;
        self.announce(Which::Primary)
    }
}
