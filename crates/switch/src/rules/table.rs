//! Which port has which address: fixed by whoever configures the ports.

use super::{Mac, Role};

/// Ports of one switch, the router among them.
pub const MAX_PORTS: usize = 256;

/// Places, so that at most half of them are taken and a search ends soon.
const PLACES: usize = 512;

/// Addresses and their ports, found by a hash with open addressing.
#[derive(Debug)]
pub struct Table {
    router: Option<(usize, Mac)>,
    /// Address and port; zero is no port's address.
    places: Box<[(u64, u16); PLACES]>,
    clients: Vec<usize>,
}

impl Default for Table {
    fn default() -> Self {
        Self { router: None, places: Box::new([(0, 0); PLACES]), clients: Vec::new() }
    }
}

impl Table {
    /// The table of these ports, at most [`MAX_PORTS`] of them, each with its number.
    #[must_use]
    pub fn new(ports: impl Iterator<Item = (usize, Role, Mac)>) -> Self {
        let mut table = Self::default();
        for (port, role, mac) in ports.take(MAX_PORTS) {
            if role == Role::Router {
                table.router = Some((port, mac));
                continue;
            }
            let mut place = Self::first_place(mac);
            while table.places[place].0 != 0 {
                place = (place + 1) % PLACES;
            }
            table.places[place] = (mac.bits(), port as u16);
            table.clients.push(port);
        }
        table
    }

    /// The router's number and address.
    #[inline(always)]
    #[must_use]
    pub fn router(&self) -> Option<(usize, Mac)> {
        self.router
    }

    /// The client with that address.
    #[inline]
    #[must_use]
    pub fn client(&self, mac: Mac) -> Option<usize> {
        let mut place = Self::first_place(mac);
        loop {
            match self.places[place] {
                (0, _) => return None,
                (bits, port) if bits == mac.bits() => return Some(port.into()),
                _ => place = (place + 1) % PLACES,
            }
        }
    }

    /// All clients.
    #[must_use]
    pub fn clients(&self) -> &[usize] {
        &self.clients
    }

    fn first_place(mac: Mac) -> usize {
        // Multiplication by 2^64 / φ, upper bits: neighbouring addresses spread evenly.
        (mac.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as usize % PLACES
    }
}
