//! What the compositor says about the connection itself.

use super::ids::Owner;
use super::{Call, Client};
use crate::fault::Fault;
use casemate_wire::text::harmless_line;

/// Characters of a compositor's message.
const MESSAGE: usize = 200;

/// `wl_display.error`: the end, passed on as the reason.
pub(crate) fn error(_: &mut Client, mut call: Call) -> Result<(), Fault> {
    let _object = call.id()?;
    let code = call.uint()?;
    let text = call.text()?.unwrap_or_default();
    Err(Fault::Ended(format!("error {code}, {}", harmless_line(&text, MESSAGE))))
}

/// The destructor of an object that is a way to others and nothing else.
pub(crate) fn end(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.end(&call)
}

/// `wl_display.delete_id`: an id is free again, here and at the client.
pub(crate) fn delete_id(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let up = call.uint()?;
    match client.ids.released(up) {
        Some(Owner::Client { id, .. }) => client.free(id),
        Some(Owner::Ours { .. }) | None => Ok(()),
    }
}
