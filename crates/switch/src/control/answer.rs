//! What the switch does about requests.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::{Map, Value, json};

use super::capture::Capture;
use super::request::{Named, Request};
use super::{MAX_REQUEST, REQUESTS};
use crate::descriptor;
use crate::forward::{Counters, DROPS};
use crate::rules::Role;
use crate::switch::{Settings, Source, Switch, SwitchError};

impl Switch {
    /// Takes a listening packet socket for supervisors.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn set_control(&mut self, listener: OwnedFd) -> Result<(), SwitchError> {
        // It is looked at without having told of anybody, too.
        fcntl(&listener, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|error| SwitchError::System("use the control socket", error))?;
        let listener = self.control.set_listener(listener);
        self.watch
            .add(listener, Source::Control)
            .map_err(|error| SwitchError::System("watch the control socket", error))
    }

    pub(crate) fn control_accept(&mut self) {
        let client = match self.control.accept() {
            Ok(Some(client)) => client,
            Ok(None) => return,
            // It would be told again and again. When a client has gone there is room.
            Err(_) => return self.control_listen(false),
        };
        if let Some(socket) = self.control.socket(client)
            && self.watch.add(socket, Source::Client(client)).is_err()
        {
            self.control.forget(client);
        }
    }

    fn control_listen(&mut self, listen: bool) {
        if let Some(listener) = self.control.listener() {
            let _ = self.watch.listen(listener, Source::Control, listen);
        }
    }

    /// Somebody has asked something, or has gone.
    pub(crate) fn control_answer(&mut self, client: usize) {
        for _ in 0..REQUESTS {
            let Some(socket) = self.control.socket(client) else { return };
            let mut buffer = [0; MAX_REQUEST];
            let answer = match descriptor::receive(socket, &mut buffer) {
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => return,
                Ok(Some((length, descriptors))) if length > 0 => {
                    match self.answer(client, &buffer[..length], descriptors) {
                        Ok(answer) => answer,
                        Err(reason) => json!({ "error": reason }),
                    }
                }
                Ok(None) => json!({ "error": "the request is too long" }),
                Ok(_) | Err(_) => return self.control_forget(client),
            };
            if !self.control.send(client, &answer) {
                return self.control_forget(client);
            }
        }
    }

    fn control_forget(&mut self, client: usize) {
        if let Some(socket) = self.control.socket(client) {
            self.watch.remove(socket);
        }
        self.control.forget(client);
        self.control_listen(true);
        self.remove_held(client);
    }

    fn answer(
        &mut self,
        client: usize,
        request: &[u8],
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<Value, String> {
        let request = serde_json::from_slice(request)
            .map_err(|error| format!("could not understand the request: {error}"))?;
        let mut descriptor = || descriptors.pop().ok_or("no descriptor came with the request");
        match request {
            Request::Stats {} => return Ok(self.stats()),
            Request::Add(port) => {
                let binding = port.binding().map_err(|error| error.to_string())?;
                let holder = port.held.then_some(client);
                let listener = descriptor()?;
                let settings = Settings { name: port.name, binding, listener, holder };
                self.add_port(settings).map_err(|error| error.to_string())?;
            }
            Request::Remove(Named { name }) => {
                let port = self.port_named(&name)?;
                self.remove_port(port);
            }
            Request::Probe(Named { name }) => {
                let port = self.port_named(&name)?;
                self.probe(port)?;
            }
            Request::Capture(Named { name }) => {
                if !self.control.allow_capture {
                    return Err("recording is not allowed: --allow-capture".into());
                }
                let port = self.port_named(&name)?;
                let capture = Capture::new(descriptor()?)
                    .map_err(|error| format!("could not send to the socket: {error}"))?;
                self.control.capture = Some(capture);
                self.fabric.recorded = Some(port);
            }
            Request::StopCapture {} => {
                self.control.capture = None;
                self.fabric.recorded = None;
            }
            Request::Watch {} => self.control.watch(client),
        }
        Ok(json!({ "ok": {} }))
    }

    fn port_named(&self, name: &str) -> Result<usize, String> {
        self.ports
            .iter()
            .position(|port| port.as_ref().is_some_and(|port| port.settings.name == name))
            .ok_or_else(|| format!("there is no port `{name}`"))
    }

    /// Asks for the first IPv4 address of a port.
    fn probe(&mut self, number: usize) -> Result<(), String> {
        let Some(Some(port)) = self.ports.get(number) else { return Ok(()) };
        let binding = &port.settings.binding;
        let ipv4 = binding.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let address = ipv4.ok_or("the port has no IPv4 address to ask for")?;
        match self.fabric.probe(number, binding.mac, address, Instant::now()) {
            true => {
                self.after_turn(Instant::now());
                Ok(())
            }
            false => Err("the port has no room for a frame".into()),
        }
    }

    fn stats(&self) -> Value {
        let ports = self.ports.iter().zip(&self.fabric.counters).enumerate();
        let ports = ports.filter_map(|(number, (port, counters))| {
            let port = port.as_ref()?;
            let role = match port.settings.binding.role {
                Role::Router => "router",
                Role::Client => "client",
            };
            Some(json!({
                "name": port.settings.name,
                "role": role,
                "mac": port.settings.binding.mac.to_string(),
                "connected": port.connection.is_some(),
                "sends": port.connection.as_ref().is_some_and(|one| one.transmit.is_some()),
                "receives": self.fabric.receivers[number].is_some(),
                "sent": { "frames": counters.sent_frames, "bytes": counters.sent_bytes },
                "received": {
                    "frames": counters.received_frames, "bytes": counters.received_bytes,
                },
                "batches": counters.batches,
                "signals": counters.signals,
                "waits": counters.waits,
                "parked": counters.parked,
                "ip": port.settings.binding.addresses,
                "drops": drops(counters),
                "probe-us": counters.probe.map(|latency| latency.as_nanos() as f64 / 1000.0),
            }))
        });
        json!({ "ports": ports.collect::<Vec<_>>() })
    }
}

/// Reasons that have occurred.
fn drops(counters: &Counters) -> Map<String, Value> {
    let count = |&(drop, name): &(_, &str)| (name.to_owned(), counters.dropped(drop));
    let some = DROPS.iter().map(count).filter(|&(_, count)| count > 0);
    some.map(|(name, count)| (name, count.into())).collect()
}
