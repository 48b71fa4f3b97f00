//! Clipboard and primary selection, which live here and never reach the compositor: the client
//! of the compartment that has the focus hears of them, and data flows from client to client through their own pipe.

use std::rc::Rc;

use super::{Call, Client};
use crate::compartment::{Effect, Holder, Types, Which};
use crate::fault::Fault;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// What a client offers.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) interface: Interface,
    pub(crate) types: Types,
    pub(crate) actions: u32,
    /// It was selected or dragged; it is no more for anything else.
    pub(crate) used: bool,
}

/// Where a client hears of selections and drags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    pub(crate) which: Which,
    /// At the compositor, for drags.
    pub(crate) up: Option<u32>,
    pub(crate) version: u32,
    /// It was not told of the last selection: the client has too many offers, or much to read.
    late: bool,
}

/// Something a client was told of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) what: What,
    /// Of the selection or drag.
    pub(crate) number: u64,
    /// At the compositor, for drags.
    pub(crate) up: Option<u32>,
}

/// What an offer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Selection(Which),
    Drag,
}

/// Sources a client may have.
const SOURCES: usize = 64;

/// Devices a client may have.
const DEVICES: usize = 32;

/// `wl_data_device_manager.create_data_source` and its like.
pub(crate) fn create_source(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let interface = match call.interface {
        Interface::DataDeviceManager => Interface::DataSource,
        _ => Interface::PrimarySelectionSource,
    };
    let id = call.id()?;
    if client.sources.len() >= SOURCES {
        return Err(Fault::limit("sources of selections", SOURCES));
    }
    client.ids.add(id, interface, call.version)?;
    let source = Source { interface, types: Types::default(), actions: 0, used: false };
    client.sources.insert(id, source);
    Ok(())
}

/// `wl_data_source.offer` and its like.
pub(crate) fn source_offer(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let kind = call.text()?.unwrap_or_default();
    let source = client.sources.get_mut(&call.object);
    let source = source.ok_or(Fault::Bug("a source is not kept"))?;
    if source.types.len() >= limits::TYPES {
        return Err(Fault::limit("types of a selection", limits::TYPES));
    }
    if kind.len() > limits::TYPE {
        return Err(Fault::limit("bytes of a type", limits::TYPE));
    }
    if kind.len() + source.types.iter().map(String::len).sum::<usize>() > limits::TYPE_SUM {
        return Err(Fault::limit("bytes of the types of a selection", limits::TYPE_SUM));
    }
    Rc::make_mut(&mut source.types).push(kind);
    Ok(())
}

/// `wl_data_source.destroy` and its like.
pub(crate) fn destroy_source(client: &mut Client, call: Call) -> Result<(), Fault> {
    client.sources.remove(&call.object);
    client.compartment.borrow_mut().forget_source(client.key, call.object);
    client.end_drag_source(call.object)?;
    client.end(&call)
}

/// `wl_data_device_manager.get_data_device` and its like.
pub(crate) fn get_device(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (id, seat) = (call.id()?, call.id()?);
    if client.devices.len() >= DEVICES {
        return Err(Fault::limit("devices of selections", DEVICES));
    }
    let (interface, which) = match call.interface {
        Interface::DataDeviceManager => (Interface::DataDevice, Which::Clipboard),
        _ => (Interface::PrimarySelectionDevice, Which::Primary),
    };
    client.ids.add(id, interface, call.version)?;
    let up = match which {
        Which::Clipboard => client.make_drag_device(id, seat)?,
        Which::Primary => None,
    };
    client.devices.insert(id, Device { which, up, version: call.version, late: false });
    if client.has_focus() { client.announce_to(id) } else { Ok(()) }
}

/// `wl_data_device.release` and its like.
pub(crate) fn release_device(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(device) = client.devices.remove(&call.object) {
        client.end_drag_device(call.object, device)?;
    }
    client.end(&call)
}

/// `wl_data_device.set_selection` and its like. Whether the client has the focus is not asked: its
/// neighbours are of the same compartment, and others are out of reach.
pub(crate) fn set_selection(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let source = call.id()?;
    let Some(device) = client.devices.get(&call.object).copied() else { return Ok(()) };
    let new = match source {
        0 => None,
        _ => Some((Holder::Client { client: client.key, source }, client.use_source(source)?)),
    };
    client.compartment.borrow_mut().select(device.which, new);
    Ok(())
}

/// `wl_data_offer.receive` and its like.
pub(crate) fn receive(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (kind, fd) = (call.text()?.unwrap_or_default(), call.fd()?);
    let Some(offer) = client.offers.get(&call.object).copied() else { return Ok(()) };
    let compartment = &mut *client.compartment.borrow_mut();
    let (holder, types) = match offer.what {
        What::Selection(which) => match compartment.selection(which) {
            Some(held) if held.number == offer.number => (held.holder, held.types.clone()),
            _ => return Ok(()),
        },
        What::Drag => match &compartment.drag {
            Some(drag) if drag.number == offer.number => {
                let Some(source) = drag.source else { return Ok(()) };
                (Holder::Client { client: drag.client, source }, drag.types.clone())
            }
            _ => return Ok(()),
        },
    };
    // Closing the descriptor is the answer to what was not offered.
    if !types.contains(&kind) {
        return Ok(());
    }
    // waypipe (0.8.4) reads a pipe of its own when all of it is written. What is no pipe stays as it is, and
    // so does a pipe that may not grow.
    let _ = rustix::pipe::fcntl_setpipe_size(&fd, limits::PIPE);
    compartment.effects.push_back(match holder {
        Holder::Client { client, source } => Effect::Send { client, source, kind, fd },
        Holder::Broker => Effect::Broker { number: offer.number, kind, fd },
    });
    Ok(())
}

/// `wl_data_offer.destroy` and its like.
pub(crate) fn destroy_offer(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(offer) = client.offers.remove(&call.object)
        && let Some(up) = offer.up
    {
        client.end_foreign_offer(up)?;
    }
    client.end(&call)?;
    client.announce_late()
}

impl Client {
    /// Takes a source for its one purpose.
    pub(crate) fn use_source(&mut self, id: u32) -> Result<Types, Fault> {
        let source = self.sources.get_mut(&id).ok_or(Fault::Bug("a source is not kept"))?;
        if std::mem::replace(&mut source.used, true) {
            return Err(Fault::protocol(id, "a source is used twice"));
        }
        Ok(source.types.clone())
    }

    /// Tells all devices of a selection, if the client has the focus; else it is told with it.
    ///
    /// # Errors
    /// The client has to go.
    pub fn announce(&mut self, which: Which) -> Result<(), Fault> {
        if !self.has_focus() {
            return Ok(());
        }
        let devices: Vec<u32> =
            self.devices.iter().filter(|(_, it)| it.which == which).map(|(id, _)| *id).collect();
        devices.into_iter().try_for_each(|device| self.announce_to(device))?;
        self.check_output()
    }

    /// Tells devices what they were not told, where that is possible now.
    ///
    /// # Errors
    /// The client has to go.
    pub fn announce_late(&mut self) -> Result<(), Fault> {
        let late: Vec<u32> =
            self.devices.iter().filter(|(_, it)| it.late).map(|(id, _)| *id).collect();
        if !self.has_focus() {
            return Ok(());
        }
        late.into_iter().try_for_each(|device| self.announce_to(device))
    }

    fn announce_to(&mut self, id: u32) -> Result<(), Fault> {
        let full = self.offers.len() >= limits::OFFERS || self.down.waiting() > limits::DOWN_LATE;
        let Some(device) = self.devices.get_mut(&id) else { return Ok(()) };
        device.late = full;
        if full {
            return Ok(());
        }
        let (which, version) = (device.which, device.version);
        let held = self.compartment.borrow().selection(which).cloned();
        let (device, offer) = match which {
            Which::Clipboard => (Interface::DataDevice, Interface::DataOffer),
            Which::Primary => (Interface::PrimarySelectionDevice, Interface::PrimarySelectionOffer),
        };
        let Some(held) = held else {
            return self.event(id, device, "selection", vec![Arg::Object(0)]);
        };
        let new = self.ids.give(offer, version)?;
        let what = What::Selection(which);
        self.offers.insert(new, Offer { what, number: held.number, up: None });
        self.event(id, device, "data_offer", vec![Arg::New(new)])?;
        for kind in held.types.iter() {
            self.event(new, offer, "offer", vec![Arg::String(Some(kind.clone()))])?;
        }
        self.event(id, device, "selection", vec![Arg::Object(new)])
    }

    /// Asks for a source's data. A client that does not read has enough to do.
    ///
    /// # Errors
    /// The client has to go.
    pub fn send_data(
        &mut self,
        source: u32,
        kind: String,
        fd: std::os::fd::OwnedFd,
    ) -> Result<(), Fault> {
        let Some(interface) = self.sources.get(&source).map(|it| it.interface) else {
            return Ok(());
        };
        if self.down.waiting_fds() >= limits::DOWN_FDS {
            return Ok(());
        }
        self.event(source, interface, "send", vec![Arg::String(Some(kind)), Arg::Fd(fd)])
    }

    /// A source is no longer the selection.
    ///
    /// # Errors
    /// The client has to go.
    pub fn cancel_source(&mut self, source: u32) -> Result<(), Fault> {
        match self.sources.get(&source).map(|it| it.interface) {
            Some(interface) => self.event(source, interface, "cancelled", Vec::new()),
            None => Ok(()),
        }
    }
}
