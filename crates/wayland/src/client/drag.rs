//! Dragging between windows of one compartment. Only the compositor knows what is below the
//! pointer, so it runs the drag; but all it and others see is a type that means nothing and gives
//! nothing, by which the compartment's own clients know it again. What others drag is not shown.

use std::collections::BTreeMap;

use super::ids::{Owner, Role};
use super::seat::Place;
use super::selection::{Device, Offer, What};
use super::surface::Role as SurfaceRole;
use super::{Call, Client};
use crate::compartment::Types;
use crate::fault::Fault;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// Drags of this client.
#[derive(Debug, Default)]
pub(crate) struct Drags {
    /// Sources at the compositor, and the client's.
    sources: BTreeMap<u32, u32>,
    /// Offers of the compositor's: whether they are of this compartment.
    foreign: BTreeMap<u32, bool>,
    /// Devices of the client that something is dragged over: the surface.
    over: BTreeMap<u32, u32>,
}

/// `wl_data_source.set_actions`.
pub(crate) fn source_actions(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let actions = call.uint()?;
    if let Some(source) = client.sources.get_mut(&call.object) {
        source.actions = actions & 7;
    }
    Ok(())
}

/// `wl_data_device.start_drag`.
pub(crate) fn start(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (source, origin, icon, serial) = (call.id()?, call.id()?, call.id()?, call.uint()?);
    let types = if source == 0 { Types::default() } else { client.use_source(source)? };
    let Some(device) = client.devices.get(&call.object).and_then(|it| it.up) else {
        return client.cancel_source(source);
    };
    let icon_up = client.make_icon(icon)?;
    let origin = client.ids.up(origin)?;
    let actions = client.sources.get(&source).map_or(0, |it| it.actions);
    let kept = (source != 0).then_some(source);
    let token = client.compartment.borrow_mut().begin_drag(client.key, kept, types, actions);
    let source_up = match kept {
        None => 0,
        Some(source) => {
            let up = client.ids.ours(Interface::DataSource, Role::DragSource)?;
            client.drag.sources.insert(up, source);
            let manager = client.own.data_manager;
            let new = vec![Arg::New(up)];
            client.request(manager, Interface::DataDeviceManager, "create_data_source", new)?;
            let token = vec![Arg::String(Some(token))];
            client.request(up, Interface::DataSource, "offer", token)?;
            if client.own.data_manager_version >= 3 {
                let actions = vec![Arg::Uint(actions)];
                client.request(up, Interface::DataSource, "set_actions", actions)?;
            }
            up
        }
    };
    let arguments =
        vec![Arg::Object(source_up), Arg::Object(origin), Arg::Object(icon_up), Arg::Uint(serial)];
    client.request(device, Interface::DataDevice, "start_drag", arguments)?;
    if icon == 0 { Ok(()) } else { client.apply_waiting(icon) }
}

/// `wl_data_offer.accept`.
pub(crate) fn accept(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (serial, kind) = (call.uint()?, call.text()?);
    let Some(Offer { up: Some(up), number, .. }) = client.offers.get(&call.object).copied() else {
        return Ok(());
    };
    let token = {
        let mut compartment = client.compartment.borrow_mut();
        let Some(drag) = compartment.drag.as_mut().filter(|it| it.number == number) else {
            return Ok(());
        };
        drag.accepted = kind.filter(|kind| drag.types.contains(kind));
        drag.accepted.is_some().then(|| drag.token.clone())
    };
    let arguments = vec![Arg::Uint(serial), Arg::String(token)];
    client.request(up, Interface::DataOffer, "accept", arguments)
}

/// `wl_data_offer.finish`.
pub(crate) fn finish(client: &mut Client, call: Call) -> Result<(), Fault> {
    match client.offers.get(&call.object).and_then(|it| it.up) {
        Some(up) => client.request(up, Interface::DataOffer, "finish", Vec::new()),
        None => Err(Fault::protocol(call.object, "nothing was dragged")),
    }
}

/// `wl_data_offer.set_actions`.
pub(crate) fn offer_actions(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (actions, preferred) = (call.uint()? & 7, call.uint()? & 7);
    match client.offers.get(&call.object).and_then(|it| it.up) {
        Some(up) if client.own.data_manager_version >= 3 => {
            let arguments = vec![Arg::Uint(actions), Arg::Uint(preferred)];
            client.request(up, Interface::DataOffer, "set_actions", arguments)
        }
        Some(_) => Ok(()),
        None => Err(Fault::protocol(call.object, "nothing was dragged")),
    }
}

impl Client {
    /// The surface that hangs at the pointer.
    fn make_icon(&mut self, icon: u32) -> Result<u32, Fault> {
        if icon == 0 {
            return Ok(0);
        }
        let surface = self.surfaces.get_mut(&icon).ok_or(Fault::Bug("a surface is not kept"))?;
        if !matches!(surface.role, SurfaceRole::None | SurfaceRole::DragIcon) {
            return Err(Fault::protocol(icon, "the surface is something else already"));
        }
        surface.role = SurfaceRole::DragIcon;
        surface.told.offset = (0, 0);
        Ok(surface.up)
    }

    /// The device at the compositor for a client's.
    pub(crate) fn make_drag_device(&mut self, id: u32, seat: u32) -> Result<Option<u32>, Fault> {
        let manager = self.own.data_manager;
        if manager == 0 {
            return Ok(None);
        }
        let up = self.ids.ours(Interface::DataDevice, Role::Device(id))?;
        let arguments = vec![Arg::New(up), Arg::Object(self.ids.up(seat)?)];
        self.request(manager, Interface::DataDeviceManager, "get_data_device", arguments)?;
        Ok(Some(up))
    }

    /// A client's device is gone.
    pub(crate) fn end_drag_device(&mut self, id: u32, device: Device) -> Result<(), Fault> {
        self.drag.over.remove(&id);
        match device.up {
            Some(up) if self.own.data_manager_version >= 2 => {
                self.request(up, Interface::DataDevice, "release", Vec::new())
            }
            _ => Ok(()),
        }
    }

    /// A client's source is gone.
    pub(crate) fn end_drag_source(&mut self, source: u32) -> Result<(), Fault> {
        let found = self.drag.sources.iter().find(|(_, it)| **it == source).map(|(up, _)| *up);
        let Some(up) = found else { return Ok(()) };
        self.drag.sources.remove(&up);
        self.request(up, Interface::DataSource, "destroy", Vec::new())
    }

    /// An offer of the compositor's is of no more use.
    pub(crate) fn end_foreign_offer(&mut self, up: u32) -> Result<(), Fault> {
        if self.drag.foreign.remove(&up).is_none() {
            return Ok(());
        }
        self.request(up, Interface::DataOffer, "destroy", Vec::new())?;
        self.ids.forget_given(up);
        Ok(())
    }

    /// An event of the compositor's device behind the client's device `id`.
    pub(crate) fn device_event(
        &mut self,
        id: u32,
        name: &str,
        arguments: Vec<Arg>,
    ) -> Result<(), Fault> {
        match (name, &arguments[..]) {
            ("data_offer", [Arg::New(offer)]) => {
                let owner = Owner::Ours { role: Role::Offer, interface: Interface::DataOffer };
                self.ids.given(*offer, owner)?;
                self.drag.foreign.insert(*offer, false);
                Ok(())
            }
            // The host's clipboard: not for a compartment, and not looked at.
            ("selection", [Arg::Object(offer)]) => self.end_foreign_offer(*offer),
            (
                "enter",
                [
                    Arg::Uint(serial),
                    Arg::Object(surface),
                    Arg::Fixed(x),
                    Arg::Fixed(y),
                    Arg::Object(offer),
                ],
            ) => self.drag_enter(id, *serial, *surface, (*x, *y), *offer),
            ("motion", [Arg::Uint(time), Arg::Fixed(x), Arg::Fixed(y)]) => {
                let Some(&surface) = self.drag.over.get(&id) else { return Ok(()) };
                let (x, y) = self.uncut(surface, *x, *y);
                let arguments = vec![Arg::Uint(*time), Arg::Fixed(x), Arg::Fixed(y)];
                self.event(id, Interface::DataDevice, "motion", arguments)
            }
            ("leave", _) => match self.drag.over.remove(&id) {
                Some(_) => self.event(id, Interface::DataDevice, "leave", Vec::new()),
                None => Ok(()),
            },
            ("drop", _) => match self.drag.over.get(&id) {
                Some(_) => self.event(id, Interface::DataDevice, "drop", Vec::new()),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn drag_enter(
        &mut self,
        id: u32,
        serial: u32,
        surface: u32,
        at: (i32, i32),
        offer: u32,
    ) -> Result<(), Fault> {
        let place = match self.ids.owner(surface) {
            Some(Owner::Ours { .. }) | None => Place::Nowhere,
            Some(Owner::Client { .. }) => {
                self.ids.client_of(surface).map_or(Place::Nowhere, Place::Surface)
            }
        };
        let drag = self.compartment.borrow().drag.clone();
        let known = drag.filter(|drag| match offer {
            // Without a source only the client that drags takes part.
            0 => drag.client == self.key && drag.source.is_none(),
            _ => self.drag.foreign.get(&offer) == Some(&true),
        });
        let (Place::Surface(surface), Some(drag)) = (place, known) else {
            return self.end_foreign_offer(offer);
        };
        let Some(version) = self.devices.get(&id).map(|it| it.version) else { return Ok(()) };
        let mut new = 0;
        if offer != 0 {
            if self.offers.len() >= limits::OFFERS {
                return self.end_foreign_offer(offer);
            }
            new = self.ids.give(Interface::DataOffer, version)?;
            let kept = Offer { what: What::Drag, number: drag.number, up: Some(offer) };
            self.offers.insert(new, kept);
            self.event(id, Interface::DataDevice, "data_offer", vec![Arg::New(new)])?;
            for kind in drag.types.iter() {
                let kind = vec![Arg::String(Some(kind.clone()))];
                self.event(new, Interface::DataOffer, "offer", kind)?;
            }
            if version >= 3 {
                let actions = vec![Arg::Uint(drag.actions)];
                self.event(new, Interface::DataOffer, "source_actions", actions)?;
            }
        }
        self.drag.over.insert(id, surface);
        let (x, y) = self.uncut(surface, at.0, at.1);
        let arguments = vec![
            Arg::Uint(serial),
            Arg::Object(surface),
            Arg::Fixed(x),
            Arg::Fixed(y),
            Arg::Object(new),
        ];
        self.event(id, Interface::DataDevice, "enter", arguments)
    }

    /// An event of an offer of the compositor's.
    pub(crate) fn foreign_offer_event(
        &mut self,
        up: u32,
        name: &str,
        arguments: Vec<Arg>,
    ) -> Result<(), Fault> {
        match (name, &arguments[..]) {
            ("offer", [Arg::String(Some(kind))]) => {
                let compartment = self.compartment.borrow();
                let ours = compartment.drag.as_ref().is_some_and(|drag| drag.token == *kind);
                if ours && let Some(known) = self.drag.foreign.get_mut(&up) {
                    *known = true;
                }
                Ok(())
            }
            ("action", [Arg::Uint(action)]) => {
                let found = self.offers.iter().find(|(_, it)| it.up == Some(up));
                let Some(id) = found.map(|(id, _)| *id) else { return Ok(()) };
                let newer = self.ids.live(id).is_some_and(|it| it.version >= 3);
                match newer {
                    true => {
                        let action = vec![Arg::Uint(*action)];
                        self.event(id, Interface::DataOffer, "action", action)
                    }
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// An event of a source at the compositor.
    pub(crate) fn drag_source_event(
        &mut self,
        up: u32,
        name: &str,
        arguments: Vec<Arg>,
    ) -> Result<(), Fault> {
        let Some(&source) = self.drag.sources.get(&up) else { return Ok(()) };
        let Some(version) = self.ids.live(source).map(|it| it.version) else { return Ok(()) };
        let key = self.key;
        let ours =
            |drag: &crate::compartment::Drag| drag.client == key && drag.source == Some(source);
        let arguments = match (name, &arguments[..]) {
            ("target", [Arg::String(kind)]) => {
                let compartment = self.compartment.borrow();
                let drag = compartment.drag.as_ref().filter(|it| ours(it));
                let accepted = drag.and_then(|it| it.accepted.clone());
                vec![Arg::String(accepted.filter(|_| kind.is_some()))]
            }
            // Somebody outside of the compartment asks; closing the descriptor is the answer.
            ("send", _) => return Ok(()),
            ("cancelled" | "dnd_finished", _) => {
                self.compartment.borrow_mut().drag.take_if(|it| ours(it));
                Vec::new()
            }
            ("dnd_drop_performed", _) => Vec::new(),
            ("action", [Arg::Uint(action)]) => vec![Arg::Uint(*action)],
            _ => return Ok(()),
        };
        let since = match name {
            "target" | "cancelled" => 1,
            _ => 3,
        };
        match version >= since {
            true => self.event(source, Interface::DataSource, name, arguments),
            false => Ok(()),
        }
    }
}
