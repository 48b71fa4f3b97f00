//! Requests, as they are written.

use std::net::IpAddr;

use serde::Deserialize;

use crate::rules::{Binding, MAX_NOT_FROM, Mac, MacError, NetworkError, Role};

/// A request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Counters of all ports.
    Stats {},
    /// One more port.
    Add(Port),
    /// One less.
    Remove(Named),
    /// Ask a port's guest for its address, to see how long that takes.
    Probe(Named),
    /// Record a port's frames.
    Capture(Named),
    /// No more.
    StopCapture {},
    /// Tell what happens.
    Watch {},
}

/// A port by its name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// As it was added.
    pub name: String,
}

/// A new port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name, a compartment's.
    pub name: String,
    /// `"router"` or `"client"`.
    pub role: PortRole,
    /// Its MAC address.
    pub mac: String,
    /// The addresses it may claim; all, if there are none.
    #[serde(default)]
    pub ip: Vec<IpAddr>,
    /// Networks that a router forwards nothing from.
    #[serde(default, rename = "not-from")]
    pub not_from: Vec<String>,
    /// It goes with the connection by which it was added.
    #[serde(default)]
    pub held: bool,
}

/// Rules that are none.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Its MAC address.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// A network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// More than [`MAX_NOT_FROM`] networks.
    #[error("there are more than {MAX_NOT_FROM} networks in `not-from`")]
    Networks,
}

/// A role.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortRole {
    /// Of the one.
    Router,
    /// Of the others.
    Client,
}

impl Port {
    /// Its rules.
    ///
    /// # Errors
    /// Its address or a network is none.
    pub fn binding(&self) -> Result<Binding, PortError> {
        let role = match self.role {
            PortRole::Router => Role::Router,
            PortRole::Client => Role::Client,
        };
        if self.not_from.len() > MAX_NOT_FROM {
            return Err(PortError::Networks);
        }
        let not_from = self.not_from.iter().map(|network| network.parse());
        Ok(Binding {
            role,
            mac: self.mac.parse::<Mac>()?,
            addresses: self.ip.clone(),
            not_from: not_from.collect::<Result<_, _>>()?,
        })
    }
}
