//! Objects of both sides, and which is which.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::fault::{Fault, code};
use crate::limits;
use crate::protocol::Interface;

/// The first id that a compositor gives (wayland.freedesktop.org, "Creating Objects").
pub(crate) const FIRST_OF_SERVER: u32 = 0xff00_0000;

/// A client's object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    pub(crate) interface: Interface,
    pub(crate) version: u32,
    /// The compositor's object; none where the proxy is the compositor.
    pub(crate) up: Option<u32>,
    /// False once it was destroyed, until the compositor has forgotten it too.
    pub(crate) alive: bool,
}

/// Whose an object at the compositor is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    /// The client's, with its id.
    Client { id: u32, interface: Interface },
    /// The proxy's.
    Ours { role: Role, interface: Interface },
}

/// What an object of the proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Registry,
    /// The callback that ends the compositor's list of globals.
    Begin,
    /// Border or label of this surface of the client.
    Frame(u32),
    /// An output, with its size in pixels.
    Output,
    /// Tells the size of an output as windows see it.
    Screen,
    /// Where drags come from and go to: a device at the compositor.
    Device(u32),
    /// A drag that began here.
    DragSource,
    /// Something dragged or selected elsewhere.
    Offer,
    /// Nothing it says matters.
    Silent,
}

/// Spreads ids, which are mostly counted up. A client that picks colliding ones makes its own few
/// thousand objects slow to find, which is what the time of a turn is limited for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        // 2^64 by the golden ratio (Knuth, Sorting and Searching, 6.4).
        self.0 = (self.0.rotate_left(32) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Owner {
    pub(crate) fn interface(&self) -> Interface {
        match *self {
            Self::Client { interface, .. } | Self::Ours { interface, .. } => interface,
        }
    }
}

/// Objects of both sides.
#[derive(Debug)]
pub(crate) struct Ids {
    objects: HashMap<u32, Object, BuildHasherDefault<Spread>>,
    /// At the compositor, by its ids below [`FIRST_OF_SERVER`].
    owners: Vec<Option<Owner>>,
    free: Vec<u32>,
    /// At the compositor, by ids that it gave.
    given: HashMap<u32, Owner>,
    /// Those of them that were destroyed: the compositor may have said something of them before it heard
    /// of that.
    gone: BTreeSet<u32>,
    /// Ids that the proxy gave the client and may give again.
    returned: BTreeSet<u32>,
    next_given: u32,
}

impl Ids {
    /// The display, which both have.
    pub(crate) fn new() -> Self {
        let object = Object { interface: Interface::Display, version: 1, up: Some(1), alive: true };
        let display = Owner::Client { id: 1, interface: Interface::Display };
        Self {
            objects: HashMap::from_iter([(1, object)]),
            owners: vec![None, Some(display)],
            free: Vec::new(),
            given: HashMap::new(),
            gone: BTreeSet::new(),
            returned: BTreeSet::new(),
            next_given: FIRST_OF_SERVER,
        }
    }

    /// Objects of the client.
    pub(crate) fn count(&self) -> usize {
        self.objects.len()
    }

    /// A client's object that was not destroyed.
    pub(crate) fn live(&self, id: u32) -> Option<Object> {
        self.objects.get(&id).copied().filter(|object| object.alive)
    }

    /// The compositor's id of a client's object that was not destroyed.
    pub(crate) fn up(&self, id: u32) -> Result<u32, Fault> {
        let up = self.live(id).and_then(|object| object.up);
        up.ok_or(Fault::Bug("an object of the proxy's is needed at the compositor"))
    }

    /// Whose this object at the compositor is.
    pub(crate) fn owner(&self, up: u32) -> Option<Owner> {
        match up >= FIRST_OF_SERVER {
            true => self.given.get(&up).copied().or_else(|| {
                let silent = Owner::Ours { role: Role::Silent, interface: Interface::DataOffer };
                self.gone.contains(&up).then_some(silent)
            }),
            false => *self.owners.get(up as usize)?,
        }
    }

    /// The client's id of the compositor's object, if the client has it and did not destroy it.
    pub(crate) fn client_of(&self, up: u32) -> Option<u32> {
        match self.owner(up)? {
            Owner::Client { id, .. } => self.live(id).map(|_| id),
            Owner::Ours { .. } => None,
        }
    }

    /// The client has made an object, so far without one at the compositor.
    pub(crate) fn add(&mut self, id: u32, interface: Interface, version: u32) -> Result<(), Fault> {
        let invalid = |why: String| Fault::Protocol { object: 1, code: code::INVALID_OBJECT, why };
        if id == 0 || id >= FIRST_OF_SERVER {
            return Err(invalid(format!("it made an object with the id {id}")));
        }
        if self.objects.len() >= limits::OBJECTS {
            return Err(Fault::limit("objects", limits::OBJECTS));
        }
        if self.objects.contains_key(&id) {
            return Err(invalid(format!("it made object {id}, which is there")));
        }
        self.objects.insert(id, Object { interface, version, up: None, alive: true });
        Ok(())
    }

    /// An object that the proxy gives the client.
    pub(crate) fn give(&mut self, interface: Interface, version: u32) -> Result<u32, Fault> {
        if self.objects.len() >= limits::OBJECTS {
            return Err(Fault::limit("objects", limits::OBJECTS));
        }
        let id = self.returned.pop_first().unwrap_or_else(|| {
            let id = self.next_given;
            self.next_given = id.saturating_add(1);
            id
        });
        self.objects.insert(id, Object { interface, version, up: None, alive: true });
        Ok(id)
    }

    /// Gives a client's object one at the compositor. Compositors want ids in the order in which
    /// they were taken, so the request that makes it comes before any other is taken.
    pub(crate) fn raise(&mut self, id: u32) -> Result<u32, Fault> {
        let object = self.objects.get(&id).copied();
        let object = object.ok_or(Fault::Bug("an object without a place is raised"))?;
        let up = self.acquire(Owner::Client { id, interface: object.interface })?;
        self.objects.insert(id, Object { up: Some(up), ..object });
        Ok(up)
    }

    /// An object of the proxy's own at the compositor.
    pub(crate) fn ours(&mut self, interface: Interface, role: Role) -> Result<u32, Fault> {
        self.acquire(Owner::Ours { role, interface })
    }

    fn acquire(&mut self, owner: Owner) -> Result<u32, Fault> {
        if let Some(up) = self.free.pop() {
            self.owners[up as usize] = Some(owner);
            return Ok(up);
        }
        // The client's and ours: eighteen for each window or popup, one for each surface.
        if self.owners.len() > 2 * limits::OBJECTS {
            return Err(Fault::limit("objects at the compositor", 2 * limits::OBJECTS));
        }
        self.owners.push(Some(owner));
        Ok((self.owners.len() - 1) as u32)
    }

    /// The compositor has made an object.
    pub(crate) fn given(&mut self, up: u32, owner: Owner) -> Result<(), Fault> {
        if up < FIRST_OF_SERVER || self.given.len() >= limits::OFFERS * 4 {
            return Err(Fault::Ended("it made an object out of turn".into()));
        }
        self.gone.remove(&up);
        self.given.insert(up, owner);
        Ok(())
    }

    /// Ours, given by the compositor, is destroyed.
    pub(crate) fn forget_given(&mut self, up: u32) {
        self.given.remove(&up);
        // Ids are given again, the free ones first: there are never many.
        if self.gone.len() >= limits::OFFERS * 4 {
            self.gone.pop_first();
        }
        self.gone.insert(up);
    }

    /// The client has destroyed it; its id stays taken until the compositor says so.
    pub(crate) fn destroy(&mut self, id: u32) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.alive = false;
        }
    }

    /// The client's id is free. True when the client has to be told.
    pub(crate) fn forget(&mut self, id: u32) -> bool {
        let known = self.objects.remove(&id).is_some();
        if id >= FIRST_OF_SERVER {
            if known {
                self.returned.insert(id);
            }
            return false;
        }
        known
    }

    /// The compositor has freed an id: whose it was.
    pub(crate) fn released(&mut self, up: u32) -> Option<Owner> {
        let owner = self.owners.get_mut(up as usize)?.take()?;
        self.free.push(up);
        Some(owner)
    }
}
