//! Sending: what goes on as it came, with its objects translated, and what the proxy says itself.

use super::{Call, Client};
use crate::fault::{Fault, code};
use crate::protocol::{Interface, Kind, Message};
use crate::wire::Arg;

impl Client {
    /// Every object of a request is there and of the interface it should be.
    pub(crate) fn check_objects(
        &self,
        object: u32,
        message: &Message,
        arguments: &[Arg],
    ) -> Result<(), Fault> {
        for (kind, argument) in message.arguments.iter().zip(arguments) {
            let (Kind::Object(wanted) | Kind::ObjectOrNull(wanted), Arg::Object(id)) =
                (kind, argument)
            else {
                continue;
            };
            if *id == 0 {
                continue;
            }
            let found = self.ids.live(*id).map(|object| object.interface);
            if found != Some(*wanted) {
                let why = format!("object {id} of {} is no {}", message.name, wanted.name());
                return Err(Fault::Protocol { object, code: code::INVALID_OBJECT, why });
            }
        }
        Ok(())
    }

    /// Sends a client's request on as it is.
    pub(crate) fn forward_request(&mut self, call: Call) -> Result<(), Fault> {
        let message = &call.interface.definition().requests[usize::from(call.opcode)];
        let up = self.ids.up(call.object)?;
        let mut translated = Vec::with_capacity(message.arguments.len());
        for (kind, argument) in message.arguments.iter().zip(call.arguments) {
            translated.push(match (kind, argument) {
                (Kind::New(interface), Arg::New(id)) => {
                    self.ids.add(id, *interface, call.version)?;
                    Arg::New(self.ids.raise(id)?)
                }
                (_, Arg::Object(0)) => Arg::Object(0),
                (_, Arg::Object(id)) => Arg::Object(self.ids.up(id)?),
                (_, other) => other,
            });
        }
        self.up.put(up, call.opcode, translated)?;
        if message.ends {
            self.ids.destroy(call.object);
        }
        Ok(())
    }

    /// Sends an event on as it is. One about an object that the client does not have is dropped.
    pub(crate) fn forward_event(&mut self, call: Call) -> Result<(), Fault> {
        let message = &call.interface.definition().events[usize::from(call.opcode)];
        let mut translated = Vec::with_capacity(message.arguments.len());
        for (kind, argument) in message.arguments.iter().zip(call.arguments) {
            translated.push(match (kind, argument) {
                (Kind::New(_) | Kind::NewAny, _) => {
                    return Err(Fault::Bug("an object of the compositor's is forwarded"));
                }
                (_, Arg::Object(0)) => Arg::Object(0),
                (_, Arg::Object(up)) => match self.ids.client_of(up) {
                    Some(id) => Arg::Object(id),
                    None => return Ok(()),
                },
                (_, other) => other,
            });
        }
        self.down.put(call.object, call.opcode, translated)?;
        if message.ends {
            self.ids.destroy(call.object);
        }
        Ok(())
    }

    /// Sends the compositor a request about `up`.
    pub(crate) fn request(
        &mut self,
        up: u32,
        interface: Interface,
        name: &str,
        arguments: Vec<Arg>,
    ) -> Result<(), Fault> {
        let opcode = interface.definition().request(name);
        self.up.put(up, opcode.ok_or(Fault::Bug("no such request"))?, arguments)
    }

    /// Sends the client an event about its object.
    pub(crate) fn event(
        &mut self,
        id: u32,
        interface: Interface,
        name: &str,
        arguments: Vec<Arg>,
    ) -> Result<(), Fault> {
        let opcode = interface.definition().event(name);
        self.down.put(id, opcode.ok_or(Fault::Bug("no such event"))?, arguments)
    }

    /// The client has destroyed an object: the compositor is told where it has one, and where not,
    /// the id is free at once.
    pub(crate) fn end(&mut self, call: &Call) -> Result<(), Fault> {
        match self.ids.live(call.object).and_then(|object| object.up) {
            Some(up) => {
                self.up.put(up, call.opcode, Vec::new())?;
                self.ids.destroy(call.object);
                Ok(())
            }
            None => self.free(call.object),
        }
    }

    /// Frees the id of an object that the compositor never had.
    pub(crate) fn free(&mut self, id: u32) -> Result<(), Fault> {
        match self.ids.forget(id) {
            true => self.event(1, Interface::Display, "delete_id", vec![Arg::Uint(id)]),
            false => Ok(()),
        }
    }
}
