//! Ids, addresses and MACs for what the user left open.
//!
//! What was given once is given again: `prior` wins over any fresh choice, names that are gone
//! keep their numbers until none is free, and what the user fixed wins over all. The same
//! settings and the same `prior` always give the same result.

mod compartments;
mod networks;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::settings::{NetworkSettings, Settings};
use crate::value::id::CompartmentId;
use crate::value::mac::MacAddr;
use crate::value::name::{CompartmentName, NetworkName};
use crate::value::net::Ipv4Cidr;

/// What was given to which name. Kept on disk by the caller, between all runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedIds {
    /// Every compartment, and those that are gone but whose number is still free.
    #[serde(default)]
    pub compartments: BTreeMap<CompartmentName, AssignedCompartment>,
    /// Every virtual network, and those that are gone.
    #[serde(default)]
    pub networks: BTreeMap<NetworkName, AssignedNetwork>,
}

/// What one compartment was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedCompartment {
    /// Its number, unique.
    pub id: CompartmentId,
    /// Address of its end of the link to the host, used with `host-networking`.
    pub mac: MacAddr,
}

/// What one virtual network was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedNetwork {
    /// Its network; overlaps no other.
    pub cidr: Ipv4Cidr,
    /// Router and clients, and those that are gone.
    #[serde(default)]
    pub members: BTreeMap<CompartmentName, AssignedMember>,
}

/// What one member of a virtual network was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedMember {
    /// Its address: the router's is the network's first.
    pub address: Ipv4Addr,
    /// Its Ethernet address, unique among all of casemate's.
    pub mac: MacAddr,
}

impl AssignedIds {
    /// Takes over what `other` knows; where both know a name, `other` is right.
    ///
    /// For a user's configuration that sees system compartments, whose numbers are kept elsewhere.
    pub fn absorb(&mut self, other: &Self) {
        self.compartments.extend(other.compartments.clone());
        self.networks.extend(other.networks.clone());
    }
}

impl NetworkSettings {
    /// The largest id whose /31 lies within `cidr`.
    pub fn largest_id(&self) -> CompartmentId {
        // The last address of any network is odd, and at least 7 (prefix lengths end at 29).
        CompartmentId::new(self.cidr.size() - 1).unwrap_or(CompartmentId::MAX)
    }

    /// The addresses of host and guest on the /31 of a compartment, in this order.
    pub fn link(&self, id: CompartmentId) -> Option<(Ipv4Addr, Ipv4Addr)> {
        self.cidr.host(id.get() - 1).zip(self.cidr.host(id.get()))
    }
}

impl Settings {
    /// Gives every compartment an id and a MAC, every network a /24 and every member an address.
    /// What is in `running` keeps its id though these settings do not declare it: it was started
    /// from others.
    ///
    /// # Errors
    /// A diagnostic for each name that nothing was left for.
    pub fn assign(
        &self,
        prior: &AssignedIds,
        running: &BTreeSet<CompartmentName>,
    ) -> Result<AssignedIds, Vec<Diagnostic>> {
        let mut diagnostics = Vec::new();
        let ids = compartments::ids(self, prior, running, &mut diagnostics);
        let networks = networks::addresses(self, prior, &ids, &mut diagnostics);
        if diagnostics.is_empty() {
            Ok(networks::with_macs(self, prior, &ids, &networks))
        } else {
            Err(diagnostics)
        }
    }

    /// An id for a fresh disposable: the highest that neither is assigned nor in `in_use`, so that
    /// it stays out of the way of compartments declared later.
    pub fn free_id(
        &self,
        assigned: &AssignedIds,
        in_use: &BTreeSet<CompartmentId>,
    ) -> Option<CompartmentId> {
        let taken: BTreeSet<CompartmentId> =
            assigned.compartments.values().map(|compartment| compartment.id).collect();
        (CompartmentId::MIN.get()..=self.network.largest_id().get())
            .rev()
            .filter_map(CompartmentId::new)
            .find(|id| !taken.contains(id) && !in_use.contains(id))
    }
}
